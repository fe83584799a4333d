-- Parts of serials and names are found by what LIKE finds them by, and no more: the
-- trigrams of 00004 are those of words, so that a part which crosses the end of one
-- (97., say) led to every row with a word that ends so, and letters that the
-- database's locale does not know had none.
--
-- Nodes of the version before go on while this is done, but for what writes to
-- users and tokens, which waits for each index. Their searches look at every row
-- from then on: they are right, and slow.

-- +goose Up

-- watchword_parts is a text with nothing in it but letters and digits of ASCII,
-- of which part of a text is part of the same. Other characters of ASCII are z; each
-- byte of one that is none is z and its three octal digits.
-- +goose StatementBegin
CREATE FUNCTION watchword_parts(whole text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT translate(encode(decode(translate($1,
        ' !"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', 'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz'), 'escape'), 'escape'), '\', 'z')
$$;
-- +goose StatementEnd

-- What is imported waits in a list, which each search goes through: a short one.
DROP INDEX users_search;
CREATE INDEX users_search ON users USING gin (watchword_parts(key) gin_trgm_ops) WITH (gin_pending_list_limit = 512);
DROP INDEX tokens_search;
CREATE INDEX tokens_search ON tokens USING gin (watchword_parts(lower(serial)) gin_trgm_ops) WITH (gin_pending_list_limit = 512);

-- Before a part is looked for PostgreSQL is asked how many rows have it, which it guesses
-- from so many rows.
ALTER INDEX users_search ALTER COLUMN 1 SET STATISTICS 300;
ALTER INDEX tokens_search ALTER COLUMN 1 SET STATISTICS 300;

-- A page of users that goes through those with many hits is read from the index alone.
CREATE INDEX users_listed ON users (realm, key) INCLUDE (id);

-- Of a table in which there is nothing PostgreSQL would learn that any index leads to
-- its rows as quickly as any other, and go by that until it looks again.
-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT FROM users) THEN
        ANALYZE users;
    END IF;
    IF EXISTS (SELECT FROM tokens) THEN
        ANALYZE tokens;
    END IF;
END
$$;
-- +goose StatementEnd
