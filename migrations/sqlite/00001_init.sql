-- Times are Unix microseconds in UTC, zero for "none". Names are compared as
-- bytes: they were folded before they came here.

-- +goose Up

-- What nodes cache (clients, API keys) belongs to a generation.
CREATE TABLE meta (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    generation INTEGER NOT NULL
);
INSERT INTO meta (one, generation) VALUES (1, 1);

-- A user's number is never given again, and some are reserved: see newcomers.
CREATE TABLE users (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    realm    TEXT NOT NULL,
    key      TEXT NOT NULL,
    name     TEXT NOT NULL,
    state    TEXT NOT NULL,
    pin_salt BLOB,
    pin_mac  BLOB,
    created  INTEGER NOT NULL,
    UNIQUE (realm, key)
);

-- What each attempt may move of a user, apart from what is searched. tail is
-- the user's newest audit record: see audit.
CREATE TABLE standings (
    user_id  INTEGER PRIMARY KEY REFERENCES users (id),
    version  INTEGER NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    locked   INTEGER NOT NULL DEFAULT 0,
    tail     INTEGER NOT NULL DEFAULT 0,
    throttle TEXT NOT NULL DEFAULT ''
);

-- An import. Its number is never given again: an importer that lost its batch
-- must not find another's under it.
CREATE TABLE batches (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    state     TEXT NOT NULL CHECK (state IN ('staging', 'discarding', 'published')),
    realm     TEXT NOT NULL,
    name      TEXT NOT NULL,
    format    TEXT NOT NULL,
    sha256    TEXT NOT NULL,
    actor     TEXT NOT NULL,
    created   INTEGER NOT NULL,
    published INTEGER NOT NULL DEFAULT 0,
    touched   INTEGER NOT NULL,
    tokens    INTEGER NOT NULL DEFAULT 0,
    rejected  INTEGER NOT NULL DEFAULT 0,
    duplicate INTEGER NOT NULL DEFAULT 0,
    undone    INTEGER NOT NULL DEFAULT 0,
    removed   INTEGER NOT NULL DEFAULT 0
);

-- last0 and drift0 are what the token came with; see motions. public_id and
-- private_mac are those of a token that makes Yubico OTPs.
CREATE TABLE tokens (
    id        INTEGER PRIMARY KEY,
    batch     INTEGER NOT NULL REFERENCES batches (id),
    realm     TEXT NOT NULL,
    serial    TEXT NOT NULL,
    type      TEXT NOT NULL,
    algorithm INTEGER NOT NULL,
    digits    INTEGER NOT NULL,
    period    INTEGER NOT NULL,
    state     TEXT NOT NULL,
    owner_id  INTEGER REFERENCES users (id),
    model     TEXT NOT NULL,
    hint      TEXT NOT NULL DEFAULT '',
    created   INTEGER NOT NULL,
    mechanism TEXT NOT NULL,
    kek       INTEGER NOT NULL,
    hash      INTEGER NOT NULL,
    seed_len  INTEGER NOT NULL,
    blob      BLOB,
    binding   BLOB,
    last0     INTEGER NOT NULL,
    drift0    INTEGER NOT NULL,
    public_id   TEXT,
    private_mac BLOB,
    UNIQUE (realm, serial)
);
CREATE INDEX tokens_owner ON tokens (owner_id) WHERE owner_id IS NOT NULL;
CREATE INDEX tokens_batch ON tokens (batch);

-- What an accept moves of a token. A row appears when a token first changes in
-- any way, and then stays: last never goes back, by unassigning neither.
CREATE TABLE motions (
    token_id INTEGER PRIMARY KEY REFERENCES tokens (id),
    version  INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    drift    INTEGER NOT NULL,
    used_at  INTEGER NOT NULL
);

