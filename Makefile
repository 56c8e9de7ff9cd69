# Every command anyone types. `make` alone lists them.
include Tools.mk

RELEASE ?= $(shell sed -n 's/^const Release = "\(.*\)"/\1/p' internal/version/version.go)
LDFLAGS := -s -w
PKG     ?= ./...
PREFIX  ?= /usr/local
ENVOY   := python3 scripts/fetch_envoy.py
VLLM    := python3 scripts/vllm/install.py
MODEL   ?= tiny
REDIS   := python3 scripts/fetch_redis.py
CLIENTS := python3 scripts/fetch_clients.py
WEBUI   := python3 scripts/fetch_openwebui.py
NGINX   := python3 scripts/fetch_nginx.py
PROMTOOL := python3 scripts/fetch_promtool.py
BROWSER := python3 scripts/fetch_browser.py
HELM    := python3 scripts/fetch_scale.py helm
# cargo in meter/, or one line that says what is left out without it.
METER   := scripts/cargo_meter.sh
POSTGRES := python3 scripts/fetch_postgres.py
COLLECTOR := python3 scripts/build_collector.py
# Black-box suites run one after the other: they watch clocks, and each starts several processes.
# What tests through real programs need; each is fetched or built once.
REAL    := meter=$$(python3 scripts/build_meter.py) && envoy=$$($(ENVOY)) && redis=$$($(REDIS)) && clients=$$($(CLIENTS)) && promtool=$$($(PROMTOOL)) && nginx=$$($(NGINX)) && postgres=$$($(POSTGRES)) && browser=$$($(BROWSER)) && collector=$$($(COLLECTOR)) && helm=$$($(HELM)) && \
	TOLLGATE_METER_LIBRARY="$$meter" ENVOY_BIN="$$envoy" REDIS_SERVER_BIN="$$redis" CLIENTS_BIN="$$clients" PROMTOOL_BIN="$$promtool" NGINX_BIN="$$nginx" POSTGRES_BIN="$$postgres" BROWSER_BIN="$$browser/chromium" COLLECTOR_BIN="$$collector" HELM_BIN="$$helm" E2E=require

.DEFAULT_GOAL := help
.PHONY: help build install dist envoy vllm run run-vllm test test-hosts test-packages lint fmt fuzz bench bench-full microbench e2e e2e-vllm proof scale check vuln ci changelog hooks clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The last line says which host will meter.
build: ## bin/tollgate, bin/launcher, and where cargo is the meter for Envoy
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/tollgate ./cmd/tollgate
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/launcher ./launcher
	@python3 scripts/build_meter.py --into bin >/dev/null

envoy: ## fetch the pinned Envoy once and print its path
	@$(ENVOY)

# Packages are made with it, too (scripts/dist.py): DESTDIR, BIN and the tollgate of this machine as TOOL, with its launcher beside it. A GPU host
# needs no Envoy: WITH_ENVOY=no.
BIN     ?= bin
TOOL    ?= $(BIN)/tollgate
ROOT    := $(DESTDIR)$(PREFIX)
SHARE   := $(ROOT)/share
install: build ## programs, Envoy, units, completion, manuals under PREFIX (/usr/local); DESTDIR, WITH_ENVOY=no
	install -d "$(ROOT)/bin" "$(ROOT)/lib/tollgate" "$(ROOT)/lib/systemd/system" "$(SHARE)/bash-completion/completions" "$(SHARE)/zsh/site-functions" "$(SHARE)/fish/vendor_completions.d" "$(SHARE)/man/man1"
	install -m 755 $(BIN)/tollgate $(BIN)/launcher "$(ROOT)/bin"
	for meter in $(BIN)/libtollgate_meter-*.so; do [ ! -e "$$meter" ] || install -m 644 "$$meter" "$(ROOT)/lib/tollgate" || exit 1; done
	for unit in tollgate tollgate-serve tollgate-vllm; do \
		sed 's|@PREFIX@|$(PREFIX)|g' deploy/systemd/$$unit.service > "$(ROOT)/lib/systemd/system/$$unit.service" && \
		chmod 644 "$(ROOT)/lib/systemd/system/$$unit.service" || exit 1; done
	$(TOOL) completion bash --program "$(PREFIX)/bin/tollgate" > "$(SHARE)/bash-completion/completions/tollgate"
	{ echo '#compdef tollgate'; $(TOOL) completion zsh --program "$(PREFIX)/bin/tollgate"; } > "$(SHARE)/zsh/site-functions/_tollgate"
	$(TOOL) completion fish --program "$(PREFIX)/bin/tollgate" > "$(SHARE)/fish/vendor_completions.d/tollgate.fish"
	$(TOOL) man > "$(SHARE)/man/man1/tollgate.1"
	$(dir $(TOOL))launcher man > "$(SHARE)/man/man1/launcher.1"
	[ "$(WITH_ENVOY)" = no ] || { envoy=$$($(ENVOY)) && install -m 755 "$$envoy" "$(ROOT)/lib/tollgate/envoy"; }

