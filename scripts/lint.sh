#!/usr/bin/env bash
# lint.sh STATICCHECK: fails on what gofmt would change, what go vet and
# staticcheck find, and a go.mod that is not tidy.
set -euo pipefail
export GOFLAGS="-tags=sqlite_fts5 ${GOFLAGS:-}"
unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
  echo "gofmt would change:"; echo "$unformatted"; exit 1
fi
go vet ./...
go run "$1" ./...
go mod tidy -diff
for f in $(git ls-files '*.sh' .ci/run); do bash -n "$f"; done
echo "lint: nothing found"
