-- What lists and searches follow. Parts of serials and names are found by their
-- trigrams: three characters in a row.
--
-- Nodes of the version before go on while this is done, but for what writes to
-- users and tokens, which waits for each index; nothing that they use changes.

-- +goose Up

CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE INDEX users_search ON users USING gin (key gin_trgm_ops);
CREATE INDEX tokens_search ON tokens USING gin (lower(serial) gin_trgm_ops);

CREATE INDEX tokens_state ON tokens (state, type, id);

-- The credential report goes through a realm's users in order of id, and an
-- external id is looked for in all realms, too.
CREATE INDEX users_realm ON users (realm, id);
CREATE INDEX users_outside ON users (external) WHERE external <> '';

-- Acts are few beside verifications, which no index but that of users is to burden.
CREATE INDEX audit_serial ON audit (serial, id) WHERE action <> 'verify' AND serial <> '';
CREATE INDEX audit_action ON audit (action, id) WHERE action <> 'verify';
