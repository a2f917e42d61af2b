# `make help` lists the tasks. Each brings the environment it needs up to date first (tools/environment.py).

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PY := .venv/bin/python
PYTEST := $(PY) -m pytest
# For tests that share nothing: a process for each core.
SIDE_BY_SIDE := $(PYTEST) -n logical --maxprocesses 4
CODE := admin api common tests tools conftest.py

# The quick ones first.
GROUPS := lint types layers unit http http-servers contract integration faults-first

.PHONY: help serve test $(GROUPS) faults format bench bench-trail soak jobs-soak trail-soak lock clean runtime dev contract-client python

help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: runtime ## Run the whole management plane in the foreground
	@exec .venv/bin/ragkeeper serve

test: dev ## Install what the tests need and run all of them
	@trap 'exit 130' INT TERM; report=''; status=0; \
	for group in $(GROUPS); do \
		printf '\n== %s\n' "$$group"; began=$$(date +%s); \
		if $(MAKE) "$$group"; then verdict=passed; else verdict=FAILED; status=1; fi; \
		report="$$report$$(printf '  %-12s %s (%s s)' "$$group" "$$verdict" $$(($$(date +%s) - began)))\n"; \
	done; \
	printf "\n== summary\n$$report"; exit $$status

lint: dev ## Check format and style (ruff)
	@$(PY) -m ruff format --check $(CODE)
	@$(PY) -m ruff check $(CODE)

format: dev ## Put format and imports in order (ruff)
	@$(PY) -m ruff format $(CODE)
	@$(PY) -m ruff check --fix $(CODE)

types: dev ## Check the types (mypy --strict)
	@$(PY) -m mypy

layers: dev ## Check which module may import which (import-linter)
	@.venv/bin/lint-imports

unit: dev ## Tests of the rules, stores and services
	@$(SIDE_BY_SIDE) tests/unit

http: dev ## Tests that speak HTTP to both servers
	@$(SIDE_BY_SIDE) tests/api tests/admin

http-servers: dev ## The same, and what stands below it, with MariaDB, Redis, S3 and Elasticsearch's stand-in
	@$(SIDE_BY_SIDE) tests/api tests/admin tests/unit/services tests/unit/worker tests/unit/migrations --stores=servers

contract: dev contract-client ## Tests with the published ragflow-cli
	@$(SIDE_BY_SIDE) tests/contract

integration: dev ## Tests with the real processes: most side by side, then alone those that time something
	@status=0; $(SIDE_BY_SIDE) tests/integration -m 'not alone' || status=$$?; \
	$(PYTEST) tests/integration -m alone || status=$$?; exit $$status

faults-first: dev ## The first seven faults of each store: real servers that refuse, die, hang, drip, cut, and change passwords
	@$(SIDE_BY_SIDE) tests/faults -m 'not whole_table'

faults: dev ## Every fault of every store, then what was seen as a table in Markdown (as root: one makes a small disk)
	@rm -f build/faults/faults.json; status=0; $(PYTEST) tests/faults || status=$$?; \
	$(PY) -m tests.faults.table || status=1; exit $$status

bench: dev ## Measure the speed of the servers
	@$(PY) -m tests.bench

bench-trail: dev ## Measure pages out of a million audit events (STORES=servers: on MariaDB), some minutes
	@$(PY) -m tests.bench.trail $(if $(STORES),--stores $(STORES))

soak: dev ## Half an hour (or MINUTES=n) of mixed load; memory and connections must stay flat
	@$(PY) -m tests.bench.soak $(if $(MINUTES),--minutes $(MINUTES))

jobs-soak: dev ## Do 10,000 jobs while their workers are killed at random (STORES=servers: on MariaDB)
	@$(PY) -m tests.soak $(if $(STORES),--stores $(STORES))

trail-soak: dev ## Write and seal audit events while who does it is killed at random (STORES=servers: on MariaDB)
	@$(PY) -m tests.soak.trail $(if $(STORES),--stores $(STORES))

lock: dev ## Resolve the dependencies again and write the locks (UPGRADE=1: to the newest)
	@compile='.venv/bin/uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --quiet'; \
	compile="$$compile $(if $(UPGRADE),--upgrade)"; set -e; \
	$$compile pyproject.toml --python-version 3.11 --group pyproject.toml:install -o requirements.lock; \
	$$compile pyproject.toml --python-version 3.11 --group pyproject.toml:install --group pyproject.toml:dev \
		-c requirements.lock -o requirements-dev.lock; \
	$$compile --python-version 3.10 --group pyproject.toml:contract -o requirements-contract.lock

clean: ## Remove the environments and caches; a home is left alone
	rm -rf .venv .venv-contract .environment.lock build dist *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find admin api common tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

runtime: python
	@python3 tools/environment.py runtime

dev: python
	@python3 tools/environment.py dev

contract-client: python
	@python3 tools/environment.py contract

python:
	@command -v python3 >/dev/null || \
		{ echo 'ragkeeper: python3 is missing; install it: apt-get install python3 python3-venv' >&2; exit 1; }
