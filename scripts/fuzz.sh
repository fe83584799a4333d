#!/usr/bin/env bash
# fuzz.sh TIME: runs each fuzz target of the tree for TIME, one after another.
set -euo pipefail
export GOFLAGS="-tags=sqlite_fts5 ${GOFLAGS:-}"
time=${1:-60s}
for dir in $(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do
  for target in $(git grep -h '^func Fuzz' -- ":(glob)$dir/*_test.go" | sed 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/' | sort -u); do
    echo "== ./$dir $target"
    # Minimising large inputs for a minute each would be most of the time.
    go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 2s
  done
done