-- What publishing a batch does beside: users that are made, under ids that were
-- reserved, and owners that tokens get. Bindings hold the owner's id, so that they
-- are made before; nothing else sees them before.
CREATE TABLE newcomers (
    id      INTEGER PRIMARY KEY,
    batch   INTEGER NOT NULL REFERENCES batches (id),
    realm   TEXT NOT NULL,
    key     TEXT NOT NULL,
    name    TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX newcomers_batch ON newcomers (batch);
CREATE TABLE grants (
    token_id INTEGER PRIMARY KEY REFERENCES tokens (id),
    batch    INTEGER NOT NULL REFERENCES batches (id),
    owner_id INTEGER NOT NULL,
    binding  BLOB NOT NULL
);
CREATE INDEX grants_batch ON grants (batch);

-- +goose StatementBegin
CREATE TRIGGER batches_hand_out AFTER UPDATE OF state ON batches
WHEN OLD.state = 'staging' AND NEW.state = 'published'
BEGIN
    INSERT INTO users (id, realm, key, name, state, created)
    SELECT id, realm, key, name, 'enabled', created FROM newcomers WHERE batch = NEW.id ORDER BY id;
    INSERT INTO standings (user_id, version) SELECT id, 1 FROM newcomers WHERE batch = NEW.id;
    INSERT INTO motions (token_id, version, last, drift, used_at)
    SELECT t.id, 2, t.last0, t.drift0, 0 FROM grants g JOIN tokens t ON t.id = g.token_id WHERE g.batch = NEW.id;
    UPDATE tokens SET state = 'active',
        owner_id = (SELECT g.owner_id FROM grants g WHERE g.token_id = tokens.id),
        binding = (SELECT g.binding FROM grants g WHERE g.token_id = tokens.id)
     WHERE id IN (SELECT g.token_id FROM grants g WHERE g.batch = NEW.id);
    DELETE FROM grants WHERE batch = NEW.id;
    DELETE FROM newcomers WHERE batch = NEW.id;
END;
-- +goose StatementEnd

-- One audit chain for each server start, with its head.
CREATE TABLE chains (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    seq    INTEGER NOT NULL DEFAULT 0,
    hash   BLOB,
    minted INTEGER NOT NULL
);

-- A user's records are threaded: each holds the id of the one before it, zero
-- for the first, and the user's standing holds the newest. An index would make
-- every commit write as many pages again, all over it. Records of names that are
-- no user's (prev is NULL) are few, and have one.
CREATE TABLE audit (
    id       INTEGER PRIMARY KEY,
    prev     INTEGER,
    chain    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    time     INTEGER NOT NULL,
    action   TEXT NOT NULL,
    outcome  TEXT NOT NULL,
    realm    TEXT NOT NULL,
    user_key TEXT NOT NULL,
    serial   TEXT NOT NULL,
    actor    TEXT NOT NULL,
    client   TEXT NOT NULL,
    source   TEXT NOT NULL,
    reason   TEXT NOT NULL,
    detail   TEXT NOT NULL,
    hash     BLOB NOT NULL
);
CREATE UNIQUE INDEX audit_chain ON audit (chain, seq);
CREATE INDEX audit_other ON audit (user_key) WHERE prev IS NULL AND user_key <> '';

CREATE TABLE clients (
    name        TEXT PRIMARY KEY,
    prefix      TEXT NOT NULL UNIQUE,
    realm       TEXT NOT NULL,
    secret      BLOB,
    secret_size INTEGER NOT NULL,
    require_ma  INTEGER NOT NULL,
    name_rule   TEXT NOT NULL,
    created     INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE api_keys (
    id        TEXT PRIMARY KEY,
    name      TEXT NOT NULL,
    realm     TEXT NOT NULL,
    scope     TEXT NOT NULL,
    mac       BLOB NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    last_used INTEGER NOT NULL
) WITHOUT ROWID;

-- The HSM keys that belong to this database.
CREATE TABLE hsm_keys (
    name    TEXT NOT NULL,
    version INTEGER NOT NULL,
    id      BLOB NOT NULL,
    "check" BLOB NOT NULL,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
