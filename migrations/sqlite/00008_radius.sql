-- What RADIUS clients may do beyond PAP, in JSON; empty: nothing. Nodes of the version
-- before ignore the clients that have any.

-- +goose Up

ALTER TABLE clients ADD COLUMN options TEXT NOT NULL DEFAULT '';
