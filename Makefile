# Watchword. `make run` needs Debian 12 or 13 with git, make and Go 1.26, and
# root or sudo for packages; everything else it installs itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

GO      ?= go
FUZZTIME ?= 60s
# SQLite with full-text search, by which users and tokens are found.
export GOFLAGS := -tags=sqlite_fts5 $(GOFLAGS)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

.PHONY: run build test lint bench fuzz generate deps deps-run

run: deps-run build        ## an appliance with a demo shipment, on ./var
	@scripts/demo.sh

build: deps-run            ## bin/watchword, bin/watchword-station
	@mkdir -p bin
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/watchword ./cmd/watchword
	$(GO) build -trimpath -ldflags '-s -w' -o bin/watchword-station ./cmd/watchword-station

test: deps                 ## every test, with the race detector
	scripts/test.sh

lint: deps-run             ## gofmt, go vet, staticcheck, go mod tidy
	scripts/lint.sh $(STATICCHECK)

bench: deps build          ## rates next to their yardsticks, in one run
	$(GO) run ./scripts/bench -watchword bin/watchword $(BENCH)

fuzz: deps                 ## each fuzz target for FUZZTIME
	scripts/fuzz.sh $(FUZZTIME)

generate: deps-run         ## api/*.gen.go from api/openapi.yaml
	$(GO) generate ./api

deps-run:                  ## what running needs
	@scripts/deps.sh run

deps:                      ## what tests and benchmarks need
	@scripts/deps.sh test
