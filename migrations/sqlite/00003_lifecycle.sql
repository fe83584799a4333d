-- The daily life of users and tokens. Times are Unix microseconds in UTC, zero for
-- "none".

-- +goose Up

-- Who the user is, for people: nothing is decided by it. attributes is a JSON
-- object of texts, or empty. pin_due: the PIN must be changed before it is good.
ALTER TABLE users ADD COLUMN display TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN mail TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN external TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN attributes TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN pin_due INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX users_external ON users (realm, external) WHERE external <> '';
CREATE INDEX memberships_group ON memberships (group_name, user_id);

-- assigned is when the owner got the token. passcodes and uses are those of a
-- recovery sheet or a temporary passcode: the MACs of its codes, one after another,
-- and how often it is good in all.
ALTER TABLE tokens ADD COLUMN assigned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tokens ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE tokens ADD COLUMN passcodes BLOB;
ALTER TABLE tokens ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;

-- Each temporary passcode leaves a revoked token behind; a user's attempts do not
-- read them.
CREATE INDEX tokens_held ON tokens (owner_id) WHERE owner_id IS NOT NULL AND state <> 'revoked';

CREATE TABLE token_tags (
    token_id INTEGER NOT NULL REFERENCES tokens (id),
    tag      TEXT NOT NULL,
    PRIMARY KEY (token_id, tag)
) WITHOUT ROWID;
CREATE INDEX token_tags_tag ON token_tags (tag, token_id);

-- What publishing does beside now says when the owners got their tokens, and whether
-- those are active or wait for two codes.
ALTER TABLE grants ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
DROP TRIGGER batches_hand_out;
-- +goose StatementBegin
CREATE TRIGGER batches_hand_out AFTER UPDATE OF state ON batches
WHEN OLD.state = 'staging' AND NEW.state = 'published'
BEGIN
    INSERT INTO users (id, realm, key, name, state, created)
    SELECT id, realm, key, name, 'enabled', created FROM newcomers WHERE batch = NEW.id ORDER BY id;
    INSERT INTO standings (user_id, version) SELECT id, 1 FROM newcomers WHERE batch = NEW.id;
    INSERT INTO motions (token_id, version, last, drift, used_at)
    SELECT t.id, 2, t.last0, t.drift0, 0 FROM grants g JOIN tokens t ON t.id = g.token_id WHERE g.batch = NEW.id;
    UPDATE tokens SET assigned = NEW.published,
        state = (SELECT g.state FROM grants g WHERE g.token_id = tokens.id),
        owner_id = (SELECT g.owner_id FROM grants g WHERE g.token_id = tokens.id),
        binding = (SELECT g.binding FROM grants g WHERE g.token_id = tokens.id)
     WHERE id IN (SELECT g.token_id FROM grants g WHERE g.batch = NEW.id);
    DELETE FROM grants WHERE batch = NEW.id;
    DELETE FROM newcomers WHERE batch = NEW.id;
END;
-- +goose StatementEnd
