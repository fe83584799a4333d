#!/usr/bin/env bash
# test.sh [go test flags]: every test with the race detector. Tests start what
# they need (SoftHSM, PostgreSQL, FreeRADIUS's tools) in temporary folders and
# stop it themselves.
set -euo pipefail
export GOFLAGS="-tags=sqlite_fts5 ${GOFLAGS:-}"
go build ./...
go test -race -timeout 20m "$@" ./...
