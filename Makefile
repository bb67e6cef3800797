# `make` lists the targets. Everything they make goes to bin/ and build/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION   := v1.9.0

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# A checkout that git refuses to read (another user's) is built without its revision.
BUILDVCS := $(shell git rev-parse --git-dir >/dev/null 2>&1 && echo auto || echo false)
LDFLAGS  := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 20s
BENCH    ?= .
CASES    ?= .
# Tests at once in a package. Those on real QEMU wait for guests most of the time.
PARALLEL ?= $(shell echo $$((2 * $$(nproc))))
TOOLS    := $(CURDIR)/build/tools
LINT     := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)

# Where `make install` puts things; DESTDIR is a root to stage them in.
PREFIX   ?= /usr/local
DESTDIR  ?=
BINARY   ?= bin/maqet

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##### Use

.PHONY: demo
demo: ## Bring up, change, snapshot and stop real guests from YAML; installs what is missing.
	@hack/install-deps.sh demo
	@$(MAKE) --no-print-directory build guest
	@hack/demo.sh up

.PHONY: demo-stop
demo-stop: ## Stop the guests of `make demo`.
	@hack/demo.sh down

.PHONY: build
build: ## Build bin/maqet, one static binary.
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -buildvcs=$(BUILDVCS) -ldflags '$(LDFLAGS)' -o bin/maqet ./cmd/maqet

.PHONY: install
install: ## Install BINARY (bin/maqet) and the systemd units below PREFIX (/usr/local), staged in DESTDIR.
	@hack/install.sh install '$(BINARY)' '$(PREFIX)' '$(DESTDIR)'

.PHONY: uninstall
uninstall: ## Remove what `make install` put there; machines, disks and settings stay.
	@hack/install.sh uninstall '$(BINARY)' '$(PREFIX)' '$(DESTDIR)'

.PHONY: guest
guest: ## Build the tiny Linux guest of tests and demo in build/guest.
	@go run ./e2e/cmd/mkguest -o build/guest >/dev/null

.PHONY: guest-generic
guest-generic: ## Build the same with the kernel for any computer (SATA, USB, 9p) in build/guest-generic.
	@go run ./e2e/cmd/mkguest -o build/guest-generic -generic >/dev/null

.PHONY: guest-agent
guest-agent: ## Build the tiny guest with Debian's guest agent in build/guest/agent, for tests.
	@go run ./e2e/cmd/mkguest -o build/guest -agent >/dev/null

.PHONY: install-deps
install-deps: ## Install the Debian packages that demo and tests need (as root; else names them).
	@hack/install-deps.sh test

##### Test

.PHONY: test
test: install-deps build guest guest-generic guest-agent ## Every test with the race detector, on real QEMU; long ones at a small size.
	MAQET_SOAK= go test -race -count=1 -shuffle=on -parallel $(PARALLEL) -timeout 30m ./...

.PHONY: race
race: ## The tests that need no QEMU guest, with the race detector, twice over.
	go test -race -count=2 -shuffle=on -timeout 20m $$(go list ./... | grep -vE '/e2e(/|$$)') ./e2e/internal/arrows

.PHONY: soak
soak: install-deps build guest guest-generic guest-agent ## The long tests at their full size.
	@hack/soak.sh

.PHONY: fuzz
fuzz: ## Run each fuzz test for FUZZTIME (20s).
	@hack/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: install-deps build guest ## maqet against raw QEMU (CASES=regexp), then micro benchmarks (BENCH=regexp); results in build/bench.txt.
	@mkdir -p build
	@go build -buildvcs=$(BUILDVCS) -o build/bench ./e2e/cmd/bench
	build/bench -maqet bin/maqet -run '$(CASES)' -save build/bench.txt
	@packages=$$(grep -rl '^func Benchmark' --include='*_test.go' . | xargs -r -n1 dirname | sort -u); \
	go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 30m $$packages | tee -a build/bench.txt

.PHONY: cover
cover: install-deps build guest guest-generic guest-agent ## Statement coverage by function, and build/cover.html.
	@mkdir -p build
	go test -count=1 -timeout 20m -coverpkg=./... -coverprofile=build/cover.out ./...
	go tool cover -html=build/cover.out -o build/cover.html
	go tool cover -func=build/cover.out | tail -n 1

.PHONY: golden
golden: ## Write the golden files anew; review the difference like code.
	@packages=$$(grep -rlE 'flag\.Bool\("update"' --include='*_test.go' . | xargs -r -n1 dirname | sort -u); \
	if [ -z "$$packages" ]; then echo 'no package has golden files'; else go test -count=1 $$packages -update; fi

##### Check

.PHONY: check
check: tidy-check lint race ## What to run before sending a change (quick; CI also runs `make test` and `make soak`).

.PHONY: lint
lint: $(LINT) ## Run the linters.
	$(LINT) run ./...

.PHONY: fmt
fmt: $(LINT) ## Format the code.
	$(LINT) fmt ./...

.PHONY: tidy
tidy: ## Bring go.mod and go.sum in line with the imports.
	go mod tidy

.PHONY: tidy-check
tidy-check: ## Fail when `make tidy` would change something.
	go mod tidy -diff

.PHONY: govulncheck
govulncheck: ## Look for known vulnerabilities (needs vuln.go.dev).
	go run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./...

.PHONY: clean
clean: demo-stop ## Stop the demo's guests and remove what was built.
	rm -rf bin build

# Built once per version: compiling the linters takes a minute, running them seconds.
$(LINT):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv $(TOOLS)/golangci-lint $@
