# Joinery. `make help` lists what can be made.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO           ?= go
LINT_VERSION := v2.15.0
LINT         := .tools/golangci-lint-$(LINT_VERSION)
PROGRAMS     := joinery joinctl joinsim

# Programs ship without cgo. With these tags the standard library is the same with
# cgo and without, so that what programs, linter and tests have in common is compiled
# once.
TAGS := netgo,osusergo
export GOFLAGS := $(GOFLAGS) -tags=$(TAGS)

# Packages with goroutines of their own: these run under the race detector. The
# longest begin first, so that none is left alone at the end.
CONCURRENT := ./internal/store ./internal/api ./internal/claim . ./internal/activation ./internal/auth ./internal/daemon ./internal/events \
	./internal/fleet ./internal/interop ./internal/keyring/... ./internal/provisioning ./internal/refusal ./internal/sim/...
LONGEST := ./test/fault ./internal/store ./cmd/joinery-hsm ./internal/keyring/hsm

# The race detector watches all but SQLite: that is C, translated, whose memory is
# none of Go's and whose locks it would not understand; and it is slow to watch.
WATCHED := $(foreach package,sqlite/lib libc memory,-gcflags=modernc.org/$(package)=-race=false)

# What `make fuzz` spends on each target: a time (30s) or a count (100000x).
FUZZTIME ?= 30s

# Flags of the bench, such as -short or -json.
BENCH ?=

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: build
build: ## The programs, into bin/
	CGO_ENABLED=0 $(GO) build -o bin/ $(PROGRAMS:%=./cmd/%)

# The one program that is built with cgo, for it loads tokens' libraries.
.PHONY: build-hsm
build-hsm: need-cc ## joinery-hsm, which opens hardware tokens, into bin/ (needs a C compiler)
	CGO_ENABLED=1 $(GO) build -o bin/ ./cmd/joinery-hsm

.PHONY: build-secret
build-secret: ## The same with the runtime's secret-erasing mode (linux, amd64 and arm64)
	GOEXPERIMENT=runtimesecret $(MAKE) build

# Where `make install` puts things; DESTDIR goes before all of it.
PREFIX  ?= /usr/local
DESTDIR ?=
SHARE   := $(DESTDIR)$(PREFIX)/share

# Manual pages carry the date of the last commit, so that they can be made again.
.PHONY: man
man: build ## Manual pages and shell completions, into build/
	rm -rf build/man1 build/completions && mkdir -p build/completions
	export SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || date +%s)}; \
	for program in joinery joinctl; do \
		bin/$$program man build/man1; \
		for shell in bash zsh fish powershell; do bin/$$program completion $$shell > build/completions/$$program.$$shell; done; \
	done