# Needs the meter's cargo only where the meter shall be in it, and nothing but Go and Python otherwise.
dist: ## release archives, deb, rpm, SBOM and checksums of the commit, in dist/; the same commit gives the same bytes
	@python3 scripts/dist.py $(ARGS)

# exec: the launcher takes the place of the recipe's shell, so that a Ctrl-C reaches it exactly once.
run: build ## build, fetch Envoy, start the whole stack in the foreground; Ctrl-C stops it
	@envoy=$$($(ENVOY)) && ENVOY_BIN="$$envoy" exec bin/launcher up $(ARGS)

vllm: ## install a real vLLM for CPU and its model outside the clone, once, and print the folder; MODEL=smollm2
	@$(VLLM) --model $(MODEL)

run-vllm: build ## as run, with that vLLM; MODEL=smollm2 gives real answers, the tiny one gibberish
	@envoy=$$($(ENVOY)) && config=$$($(VLLM) --model $(MODEL) --config) && ENVOY_BIN="$$envoy" exec bin/launcher up --config "$$config" $(ARGS)

test: ## all tests, those through a real Envoy included; a skipped test is a failure
ifeq ($(PKG),./...)
	@$(REAL) python3 scripts/go_test.py -race -shuffle=on -count=1 -timeout 15m $$(go list ./... | grep -v /e2e/)
	@python3 scripts/go_test.py -count=1 -timeout 10m ./internal/usage ./internal/sqlitestore
	@python3 scripts/go_test.py -count=1 -timeout 10m ./internal/limit -rapid.checks=2000 -rapid.steps=100
	@$(REAL) python3 scripts/go_test.py -count=1 -p 1 -timeout 15m ./e2e/...
	@$(METER) test
else
	@$(REAL) python3 scripts/go_test.py -race -shuffle=on -count=1 -timeout 15m $(PKG)
endif

# `make test` runs them where this machine meters: inside Envoy with cargo, by ext_proc without.
HOSTS   := ./e2e/metering ./e2e/input ./e2e/limits ./e2e/faults ./e2e/mainjob
test-hosts: ## the suites that both hosts of the meter must pass, on the host that `make test` does not take
	@if [ -z "$$(python3 scripts/build_meter.py)" ]; then echo 'no cargo: make test has run these suites by ext_proc, the only host here'; \
	else $(REAL) E2E_METER=ext_proc python3 scripts/go_test.py -count=1 -p 1 -timeout 15m $(HOSTS); fi

# The second release is made in a clone of its own, so that no path of the first can be in both.
DIST    := .cache/dist
test-packages: ## make a release twice, compare and look into it, install it into a fresh Debian and boot that. Needs root
	@root=$$(python3 scripts/fetch_root.py) && $(ENVOY) >/dev/null && rm -rf $(DIST) && mkdir -p $(DIST) && git clone -q . $(DIST)/clone && \
	mkdir $(DIST)/clone/.cache && ln -s "$(CURDIR)/.cache/envoy" $(DIST)/clone/.cache/envoy && arch=$$(go env GOARCH) && \
	python3 scripts/dist.py --arch $$arch --out $(DIST)/one >/dev/null && python3 $(DIST)/clone/scripts/dist.py --arch $$arch --out $(DIST)/two >/dev/null && \
	ROOT_DIR="$$root" DIST_DIR="$(CURDIR)/$(DIST)/one" DIST_AGAIN="$(CURDIR)/$(DIST)/two" python3 scripts/go_test.py -tags packages -count=1 -timeout 15m ./e2e/packages

lint: ## golangci-lint, pinned; the first run builds it. rustfmt and clippy where cargo is
	GOLANGCI_LINT_CACHE="$(CURDIR)/.cache/lint" go run $(GOLANGCI_LINT) run --build-tags vllm,scale $(PKG)
	@$(METER) fmt
	@$(METER) clippy --all-targets
	@$(METER) clippy --all-targets --all-features

