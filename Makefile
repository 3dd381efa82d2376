# make        what to run before every commit
# make help   the rest
.DEFAULT_GOAL := check
SHELL := /bin/bash
NEED := ./testdata/bases/need
TOOL := go tool -modfile=tools.mod
FUZZTIME ?= 20s

# One static binary. cgo is for libcontainer alone (ARCHITECTURE.md).
TAGS := netgo osusergo runc_nocriu
STATIC := -trimpath -buildvcs=auto -tags "$(TAGS)" -ldflags "-s -w -linkmode external -extldflags -static"

# Packages whose tests are whole builds: each container starts this binary
# again, which the race detector makes ten times as slow.
WHOLE := /(engine|cmd/slipway)$$

check: fmt lint test ## format, lint, test: what CI runs, minus fuzzing and cross builds

fmt: gcc ## rewrite files in the house format
	$(TOOL) golangci-lint fmt ./...

lint: gcc ## all linters; see .golangci.yml for why each is there
	$(TOOL) golangci-lint run ./...

test: gcc ## everything, end-to-end scripts too; as root nothing may be skipped
	@[ "$$(id -u)" != 0 ] || ./testdata/bases/make
	@$(NEED) jq git skopeo zstd xz=xz-utils
	.ci/gotest -race -shuffle=on -timeout 15m -tags "$(TAGS)" $$(go list ./... | grep -vE '$(WHOLE)')
	.ci/gotest -shuffle=on -timeout 15m -tags "$(TAGS)" $$(go list ./... | grep -E '$(WHOLE)')

test-all: test ## the same with the race detector everywhere, every fuzz target for five minutes, the demo
	.ci/gotest -race -shuffle=on -timeout 60m -tags "$(TAGS)" $$(go list ./... | grep -E '$(WHOLE)')
	.ci/fuzz 5m
	$(MAKE) demo repro

build: gcc ## bin/slipway: static, stripped
	CGO_ENABLED=1 go build $(STATIC) -o bin/slipway ./cmd/slipway
	@stat -c '%n: %s bytes' bin/slipway

build-arm64: ## bin/slipway-arm64, with Debian's cross compiler
	@$(NEED) aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu /usr/aarch64-linux-gnu/lib/libc.a=libc6-dev-arm64-cross
	CGO_ENABLED=1 GOARCH=arm64 CC=aarch64-linux-gnu-gcc go build $(STATIC) -o bin/slipway-arm64 ./cmd/slipway
	@stat -c '%n: %s bytes' bin/slipway-arm64

repro: build build-arm64 ## build both again from nothing, elsewhere, and compare the bytes
	.ci/repro

bases: ## base images of tests, benchmarks and the demo, cached under ~/.cache
	@./testdata/bases/make

demo: build bases ## the whole step as a pipeline runs it, against a registry on loopback
	./testdata/examples/demo

golden: ## rewrite golden files and script expectations, then look at git diff
	go test -tags "$(TAGS)" $$(grep -rlE --include='*_test.go' 'Bool\("update"' . | xargs -n1 dirname | sort -u) -update

fuzz: gcc ## every fuzz target for FUZZTIME each
	.ci/fuzz $(FUZZTIME)

bench: gcc ## benchmarks, compared with bench.old if there is one
	go test -run '^$$' -bench . -benchmem -count 6 -tags "$(TAGS)" ./... | tee bench.new
	@if [ -f bench.old ]; then $(TOOL) benchstat bench.old bench.new; fi

compare: build bases ## whole builds side by side with the builders found on the machine
	go run ./cmd/bench

deps: ## rewrite the list of packages that the binary links
	go list -deps -tags "$(TAGS)" -f '{{if not .Standard}}{{.ImportPath}}{{end}}' ./cmd/slipway | grep -v '^github.com/slipway-build/slipway' | LC_ALL=C sort > testdata/deps.txt

gcc:
	@$(NEED) gcc /usr/include/stdio.h=libc6-dev

help:
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.PHONY: check fmt lint test test-all build build-arm64 repro bases demo golden fuzz bench compare deps gcc help