.PHONY: install
install: man ## Programs, manual pages, completions and systemd units, below PREFIX (and DESTDIR)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/systemd/system $(SHARE)/man/man1 \
		$(SHARE)/bash-completion/completions $(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	install -m 755 $(PROGRAMS:%=bin/%) $(DESTDIR)$(PREFIX)/bin/
	if [ -x bin/joinery-hsm ]; then install -m 755 bin/joinery-hsm $(DESTDIR)$(PREFIX)/bin/; fi # where `make build-hsm` made it
	install -m 644 build/man1/*.1 $(SHARE)/man/man1/
	for program in joinery joinctl; do \
		install -m 644 build/completions/$$program.bash $(SHARE)/bash-completion/completions/$$program; \
		install -m 644 build/completions/$$program.zsh $(SHARE)/zsh/site-functions/_$$program; \
		install -m 644 build/completions/$$program.fish $(SHARE)/fish/vendor_completions.d/$$program.fish; \
	done
	install -m 644 deploy/*.service deploy/*.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/
	install -D -m 644 deploy/pkcs11.conf $(SHARE)/joinery/pkcs11.conf # for joinery.service.d, where keys are in a token

.PHONY: demo
demo: ## Devices join a server of their own, step by step; leaves nothing behind
	@$(GO) run ./test/demo

# Three packages at a time for each two processors: many tests wait for other
# processes more than they work.
.PHONY: test
test: need-cc need-pg need-poppler need-chromium need-hsm fmt lint build build-hsm ## Everything that must pass before a change lands
	GORACE=atexit_sleep_ms=0 $(GO) test -race $(WATCHED) -short -vet=off -timeout 20m $(CONCURRENT) # -short: without the longest, which come next
	JOINERY_PROGRAMS=$(CURDIR)/bin $(GO) test -vet=off -timeout 20m $(LONGEST) ./...

.PHONY: test-long
test-long: need-cc need-pg need-poppler need-chromium need-hsm build build-hsm ## The full figures of every promise: hours rather than minutes
	JOINERY_LONG=1 JOINERY_PROGRAMS=$(CURDIR)/bin $(GO) test -count=1 -timeout 4h ./...
	$(MAKE) fuzz FUZZTIME=1000000x

# The linter runs all that `go vet` does, which neither `make test` nor `go test` in it
# repeats.
.PHONY: lint
lint: $(LINT) ## golangci-lint with .golangci.yml
	$(LINT) run --allow-parallel-runners ./...

.PHONY: vet
vet: ## go vet by itself
	$(GO) vet ./...

.PHONY: fmt
fmt: # Tells which files gofmt would change.
	@changed="$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...))"; \
	if [ -n "$$changed" ]; then echo "not formatted; run gofmt -w on:"; echo "$$changed"; exit 1; fi

.PHONY: bench
bench: ## What a join costs: server and client on a processor each, against a bare echo (BENCH=-short)
	$(GO) run ./test/bench $(BENCH)

.PHONY: bench-growth
bench-growth: ## The same with a fleet a hundred times as large (JOINERY_LONG=1: a thousand times)
	$(GO) run ./test/bench -growth $(BENCH)

.PHONY: bench-hsm
bench-hsm: need-cc need-hsm ## Joins on SoftHSM against the same PKCS #11 calls in a bare loop; sessions, near and far; then a whole server (BENCH=-short)
	$(GO) test -run '^$$' -bench . -benchtime 3000x ./internal/keyring/hsm
	$(GO) run ./test/bench -hsm $(BENCH)

.PHONY: bench-element
bench-element: ## Emulated elements behind TCP and Unix sockets, hosts on the other processor, against a bare echo (BENCH=-short)
	$(GO) run ./test/bench -element $(BENCH)

.PHONY: bench-go
bench-go: ## Go benchmarks of every package
	$(GO) test -run '^$$' -bench . -benchmem $$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u)

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME (30s, or a count such as 100000x)
	@grep -rn --include='*_test.go' -oE '^func Fuzz[A-Za-z0-9_]*' . | sed -E 's|^(.*)/[^/]*:[0-9]+:func |\1 |' | sort | \
	while read -r dir target; do \
		echo "== $$dir $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x "$$dir" < /dev/null; \
	done

.PHONY: clean
clean: ## Removes what was built
	rm -rf bin build .tools

# The linter is a tool, not a dependency: it is installed beside the tree once,
# and never enters go.mod.
$(LINT):
	@echo "installing golangci-lint $(LINT_VERSION) (some minutes, once)"
	@mkdir -p .tools
	GOBIN=$(CURDIR)/.tools GOFLAGS=-tags=$(TAGS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	@mv .tools/golangci-lint $(LINT)

# The race detector needs a C compiler; the programs do not.
.PHONY: need-cc
need-cc:
	@if command -v gcc >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing gcc for the race detector"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev; \
	else \
		echo "the race detector needs gcc and the C library's headers: sudo apt-get install gcc libc6-dev" >&2; exit 1; \
	fi

# The tests of the store run a PostgreSQL of their own. Only its programs are
# needed: the cluster that Debian makes is neither made nor touched.
.PHONY: need-pg
need-pg:
	@for initdb in /usr/lib/postgresql/*/bin/initdb /usr/local/pgsql/bin/initdb /usr/local/bin/initdb; do \
		if [ -x "$$initdb" ]; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing PostgreSQL for the tests of the store"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-common; \
		sed -i 's/^#* *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; \
	else \
		echo "the tests of the store need PostgreSQL's server programs, 14 or newer: sudo apt-get install postgresql" >&2; exit 1; \
	fi

# Sheets of labels are shown by a program that is none of ours before their codes
# are read. Where it is not, the tests read the codes from the PDF's own shapes.
.PHONY: need-poppler
need-poppler:
	@if command -v pdftoppm >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing poppler-utils for the tests of label sheets"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends poppler-utils; \
	else \
		echo "without pdftoppm sheets of labels are tested by their own shapes only: sudo apt-get install poppler-utils" >&2; \
	fi

# The page for signing in is used in a real browser, which has an authenticator of
# its own for that.
.PHONY: need-chromium
need-chromium:
	@for name in chromium chromium-browser google-chrome; do \
		if command -v "$$name" >/dev/null; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing Chromium for the tests of the page"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	else \
		echo "without Chromium the page for signing in is tested by its requests only: sudo apt-get install chromium" >&2; \
	fi

# Custody in a hardware token is tested on two of software, which have nothing in
# common. Libraries are looked for where the tests look.
.PHONY: need-hsm
need-hsm:
	@missing=; \
	[ -n "$$(ls /usr/lib/softhsm/libsofthsm2.so \
		/usr/lib/*/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so /usr/local/lib/softhsm/libsofthsm2.so 2>/dev/null)" ] \
		|| missing="$$missing softhsm2"; \
	[ -n "$$(ls /usr/lib/*/libsoftokn3.so /usr/lib/*/nss/libsoftokn3.so /usr/lib64/libsoftokn3.so 2>/dev/null)" ] \
		|| missing="$$missing libnss3"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing$$missing for the tests of custody in a hardware token"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else \
		echo "the tests of custody in a hardware token need SoftHSM2 and NSS: sudo apt-get install$$missing" >&2; exit 1; \
	fi
