# Paths are relative and never expanded, so that a checkout whose path has a space works too.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.SHELLFLAGS := -euc
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
STAMP := .venv/.installed
ARGS ?=
export NAME

# Dozens of tests wait for processes rather than compute: a few more workers than cores, on any machine.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n < 2 ? 2 : n > 8 ? 8 : n )))

.PHONY: help install run demo new-module test check format bench docs constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## make .venv with everything in it

# The first interpreter that really starts, is new enough and can make an environment.
$(STAMP): pyproject.toml clients/pyproject.toml constraints.txt
	@for python in "$${PYTHON:-python3.11}" python3.11 python3 python3.12 python3.13; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "make: no Python 3.11 with venv found: install python3.11 and python3.11-venv, or set PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	[ -x $(PY) ] && $(PY) -c '' 2>/dev/null || { echo "making .venv with $$found"; "$$found" -m venv --clear .venv; }
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,modules,environments]' -e ./clients
	@touch $(STAMP)

run: install ## serve on port 8000; makes a first key if there is none
	@exec .venv/bin/dataproc serve --first-key $(ARGS)

demo: install ## the main job on real data, start to end
	@$(PY) examples/demo.py $(ARGS)

new-module: install ## make modules/NAME with a method and a test that passes (NAME=word-counts ARGS=--script)
	@.venv/bin/dataproc module new $(ARGS) "$${NAME:?say how it is to be called: make new-module NAME=word-counts}"

test: install ## all tests (ARGS="tests/unit -k name" for some)
	$(PY) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: install ## format, lint, types, import layers, generated docs
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo
	$(PY) -m tools.docs --check

format: install ## format the code and sort its imports
	$(PY) -m ruff check --select I --fix .
	$(PY) -m ruff format .

bench: install ## measure against peers, side by side
	$(PY) -m benchmarks $(ARGS)

docs: install ## write the generated tables of docs/
	$(PY) -m tools.docs

constraints: install ## pin the versions that .venv has now
	$(PY) -m tools.constraints

clean: ## remove what was made, but not storage/
	rm -rf .venv .peers dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
