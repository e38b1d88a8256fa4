# Perigee. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
GO ?= go
FUZZTIME ?= 60s
PACKETS ?= 10000000
STATICCHECK := $(GO) tool -modfile=tools/go.mod staticcheck
CROSS := linux/amd64 linux/arm64 darwin/arm64 freebsd/amd64

.DEFAULT_GOAL := help
.PHONY: help build demo test test-browser test-upgrade test-fleet test-fleet-mutants soak race fuzz packets lint conformance-dns conformance-http bench bench-cache bench-dns bench-dns-size bench-http bench-purge test-zones-big test-push-big test-pull-big cross docs clean tools

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/perigee
	$(GO) build -trimpath -o bin/perigee ./cmd/perigee

demo: build tools ## a whole CDN on loopback, with commands to paste (Ctrl-C ends it)
	bin/perigee demo

test: tools ## every test, with the race detector; names what was skipped
	$(GO) test -race -json ./... | $(GO) run ./internal/testsum
	$(GO) -C tools test ./...

test-browser: build ## a real site through the edge in headless Chromium, twice: the second time all hits, and it looks alike
	@scripts/install-tools.sh scripts/tools-bench.txt
	$(GO) run ./bench/browser -perigee bin/perigee

test-upgrade: ## upgrades and ends under full load: a million queries, 40,000 requests
	PERIGEE_TEST_QUERIES=1000000 PERIGEE_TEST_REQUESTS=40000 $(GO) test ./cmd/perigee -count=1 -v -run 'TestUpgrade|TestEndEdge'

test-fleet: tools ## a fleet in network namespaces, with kills, cuts and lost packets at random; SEED=n repeats a round, ROUNDS=n
	PERIGEE_FLEET_SEED=$(SEED) PERIGEE_FLEET_ROUNDS=$(or $(ROUNDS),3) PERIGEE_FLEET_STEPS=$(or $(STEPS),8) PERIGEE_FLEET_FAULTS=$(or $(FAULTS),2) PERIGEE_FLEET_DISKS=$(DISKS) $(GO) test -race -count=1 -v -timeout 30m -run '^TestFleet$$' ./internal/fleet

test-fleet-mutants: tools ## builds of perigee that break one promise each: every one must be caught by a round of test-fleet
	$(GO) test -tags fleetmutants -count=1 -v -timeout 60m -run '^TestMutants$$' ./internal/fleet

soak: tools ## thousands of kills, hundreds of losses of power, an hour of load (KILLS=n LOSSES=n SOAK=1h); scripts/soak.sh PART runs one part
	scripts/soak.sh

race: ## the tests without installing tools first, in go test's own words
	$(GO) test -race ./...

fuzz: ## every fuzz target for FUZZTIME each (60s)
	scripts/fuzz.sh $(FUZZTIME)

packets: ## ten million broken DNS queries, in process (PACKETS=N for another number)
	PERIGEE_PACKETS=$(PACKETS) $(GO) test -count 1 -timeout 1h -run '^(TestMutatedPackets|TestParserAgainstLibrary|TestHostileTypesAndClasses)$$' -v ./dnsserver

lint: ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "gofmt -w $$bad" >&2; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) -C tools vet ./...
	$(GO) -C tools/bench-cache vet ./...
	cd tools && $(GO) tool staticcheck ./...

conformance-dns: tools ## the same questions to perigee, Knot, NSD and BIND, each difference explained (SEED=n repeats a run)
	$(GO) test -count=1 -v -timeout 30m -run 'TestPeers|TestResolvers' ./internal/conformance -args -whole -zones 32 -questions 1000000 -seed $(or $(SEED),0)

conformance-http: build ## the public HTTP cache test suite against the edge, twice; exit 1 below its floors
	tools/conformance-http/run.sh

bench-cache: ## hit ratios of the edge's store on seeded traces, beside golang-lru and otter (SEED=n for others)
	$(GO) -C tools/bench-cache run . -seed $(or $(SEED),1)

bench: ## Go benchmarks of the hot paths, with allocations
	$(GO) test -run '^$$' -bench . -benchmem ./policy ./zones ./dnsserver ./edge ./origin

bench-dns: MIX ?= mix,referral,cname,large,truncated,signed,ecs,steered,weighted,tcp,paced
bench-dns: PEERS ?=
bench-dns: ROUNDS ?= 3
bench-dns: build ## processor time of an answer by UDP, beside a C echo and the name servers of Debian
	@scripts/install-tools.sh scripts/tools-bench.txt
	@test -x bin/coredns || GOBIN=$(CURDIR)/bin $(GO) install github.com/coredns/coredns@v1.15.0 || echo "CoreDNS did not build: left out"
	$(GO) run ./bench/dns -perigee bin/perigee -coredns $(CURDIR)/bin/coredns -rounds $(ROUNDS) -seconds 2 -mix $(MIX) -only "$(PEERS)"

bench-http: MIX ?=
bench-http: PEERS ?=
bench-http: ROUNDS ?= 3
bench-http: build ## processor time of an answer by HTTP/1.1, beside a C floor and the caches of Debian (MIX=bare,100k PEERS=perigee,haproxy ROUNDS=5)
	@scripts/install-tools.sh scripts/tools-bench.txt
	$(GO) run ./bench/http -perigee bin/perigee -rounds $(ROUNDS) -seconds 2 -mix "$(MIX)" -peers "$(PEERS)"

bench-purge: build ## from the call of the API to a fresh response of each of 100 edges, beside 300 more nodes; and 10,000 URLs at once
	$(GO) run ./bench/purge -perigee bin/perigee

bench-dns-size: build ## time, CPU and memory until zones of 1M and 10M names, and 20,000 zones, answer; beside Knot, gdnsd, NSD, BIND where installed
	$(GO) run ./bench/dnssize -perigee bin/perigee -rounds 3 -sizes 1000000 -zones 20000 -loss
	$(GO) run ./bench/dnssize -perigee bin/perigee -rounds 1 -sizes 10000000 -zones 0 -only perigee,gdnsd
	PERIGEE_BIG=1 $(GO) test -run '^$$' -bench 'Lookup|Load|Collect' -benchmem ./zones

test-push-big: ## a push of 60,000 files and of one of 5 GiB: memory of the command, the control node and the edge (15 GiB of disk)
	PERIGEE_BIG=1 $(GO) test ./cmd/perigee -run TestPushScale -v -timeout 60m

test-pull-big: ## a film of 5 GiB through an edge with 32 MiB of memory and 256 MiB of disk, three ways, twice each: its memory
	PERIGEE_BIG=1 $(GO) test ./cmd/perigee -run TestPullScale -v -timeout 60m

test-zones-big: ## 20,000 zones and one of a million names, reloaded under queries, none of which may be lost
	PERIGEE_BIG=1 $(GO) test ./cmd/perigee -run TestReloadUnderLoad -v -timeout 30m

cross: ## build for every system we name
	@for t in $(CROSS); do echo "$$t"; CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build -trimpath -o bin/$${t%/*}-$${t#*/}/perigee ./cmd/perigee || exit 1; done

docs: build ## man pages into bin/man, and the tests that run every example in the docs
	bin/perigee man bin/man
	$(GO) test -run 'TestDocs' ./cmd/perigee

clean: ## remove what was built
	rm -rf bin

tools: ## install the outside programs that tests use, where this may be done
	@scripts/install-tools.sh

-include tools/geodata/geodata.mk
