-- Tokens that were enrolled rather than imported, FIDO tokens among them, and
-- what goes with enrolling. Times are Unix microseconds in UTC, zero for "none".
--
-- Nodes of the version before go on while this is done, and after it: nothing
-- that they use changes.

-- +goose Up

-- credential is a FIDO token's, as encoded, and credential_key what it is looked
-- for by. They never change.
ALTER TABLE tokens ADD COLUMN credential bytea, ADD COLUMN credential_key bytea;
CREATE UNIQUE INDEX tokens_credential ON tokens (credential_key) WHERE credential_key IS NOT NULL;

-- Every token belongs to a batch that is published. This one is no import: it
-- holds the tokens that were enrolled, and is never listed, counted or undone.
INSERT INTO batches (id, state, realm, name, format, sha256, actor, created, published, touched)
OVERRIDING SYSTEM VALUE VALUES (0, 'published', '', '', 'enrolled', '', '', 0, 0, 0);

-- What can be used once, such as the challenges that were answered, until it is of
-- no use anyway.
CREATE TABLE spent (
    hash    bytea PRIMARY KEY,
    expires bigint NOT NULL
);
CREATE INDEX spent_expires ON spent (expires);

-- Settings and files that all nodes share. What nodes cache of them belongs to
-- meta's generation.
CREATE TABLE documents (
    name    text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    updated bigint NOT NULL,
    data    bytea NOT NULL
);

-- The groups that a user belongs to.
CREATE TABLE memberships (
    user_id    bigint NOT NULL REFERENCES users (id),
    group_name text COLLATE "C" NOT NULL,
    PRIMARY KEY (user_id, group_name)
);

-- kinds are divided by commas.
CREATE TABLE invitations (
    id       text COLLATE "C" PRIMARY KEY,
    realm    text COLLATE "C" NOT NULL,
    user_id  bigint NOT NULL REFERENCES users (id),
    user_key text COLLATE "C" NOT NULL,
    kinds    text COLLATE "C" NOT NULL,
    mac      bytea NOT NULL,
    actor    text COLLATE "C" NOT NULL,
    created  bigint NOT NULL,
    expires  bigint NOT NULL,
    used     bigint NOT NULL DEFAULT 0,
    serial   text COLLATE "C" NOT NULL DEFAULT ''
);
CREATE INDEX invitations_user ON invitations (realm, user_key);
CREATE INDEX invitations_expires ON invitations (expires);

-- A batch of attempts as watchword_commit makes it, in which something is spent
-- besides; all or nothing. Hashes come in ascending order, so that two nodes lock
-- them in the same order: whoever comes second waits until it is known whether
-- the first has spent them.
--
-- It raises what watchword_commit raises, and WW003 when something was spent
-- before, with its hashes in hexadecimal, divided by commas, as detail.
-- +goose StatementBegin
CREATE FUNCTION watchword_commit_spending(
    s_hash bytea[], s_expires bigint[],
    c_chain bigint[], c_first bigint[], c_last bigint[], c_hash bytea[],
    u_id bigint[], u_expect bigint[], u_failures integer[], u_locked boolean[], u_throttle text[],
    m_id bigint[], m_last bigint[], m_drift integer[], m_used bigint[],
    a_chain bigint[], a_seq bigint[], a_time bigint[], a_action text[], a_outcome text[], a_realm text[],
    a_user text[], a_serial text[], a_actor text[], a_client text[], a_source text[], a_reason text[],
    a_detail text[], a_hash bytea[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    used text;
BEGIN
    PERFORM watchword_commit(
        c_chain, c_first, c_last, c_hash, u_id, u_expect, u_failures, u_locked, u_throttle,
        m_id, m_last, m_drift, m_used,
        a_chain, a_seq, a_time, a_action, a_outcome, a_realm, a_user, a_serial, a_actor, a_client, a_source,
        a_reason, a_detail, a_hash);

    WITH done AS (
        INSERT INTO spent (hash, expires)
        SELECT w.hash, w.expires FROM unnest(s_hash, s_expires) AS w(hash, expires) ORDER BY w.hash
        ON CONFLICT (hash) DO NOTHING
        RETURNING hash
    )
    SELECT string_agg(encode(w.hash, 'hex'), ',' ORDER BY w.hash) INTO used
      FROM unnest(s_hash) AS w(hash) WHERE w.hash NOT IN (SELECT hash FROM done);
    IF used IS NOT NULL THEN
        RAISE EXCEPTION 'something was spent before' USING ERRCODE = 'WW003', DETAIL = used;
    END IF;
END
$$;
-- +goose StatementEnd
