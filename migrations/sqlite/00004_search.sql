-- What lists and searches follow. Parts of serials and names are found by their
-- trigrams: three characters in a row.

-- +goose Up

CREATE INDEX tokens_state ON tokens (state, type);

-- Both hold no text of their own. detail=none keeps which row has a trigram, not
-- where: what is found is a candidate, and is compared.
CREATE VIRTUAL TABLE user_search USING fts5 (
    key, content='', contentless_delete=1, detail=none, tokenize='trigram'
);
CREATE VIRTUAL TABLE token_search USING fts5 (
    serial, content='', contentless_delete=1, detail=none, tokenize='trigram'
);
INSERT INTO user_search (rowid, key) SELECT id, key FROM users;
-- +goose StatementBegin
CREATE TRIGGER users_search AFTER INSERT ON users
BEGIN
    INSERT INTO user_search (rowid, key) VALUES (NEW.id, NEW.key);
END;
-- +goose StatementEnd

-- Trigrams cost more than all else of staging a token, so they are made when an
-- import is published, some tokens at a time: searched is the last one of the
-- import that has them. What was enrolled has them at once.
ALTER TABLE batches ADD COLUMN searched INTEGER NOT NULL DEFAULT 0;
CREATE TABLE unsearched (
    batch INTEGER PRIMARY KEY REFERENCES batches (id) ON DELETE CASCADE
);
INSERT INTO unsearched (batch) SELECT id FROM batches WHERE state = 'published' AND id > 0;
INSERT INTO token_search (rowid, serial) SELECT id, serial FROM tokens WHERE batch = 0;
-- +goose StatementBegin
CREATE TRIGGER batches_search AFTER UPDATE OF state ON batches
WHEN OLD.state = 'staging' AND NEW.state = 'published'
BEGIN
    INSERT INTO unsearched (batch) VALUES (NEW.id);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tokens_search AFTER INSERT ON tokens WHEN NEW.batch = 0
BEGIN
    INSERT INTO token_search (rowid, serial) VALUES (NEW.id, NEW.serial);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER tokens_unsearch AFTER DELETE ON tokens
WHEN (SELECT state FROM batches WHERE id = OLD.batch) = 'published'
BEGIN
    DELETE FROM token_search WHERE rowid = OLD.id;
END;
-- +goose StatementEnd

-- The credential report goes through a realm's users in order of id, and an
-- external id is looked for in all realms, too.
CREATE INDEX users_realm ON users (realm);
CREATE INDEX users_outside ON users (external) WHERE external <> '';

-- Acts are few beside verifications, which no index but the threads is to burden.
CREATE INDEX audit_serial ON audit (serial) WHERE action <> 'verify' AND serial <> '';
CREATE INDEX audit_action ON audit (action) WHERE action <> 'verify';
