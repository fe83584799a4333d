-- Tokens that were enrolled rather than imported, FIDO tokens among them, and
-- what goes with enrolling. Times are Unix microseconds in UTC, zero for "none".

-- +goose Up

-- credential is a FIDO token's, as encoded, and credential_key what it is looked
-- for by. They never change.
ALTER TABLE tokens ADD COLUMN credential BLOB;
ALTER TABLE tokens ADD COLUMN credential_key BLOB;
CREATE UNIQUE INDEX tokens_credential ON tokens (credential_key) WHERE credential_key IS NOT NULL;

-- Every token belongs to a batch that is published. This one is no import: it
-- holds the tokens that were enrolled, and is never listed, counted or undone.
INSERT INTO batches (id, state, realm, name, format, sha256, actor, created, published, touched)
VALUES (0, 'published', '', '', 'enrolled', '', '', 0, 0, 0);

-- What can be used once, such as the challenges that were answered, until it is of
-- no use anyway.
CREATE TABLE spent (
    hash    BLOB PRIMARY KEY,
    expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX spent_expires ON spent (expires);

-- Settings and files that all nodes share. What nodes cache of them belongs to
-- meta's generation.
CREATE TABLE documents (
    name    TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    data    BLOB NOT NULL
);

-- The groups that a user belongs to.
CREATE TABLE memberships (
    user_id    INTEGER NOT NULL REFERENCES users (id),
    group_name TEXT NOT NULL,
    PRIMARY KEY (user_id, group_name)
) WITHOUT ROWID;

-- kinds are divided by commas.
CREATE TABLE invitations (
    id       TEXT PRIMARY KEY,
    realm    TEXT NOT NULL,
    user_id  INTEGER NOT NULL REFERENCES users (id),
    user_key TEXT NOT NULL,
    kinds    TEXT NOT NULL,
    mac      BLOB NOT NULL,
    actor    TEXT NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    used     INTEGER NOT NULL DEFAULT 0,
    serial   TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX invitations_user ON invitations (realm, user_key);
CREATE INDEX invitations_expires ON invitations (expires);
