-- Times are Unix microseconds in UTC, zero for "none". Names are compared as
-- bytes (collation C): they were folded before they came here.

-- +goose Up

-- What nodes cache (clients, API keys) belongs to a generation.
CREATE TABLE meta (
    one        integer PRIMARY KEY CHECK (one = 1),
    generation bigint NOT NULL
);
INSERT INTO meta (one, generation) VALUES (1, 1);

CREATE TABLE users (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    realm    text COLLATE "C" NOT NULL,
    key      text COLLATE "C" NOT NULL,
    name     text COLLATE "C" NOT NULL,
    state    text COLLATE "C" NOT NULL,
    pin_salt bytea,
    pin_mac  bytea,
    created  bigint NOT NULL,
    UNIQUE (realm, key)
);

-- What each attempt may move of a user, apart from what is searched: no other
-- index and room in each page, so that updates stay in it (HOT).
CREATE TABLE standings (
    user_id  bigint PRIMARY KEY REFERENCES users (id),
    version  bigint NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    locked   boolean NOT NULL DEFAULT false,
    throttle text COLLATE "C" NOT NULL DEFAULT ''
) WITH (fillfactor = 70);

CREATE TABLE batches (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state     text COLLATE "C" NOT NULL CHECK (state IN ('staging', 'discarding', 'published')),
    realm     text COLLATE "C" NOT NULL,
    name      text COLLATE "C" NOT NULL,
    format    text COLLATE "C" NOT NULL,
    sha256    text COLLATE "C" NOT NULL,
    actor     text COLLATE "C" NOT NULL,
    created   bigint NOT NULL,
    published bigint NOT NULL DEFAULT 0,
    touched   bigint NOT NULL,
    tokens    bigint NOT NULL DEFAULT 0,
    rejected  bigint NOT NULL DEFAULT 0,
    duplicate bigint NOT NULL DEFAULT 0,
    undone    bigint NOT NULL DEFAULT 0,
    removed   bigint NOT NULL DEFAULT 0
);

-- last0 and drift0 are what the token came with; see motions.
CREATE TABLE tokens (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch     bigint NOT NULL REFERENCES batches (id),
    created   bigint NOT NULL,
    last0     bigint NOT NULL,
    owner_id  bigint REFERENCES users (id),
    kek       bigint NOT NULL,
    algorithm integer NOT NULL,
    digits    integer NOT NULL,
    period    integer NOT NULL,
    hash      integer NOT NULL,
    seed_len  integer NOT NULL,
    drift0    integer NOT NULL,
    realm     text COLLATE "C" NOT NULL,
    serial    text COLLATE "C" NOT NULL,
    type      text COLLATE "C" NOT NULL,
    state     text COLLATE "C" NOT NULL,
    model     text COLLATE "C" NOT NULL,
    hint      text COLLATE "C" NOT NULL DEFAULT '',
    mechanism text COLLATE "C" NOT NULL,
    blob      bytea,
    binding   bytea,
    public_id   text COLLATE "C",
    private_mac bytea,
    UNIQUE (realm, serial)
);
CREATE INDEX tokens_owner ON tokens (owner_id) WHERE owner_id IS NOT NULL;
CREATE INDEX tokens_batch ON tokens (batch, id);

-- What an accept moves of a token. A row appears when a token first changes in
-- any way, and then stays: last never goes back, by unassigning neither.
CREATE TABLE motions (
    token_id bigint PRIMARY KEY REFERENCES tokens (id),
    version  bigint NOT NULL,
    last     bigint NOT NULL,
    used_at  bigint NOT NULL,
    drift    integer NOT NULL
) WITH (fillfactor = 70);

-- What publishing a batch does beside: users that are made, under ids that were
-- reserved, and owners that tokens get. Bindings hold the owner's id, so that they
-- are made before; nothing else sees them before.
CREATE TABLE newcomers (
    id      bigint PRIMARY KEY,
    batch   bigint NOT NULL REFERENCES batches (id),
    created bigint NOT NULL,
    realm   text COLLATE "C" NOT NULL,
    key     text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL
);
CREATE INDEX newcomers_batch ON newcomers (batch);
CREATE TABLE grants (
    token_id bigint PRIMARY KEY REFERENCES tokens (id),
    batch    bigint NOT NULL REFERENCES batches (id),
    owner_id bigint NOT NULL,
    binding  bytea NOT NULL
);
CREATE INDEX grants_batch ON grants (batch);

-- +goose StatementBegin
CREATE FUNCTION watchword_hand_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO users (id, realm, key, name, state, created) OVERRIDING SYSTEM VALUE
    SELECT id, realm, key, name, 'enabled', created FROM newcomers WHERE batch = NEW.id ORDER BY id;
    INSERT INTO standings (user_id, version) SELECT id, 1 FROM newcomers WHERE batch = NEW.id;
    INSERT INTO motions (token_id, version, last, drift, used_at)
    SELECT t.id, 2, t.last0, t.drift0, 0 FROM grants g JOIN tokens t ON t.id = g.token_id WHERE g.batch = NEW.id;
    UPDATE tokens t SET state = 'active', owner_id = g.owner_id, binding = g.binding
      FROM grants g WHERE g.batch = NEW.id AND t.id = g.token_id;
    DELETE FROM grants WHERE batch = NEW.id;
    DELETE FROM newcomers WHERE batch = NEW.id;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER batches_hand_out AFTER UPDATE OF state ON batches
    FOR EACH ROW WHEN (OLD.state = 'staging' AND NEW.state = 'published') EXECUTE FUNCTION watchword_hand_out();

-- One audit chain for each server start, with its head.
CREATE TABLE chains (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq    bigint NOT NULL DEFAULT 0,
    minted bigint NOT NULL,
    hash   bytea
) WITH (fillfactor = 20);

CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    chain    bigint NOT NULL,
    seq      bigint NOT NULL,
    time     bigint NOT NULL,
    action   text COLLATE "C" NOT NULL,
    outcome  text COLLATE "C" NOT NULL,
    realm    text COLLATE "C" NOT NULL,
    user_key text COLLATE "C" NOT NULL,
    serial   text COLLATE "C" NOT NULL,
    actor    text COLLATE "C" NOT NULL,
    client   text COLLATE "C" NOT NULL,
    source   text COLLATE "C" NOT NULL,
    reason   text COLLATE "C" NOT NULL,
    detail   text COLLATE "C" NOT NULL,
    hash     bytea NOT NULL
);
CREATE UNIQUE INDEX audit_chain ON audit (chain, seq);
CREATE INDEX audit_user ON audit (user_key, realm, id) WHERE user_key <> '';

CREATE TABLE clients (
    name        text COLLATE "C" PRIMARY KEY,
    prefix      text COLLATE "C" NOT NULL UNIQUE,
    realm       text COLLATE "C" NOT NULL,
    secret      bytea,
    secret_size integer NOT NULL,
    require_ma  boolean NOT NULL,
    name_rule   text COLLATE "C" NOT NULL,
    created     bigint NOT NULL
);

CREATE TABLE api_keys (
    id        text COLLATE "C" PRIMARY KEY,
    name      text COLLATE "C" NOT NULL,
    realm     text COLLATE "C" NOT NULL,
    scope     text COLLATE "C" NOT NULL,
    mac       bytea NOT NULL,
    created   bigint NOT NULL,
    expires   bigint NOT NULL,
    last_used bigint NOT NULL
);

-- The HSM keys that belong to this database.
CREATE TABLE hsm_keys (
    name    text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    id      bytea NOT NULL,
    "check" bytea NOT NULL,
    PRIMARY KEY (name, version)
);

-- A batch of attempts in one round trip: the heads of the audit chains, the
-- users' standings and the tokens' motions, each only if it is as expected, and
-- the audit records; all or nothing. Ids come in ascending order, so that two
-- nodes lock rows in the same order. The chain is looked at first: a commit
-- that had been made although its answer was lost must say so, rather than
-- that the versions (which it moved itself) have moved.
--
-- It raises WW001 when a version has moved or a motion would go back, with
-- "users{...} tokens{...}" as detail, and WW002 when a chain has another head.
-- +goose StatementBegin
CREATE FUNCTION watchword_commit(
    c_chain bigint[], c_first bigint[], c_last bigint[], c_hash bytea[],
    u_id bigint[], u_expect bigint[], u_failures integer[], u_locked boolean[], u_throttle text[],
    m_id bigint[], m_last bigint[], m_drift integer[], m_used bigint[],
    a_chain bigint[], a_seq bigint[], a_time bigint[], a_action text[], a_outcome text[], a_realm text[],
    a_user text[], a_serial text[], a_actor text[], a_client text[], a_source text[], a_reason text[],
    a_detail text[], a_hash bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    n            bigint;
    moved_users  bigint[];
    moved_tokens bigint[];
BEGIN
    UPDATE chains c SET seq = h.last, hash = h.hash
      FROM unnest(c_chain, c_first, c_last, c_hash) AS h(chain, first, last, hash)
     WHERE c.id = h.chain AND c.seq = h.first - 1;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n <> cardinality(c_chain) THEN
        RAISE EXCEPTION 'an audit chain has another head' USING ERRCODE = 'WW002';
    END IF;

    IF cardinality(u_id) > 0 THEN
        WITH done AS (
            UPDATE standings s
               SET version = w.expect + 1, failures = w.failures, locked = w.locked, throttle = w.throttle
              FROM unnest(u_id, u_expect, u_failures, u_locked, u_throttle)
                   AS w(id, expect, failures, locked, throttle)
             WHERE s.user_id = w.id AND s.version = w.expect
            RETURNING s.user_id
        )
        SELECT array_agg(w.id) INTO moved_users FROM unnest(u_id) AS w(id) WHERE w.id NOT IN (SELECT user_id FROM done);
    END IF;

    IF cardinality(m_id) > 0 AND moved_users IS NULL THEN
        WITH done AS (
            UPDATE motions m
               SET last = w.last, drift = w.drift, used_at = w.used
              FROM unnest(m_id, m_last, m_drift, m_used) AS w(id, last, drift, used)
             WHERE m.token_id = w.id AND m.last <= w.last
            RETURNING m.token_id
        )
        SELECT array_agg(w.id) INTO moved_tokens FROM unnest(m_id) AS w(id) WHERE w.id NOT IN (SELECT token_id FROM done);
    END IF;

    IF moved_users IS NOT NULL OR moved_tokens IS NOT NULL THEN
        RAISE EXCEPTION 'a version has moved' USING ERRCODE = 'WW001',
            DETAIL = format('users%s tokens%s', coalesce(moved_users, '{}'), coalesce(moved_tokens, '{}'));
    END IF;

    INSERT INTO audit (chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source, reason,
                       detail, hash)
    SELECT a.chain, a.seq, a.time, a.action, a.outcome, a.realm, a.user_key, a.serial, a.actor, a.client, a.source,
           a.reason, a.detail, a.hash
      FROM unnest(a_chain, a_seq, a_time, a_action, a_outcome, a_realm, a_user, a_serial, a_actor, a_client, a_source,
                  a_reason, a_detail, a_hash)
           WITH ORDINALITY AS a(chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source,
                                reason, detail, hash, n)
     ORDER BY a.n;
END
$$;
-- +goose StatementEnd
