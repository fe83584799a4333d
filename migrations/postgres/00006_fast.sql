-- Attempts that are decided on what a node remembers of users, so that a batch costs
-- one round trip: what it was decided on is looked at when it is committed.
--
-- Nodes of the version before go on while this is done, and after it: nothing
-- that they use changes.

-- +goose Up

-- Whoever edits users or tokens by hand has all nodes read anew what they remember:
-- it raises meta's generation. Watchword itself, which says that it is a node on
-- each of its connections, moves the users' versions instead.
-- +goose StatementBegin
CREATE FUNCTION watchword_edited() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE meta SET generation = generation + 1;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER users_edited AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON users
    FOR EACH STATEMENT WHEN (current_setting('watchword.node', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION watchword_edited();
CREATE TRIGGER tokens_edited AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON tokens
    FOR EACH STATEMENT WHEN (current_setting('watchword.node', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION watchword_edited();

-- A batch of attempts, all or nothing: one call, and so one round trip and one
-- transaction. With early, it is made when the call returns, so that the next batch
-- can follow, and durable when a transaction that comes after it on the same connection
-- is: nobody is told before.
--
-- r_* is what it was decided on besides what it writes, unless r_recalled is false:
-- meta's generation, between which times the clock must stand, the versions of
-- users, and names that are no user's. c_* are the audit chains with the number of
-- the first and last record and the hash of the last one; u_* the users' standings,
-- m_* the owned tokens' motions, a_* the audit records, s_* what is spent. Users,
-- tokens and hashes come in ascending order, so that two nodes lock rows in the same
-- order. Of an array that would hold the same value over and over only the first is
-- there. a_seq is empty where all records are of one chain.
--
-- It raises WW002 when a chain has another head; WW004 when it was decided on
-- something else than what is so now, or in another time; WW001 when a user's version
-- has moved or a token would go back, with detail "users{...} tokens{...}"; WW003 when
-- something was spent before, with its hashes in hexadecimal, divided by commas.
-- +goose StatementBegin
CREATE FUNCTION watchword_batch(
    early boolean,
    r_recalled boolean, r_generation bigint, r_from timestamptz, r_until timestamptz,
    r_user bigint[], r_version bigint[], r_realm text[], r_key text[],
    c_chain bigint[], c_first bigint[], c_last bigint[], c_hash bytea[],
    u_id bigint[], u_expect bigint[], u_failures bigint[], u_locked boolean[], u_throttle text[],
    m_id bigint[], m_last bigint[], m_drift bigint[], m_used bigint[],
    a_chain bigint[], a_seq bigint[], a_time bigint[], a_action text[], a_outcome text[], a_realm text[],
    a_user text[], a_serial text[], a_actor text[], a_client text[], a_source text[], a_reason text[],
    a_detail text[], a_hash bytea[],
    s_hash bytea[], s_expires bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    n            bigint;
    moved_users  bigint[];
    moved_tokens bigint[];
    used         text;
BEGIN
    IF early THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    IF cardinality(c_chain) > 0 THEN
        UPDATE chains c SET seq = h.last, hash = h.hash
          FROM unnest(c_chain, c_first, c_last, c_hash) AS h(chain, first, last, hash)
         WHERE c.id = h.chain AND c.seq = h.first - 1;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> cardinality(c_chain) THEN
            RAISE EXCEPTION 'an audit chain has another head' USING ERRCODE = 'WW002';
        END IF;
    END IF;

    IF r_recalled THEN
        PERFORM FROM meta WHERE generation = r_generation AND clock_timestamp() BETWEEN r_from AND r_until;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'decided on what is not so any more' USING ERRCODE = 'WW004';
        END IF;
        IF cardinality(r_key) > 0 THEN
            PERFORM FROM unnest(r_realm, r_key) AS w(realm, key) JOIN users u ON u.realm = w.realm AND u.key = w.key;
            IF FOUND THEN
                RAISE EXCEPTION 'who was nobody is a user' USING ERRCODE = 'WW004';
            END IF;
        END IF;
        IF cardinality(r_user) > 0 THEN
            SELECT array_agg(w.id) INTO moved_users
              FROM unnest(r_user, r_version) AS w(id, version) LEFT JOIN standings s ON s.user_id = w.id
             WHERE s.version IS DISTINCT FROM w.version;
        END IF;
    END IF;

    IF cardinality(u_id) > 0 THEN
        UPDATE standings s
           SET version = w.expect + 1, failures = coalesce(w.failures, u_failures[1]),
               locked = coalesce(w.locked, u_locked[1]), throttle = coalesce(w.throttle, u_throttle[1])
          FROM unnest(u_id, u_expect, u_failures, u_locked, u_throttle) AS w(id, expect, failures, locked, throttle)
         WHERE s.user_id = w.id AND s.version = w.expect;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> cardinality(u_id) THEN
            -- Those that were moved just now have the version that follows.
            SELECT coalesce(moved_users, '{}') || array_agg(w.id) INTO moved_users
              FROM unnest(u_id, u_expect) AS w(id, expect) LEFT JOIN standings s ON s.user_id = w.id
             WHERE s.version IS DISTINCT FROM w.expect + 1 OR s.xmin <> pg_current_xact_id()::xid;
        END IF;
    END IF;

    IF cardinality(m_id) > 0 AND moved_users IS NULL THEN
        UPDATE motions m
           SET last = w.last, drift = coalesce(w.drift, m_drift[1]), used_at = coalesce(w.used, m_used[1])
          FROM unnest(m_id, m_last, m_drift, m_used) AS w(id, last, drift, used)
         WHERE m.token_id = w.id AND m.last <= w.last;
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n <> cardinality(m_id) THEN
            SELECT array_agg(w.id) INTO moved_tokens
              FROM unnest(m_id, m_last) AS w(id, last) LEFT JOIN motions m ON m.token_id = w.id
             WHERE m.last IS DISTINCT FROM w.last;
        END IF;
    END IF;

    IF moved_users IS NOT NULL OR moved_tokens IS NOT NULL THEN
        RAISE EXCEPTION 'a version has moved' USING ERRCODE = 'WW001',
            DETAIL = format('users%s tokens%s', coalesce(moved_users, '{}'), coalesce(moved_tokens, '{}'));
    END IF;

    IF cardinality(a_hash) > 0 THEN
        INSERT INTO audit (chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source, reason,
                           detail, hash)
        SELECT coalesce(a.chain, a_chain[1]), coalesce(a.seq, c_first[1] + a.n - 1), coalesce(a.time, a_time[1]),
               coalesce(a.action, a_action[1]), coalesce(a.outcome, a_outcome[1]), coalesce(a.realm, a_realm[1]),
               coalesce(a.user_key, a_user[1]), coalesce(a.serial, a_serial[1]), coalesce(a.actor, a_actor[1]),
               coalesce(a.client, a_client[1]), coalesce(a.source, a_source[1]), coalesce(a.reason, a_reason[1]),
               coalesce(a.detail, a_detail[1]), a.hash
          FROM unnest(a_chain, a_seq, a_time, a_action, a_outcome, a_realm, a_user, a_serial, a_actor, a_client, a_source,
                      a_reason, a_detail, a_hash)
               WITH ORDINALITY AS a(chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source,
                                    reason, detail, hash, n)
         ORDER BY a.n;
    END IF;

    IF cardinality(s_hash) > 0 THEN
        WITH done AS (
            INSERT INTO spent (hash, expires)
            SELECT w.hash, coalesce(w.expires, s_expires[1]) FROM unnest(s_hash, s_expires) AS w(hash, expires) ORDER BY w.hash
            ON CONFLICT (hash) DO NOTHING
            RETURNING hash
        )
        SELECT string_agg(encode(w.hash, 'hex'), ',' ORDER BY w.hash) INTO used
          FROM unnest(s_hash) AS w(hash) WHERE w.hash NOT IN (SELECT hash FROM done);
        IF used IS NOT NULL THEN
            RAISE EXCEPTION 'something was spent before' USING ERRCODE = 'WW003', DETAIL = used;
        END IF;
    END IF;
END
$$;
-- +goose StatementEnd
