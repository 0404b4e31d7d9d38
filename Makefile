# The two commands: `make demo` and `make test`. Both do all the set-up they need.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint browser bench lock

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## make the virtual environment, exactly as locked

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	touch $@

demo: $(READY) ## 30 days of made-up traffic, the server, a key, a first query
	$(BIN)/tallybook demo

test: $(READY) browser lint ## everything: format, lint, types, import rules, and all tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(READY) ## format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Debian's browser, unless there is one already. Installing it needs root, or sudo.
browser:
	@command -v chromium >/dev/null || { \
		sudo=$$([ "$$(id -u)" = 0 ] || echo sudo); \
		$$sudo apt-get update --quiet && $$sudo apt-get install --quiet --yes --no-install-recommends chromium; }

bench: $(READY) ## measure everything beside its reference; takes a while
	$(BIN)/python -m benchmarks

lock: $(READY) ## lock the newest versions pyproject.toml allows
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --generate-hashes \
		--no-annotate --no-header --upgrade --output-file requirements.lock
