-- Who may do what: roles of people, their sessions, where API keys may be used from,
-- and how far the audit has been told to others. Times are Unix microseconds in UTC,
-- zero for "none".
--
-- Nodes of the version before go on while this is done, and after it: nothing
-- that they use changes.

-- +goose Up

-- The roles that people have. realm is where they have it; empty: in all. The MAC is
-- over all that decides.
CREATE TABLE role_grants (
    user_id bigint NOT NULL REFERENCES users (id),
    role    text COLLATE "C" NOT NULL,
    realm   text COLLATE "C" NOT NULL,
    mac     bytea NOT NULL,
    actor   text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    PRIMARY KEY (user_id, role, realm)
);

-- Who signed in. home and user_key name the user; realm is where the session acts,
-- empty: in all; bound is the network address that it is good from, empty: any.
-- authenticated is when the token named by serial last proved its holder. The MAC is
-- over all but ended.
CREATE TABLE sessions (
    id            text COLLATE "C" PRIMARY KEY,
    user_id       bigint NOT NULL REFERENCES users (id),
    home          text COLLATE "C" NOT NULL,
    user_key      text COLLATE "C" NOT NULL,
    realm         text COLLATE "C" NOT NULL,
    serial        text COLLATE "C" NOT NULL,
    method        text COLLATE "C" NOT NULL,
    bound         text COLLATE "C" NOT NULL,
    through       text COLLATE "C" NOT NULL,
    mac           bytea NOT NULL,
    created       bigint NOT NULL,
    authenticated bigint NOT NULL,
    expires       bigint NOT NULL,
    ended         bigint NOT NULL DEFAULT 0
);
CREATE INDEX sessions_user ON sessions (user_id, expires);
CREATE INDEX sessions_expires ON sessions (expires);

-- The networks that an API key is good from, divided by commas; empty: any. And the
-- key that takes its place, while both are good.
ALTER TABLE api_keys
    ADD COLUMN sources   text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN successor text COLLATE "C" NOT NULL DEFAULT '';

-- How far the audit has been told to each sink, chain by chain, and which server tells
-- it until when.
CREATE TABLE couriers (
    sink   text COLLATE "C" PRIMARY KEY,
    holder text COLLATE "C" NOT NULL,
    until  bigint NOT NULL
);
CREATE TABLE told (
    sink  text COLLATE "C" NOT NULL,
    chain bigint NOT NULL,
    seq   bigint NOT NULL,
    PRIMARY KEY (sink, chain)
);

-- What administrators did. Attempts are not in it, so that it costs them nothing.
CREATE INDEX audit_actor ON audit (actor, id) WHERE action <> 'verify';