fmt: ## format all Go files
	go run $(GOLANGCI_LINT) fmt ./...

fuzz: ## every fuzz target for 60 s
	@scripts/fuzz.sh 60s

bench: ## what it costs against plain Envoy, in one run: a table, in under ten minutes
	@meter=$$(python3 scripts/build_meter.py) && envoy=$$($(ENVOY)) && TOLLGATE_METER_LIBRARY="$$meter" ENVOY_BIN="$$envoy" go run ./bench $(ARGS)

bench-full: ## the same in all lanes
	@meter=$$(python3 scripts/build_meter.py) && envoy=$$($(ENVOY)) && TOLLGATE_METER_LIBRARY="$$meter" ENVOY_BIN="$$envoy" go run ./bench --full $(ARGS)

microbench: ## Go benchmarks of what runs per chunk and per request
	go test -run '^$$' -bench . -benchmem $(PKG)

e2e: ## the black-box tests alone: built binaries and a real Envoy
	@$(REAL) python3 scripts/go_test.py -count=1 -p 1 -timeout 15m ./e2e/... ./envoy/...

# A CPU engine on a shared machine is at the mercy of its neighbours: with SECOND_TRY, one failed run is shown and repeated.
e2e-vllm: ## the tests through launcher and Envoy on a real vLLM; `make test` has none of them
	@envoy=$$($(ENVOY)) && collector=$$($(COLLECTOR)) && config=$$($(VLLM) --config) && export ENVOY_BIN="$$envoy" COLLECTOR_BIN="$$collector" E2E=require TOLLGATE_VLLM_CONFIG="$$config" && \
	run() { python3 scripts/go_test.py -tags vllm -timeout 25m ./e2e/vllm; } && \
	{ run || { [ -n "$$SECOND_TRY" ] && echo 'the suite on the real vLLM has failed and runs once more' >&2 && run; }; }

proof: ## the long forms of kill loops, storms and soaks; figures are printed for docs/proof.md
	@webui=$$($(WEBUI)) && export OPENWEBUI_BIN="$$webui" && $(REAL) PROOF=1 python3 scripts/go_test.py -v -p 1 -timeout 150m ./e2e/... ./internal/redisstore ./internal/sqlitestore ./internal/limit ./internal/central

# Everything is fetched and compiled before the namespace, from which nothing can be reached; -exec true runs none of it.
scale: ## deploy/ on real control planes, in a network namespace; the first run builds them (30 min); needs root
	@meter=$$(python3 scripts/build_meter.py) && envoy=$$($(ENVOY)) && redis=$$($(REDIS)) && scale=$$(python3 scripts/fetch_scale.py) && python3 scripts/fetch_docker.py >/dev/null && \
	go test -count=1 -tags scale -exec true ./e2e/scale/... >/dev/null && go build -o /dev/null ./cmd/tollgate && \
	TOLLGATE_METER_LIBRARY="$$meter" ENVOY_BIN="$$envoy" REDIS_SERVER_BIN="$$redis" SCALE_BIN="$$scale" E2E=require \
	scripts/netns.sh python3 scripts/go_test.py -count=1 -p 1 -tags scale -timeout 30m ./e2e/scale/...

check: ## fmt, lint, tidy; fails if anything had to change
	@before=$$(git status --porcelain; git diff | cksum); \
	$(MAKE) --no-print-directory fmt lint && go mod tidy -diff && go mod verify && \
	after=$$(git status --porcelain; git diff | cksum); \
	[ "$$before" = "$$after" ] || { echo 'check: files changed, look at them' >&2; git status --short >&2; exit 1; }

ci: check test test-hosts e2e-vllm ## what CI runs; `make test` has the black-box suites

vuln: ## known vulnerabilities in what is called; asks the Go vulnerability database
	go run $(GOVULNCHECK) ./...

changelog: ## move the entries of .changelog/ into CHANGELOG.md, under the release that internal/version names
	@python3 scripts/changelog.py $(RELEASE)

hooks: ## link the pre-commit hook
	ln -sf ../../scripts/pre-commit "$$(git rev-parse --git-dir)/hooks/pre-commit"

clean: ## remove what was built and fetched; state, logs and configuration stay
	rm -rf bin .cache
