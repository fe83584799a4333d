-- Who may do what: roles of people, their sessions, where API keys may be used from,
-- and how far the audit has been told to others. Times are Unix microseconds in UTC,
-- zero for "none".

-- +goose Up

-- The roles that people have. realm is where they have it; empty: in all. The MAC is
-- over all that decides.
CREATE TABLE role_grants (
    user_id INTEGER NOT NULL REFERENCES users (id),
    role    TEXT NOT NULL,
    realm   TEXT NOT NULL,
    mac     BLOB NOT NULL,
    actor   TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (user_id, role, realm)
) WITHOUT ROWID;

-- Who signed in. home and user_key name the user; realm is where the session acts,
-- empty: in all; bound is the network address that it is good from, empty: any.
-- authenticated is when the token named by serial last proved its holder. The MAC is
-- over all but ended.
CREATE TABLE sessions (
    id            TEXT PRIMARY KEY,
    user_id       INTEGER NOT NULL REFERENCES users (id),
    home          TEXT NOT NULL,
    user_key      TEXT NOT NULL,
    realm         TEXT NOT NULL,
    serial        TEXT NOT NULL,
    method        TEXT NOT NULL,
    bound         TEXT NOT NULL,
    through       TEXT NOT NULL,
    mac           BLOB NOT NULL,
    created       INTEGER NOT NULL,
    authenticated INTEGER NOT NULL,
    expires       INTEGER NOT NULL,
    ended         INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX sessions_user ON sessions (user_id, expires);
CREATE INDEX sessions_expires ON sessions (expires);

-- The networks that an API key is good from, divided by commas; empty: any. And the
-- key that takes its place, while both are good.
ALTER TABLE api_keys ADD COLUMN sources TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN successor TEXT NOT NULL DEFAULT '';

-- How far the audit has been told to each sink, chain by chain, and which server tells
-- it until when.
CREATE TABLE couriers (
    sink   TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until  INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE told (
    sink  TEXT NOT NULL,
    chain INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (sink, chain)
) WITHOUT ROWID;

-- What administrators did. Attempts are not in it, so that it costs them nothing.
CREATE INDEX audit_actor ON audit (actor, id) WHERE action <> 'verify';
