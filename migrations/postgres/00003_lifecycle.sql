-- The daily life of users and tokens. Times are Unix microseconds in UTC, zero for
-- "none".
--
-- Nodes of the version before go on while this is done, and after it: nothing
-- that they use changes.

-- +goose Up

-- Who the user is, for people: nothing is decided by it. attributes is a JSON
-- object of texts, or empty. pin_due: the PIN must be changed before it is good.
ALTER TABLE users
    ADD COLUMN display    text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN mail       text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN external   text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN attributes text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN pin_due    boolean NOT NULL DEFAULT false;
CREATE UNIQUE INDEX users_external ON users (realm, external) WHERE external <> '';
CREATE INDEX memberships_group ON memberships (group_name, user_id);

-- assigned is when the owner got the token. passcodes and uses are those of a
-- recovery sheet or a temporary passcode: the MACs of its codes, one after another,
-- and how often it is good in all.
ALTER TABLE tokens
    ADD COLUMN assigned  bigint NOT NULL DEFAULT 0,
    ADD COLUMN expires   bigint NOT NULL DEFAULT 0,
    ADD COLUMN uses      integer NOT NULL DEFAULT 0,
    ADD COLUMN note      text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN passcodes bytea;

-- Each temporary passcode leaves a revoked token behind; a user's attempts do not
-- read them.
CREATE INDEX tokens_held ON tokens (owner_id) WHERE owner_id IS NOT NULL AND state <> 'revoked';

CREATE TABLE token_tags (
    token_id bigint NOT NULL REFERENCES tokens (id),
    tag      text COLLATE "C" NOT NULL,
    PRIMARY KEY (token_id, tag)
);
CREATE INDEX token_tags_tag ON token_tags (tag, token_id);

-- What publishing does beside now says when the owners got their tokens, and whether
-- those are active or wait for two codes.
ALTER TABLE grants ADD COLUMN state text COLLATE "C" NOT NULL DEFAULT 'active';
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION watchword_hand_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO users (id, realm, key, name, state, created) OVERRIDING SYSTEM VALUE
    SELECT id, realm, key, name, 'enabled', created FROM newcomers WHERE batch = NEW.id ORDER BY id;
    INSERT INTO standings (user_id, version) SELECT id, 1 FROM newcomers WHERE batch = NEW.id;
    INSERT INTO motions (token_id, version, last, drift, used_at)
    SELECT t.id, 2, t.last0, t.drift0, 0 FROM grants g JOIN tokens t ON t.id = g.token_id WHERE g.batch = NEW.id;
    UPDATE tokens t SET state = g.state, assigned = NEW.published, owner_id = g.owner_id, binding = g.binding
      FROM grants g WHERE g.batch = NEW.id AND t.id = g.token_id;
    DELETE FROM grants WHERE batch = NEW.id;
    DELETE FROM newcomers WHERE batch = NEW.id;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
