# Needs Go and, for the ClickHouse library, npm; `make help` lists the targets.
PROGRAMS := ingester enricher aggregator polyphony
LIBRARY  := deploy/embedded/node_modules/@chdb/lib-linux-x64-gnu/libchdb.so
FUZZTIME  ?= 20s
DURATION  ?= 10m
SEED      ?= 1
BENCHTIME ?= 200ms

# The race detector needs a C compiler. CI must have one; elsewhere the tests run without it.
RACE := $(if $(CI)$(shell command -v $$(go env CC)),-race)

# Tests look for `clickhouse` on PATH only.
export PATH := $(if $(POLYPHONY_CLICKHOUSE_BIN),$(dir $(POLYPHONY_CLICKHOUSE_BIN)):)$(PATH)

.DEFAULT_GOAL := help
.PHONY: help engine build run test check bench fuzz e2e faults mutants generate

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

engine: ## fetch the ClickHouse library, once, as the lock file pins it
	@deploy/embedded/fetch.sh

build: engine ## build the four programs into bin/, the engine beside them
	@echo "build: $(PROGRAMS) into bin/"
	@mkdir -p bin
	CGO_ENABLED=0 go build -o bin/ $(PROGRAMS:%=./services/%)
	@rm -f bin/libchdb.so
	@[ ! -e $(LIBRARY) ] || ln $(LIBRARY) bin/ 2>/dev/null || ln -s ../$(LIBRARY) bin/

run: build ## start everything with generated events and a live table
	bin/polyphony up --demo

# The programs that the end-to-end tests run are built without the race detector, and so are these tests: what runs in them is a sender
# and an oracle. Many of them wait most of the time, so three run side by side on two cores.
test: engine ## vet and test everything, with the race detector where it can run
	go vet ./...
	@echo "test: every package$(if $(RACE),, without the race detector: it needs a C compiler)"
	$(if $(RACE),CGO_ENABLED=1 )go test $(RACE) -timeout 60m $$(go list ./... | grep -v /e2e)
	go test -parallel 3 -timeout 60m ./e2e/...

check: ## formatting, vet, module sums
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "check: run gofmt -w on these files" >&2; exit 1; }
	go vet ./...
	go mod verify

bench: build ## measure: every benchmark for BENCHTIME (200ms), end to end last
	go test -run '^$$' -bench . -benchtime $(BENCHTIME) -benchmem -timeout 15m ./...
	go run ./e2e/bench

fuzz: ## run every fuzz target for FUZZTIME (20s)
	@go list ./... | while read -r package; do \
		go test -run '^$$' -list '^Fuzz' "$$package" | grep '^Fuzz' | while read -r target; do \
			echo "fuzz: $$package $$target for $(FUZZTIME)"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null || exit 1; \
		done || exit 1; \
	done

e2e: engine ## the whole system: generated events in, exact metrics out
	go test -count=1 -timeout 30m -v ./e2e/...

faults: engine ## kill, pause and cut off everything under load for DURATION (10m), as SEED (1) says
	POLYPHONY_TEST_FAULTS=$(DURATION) POLYPHONY_TEST_SEED=$(SEED) go test -count=1 -timeout 0 -v -run TestFaults ./e2e

mutants: engine ## put deliberate faults into a copy of the checkout and show which test notices each
	go run ./e2e/mutants

generate: ## regenerate what is derived from other files
	go generate ./...
