-- Nothing: what a batch of attempts was decided on is looked at without the schema's
-- help here. PostgreSQL has a function for it.

-- +goose Up

SELECT 1;
