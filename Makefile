# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` do everything on a fresh machine. Name a Python with PYTHON=…, extra pytest words with ARGS=….

SHELL := /bin/sh
BIN := .venv/bin
SETUP = @command -v python3 >/dev/null || { echo "QUBIX needs Python 3.11, 3.12 or 3.13: install python3 first."; exit 1; }; \
	python3 scripts/setup.py $(if $(PYTHON),--python "$(PYTHON)")
# Each file's tests stay in one worker, so that a database or a market started for a file is started once.
PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

.PHONY: help setup setup-test demo up test test-slow screenshots check format bench docs lock clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup:  ## what running needs, into .venv (instant when nothing changed)
	$(SETUP)

setup-test:  ## what the tests need as well
	$(SETUP) --test

demo: setup  ## a whole market on this machine: QU in, two real jobs, checked and paid, QU out; leaves nothing running
	@$(BIN)/qubix demo $(ARGS)

up: setup  ## start the market and keep it running until Ctrl-C
	@$(BIN)/qubix up $(ARGS)

test: setup-test  ## every test but the slow ones
	@$(PYTEST) -m "not slow" $(ARGS)

test-slow: setup-test  ## the long suites
	@$(PYTEST) -m slow $(ARGS)

screenshots: setup-test  ## every web page at three widths, light and dark, into build/screenshots
	@$(BIN)/python -m tests.web.screenshots $(ARGS)

check: setup-test  ## format, lint, types and import rules first, then the tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy --sqlite-cache
	$(BIN)/mypy --sqlite-cache bench scripts tests/architecture
	$(BIN)/lint-imports --no-logo
	@$(PYTEST) -m "not slow" $(ARGS)

format: setup-test  ## rewrite the code in the house format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: setup-test  ## every figure beside its limit, in one run
	@$(BIN)/python -m bench $(ARGS)

docs: setup  ## write docs/settings.md, web/openapi.json and the references of tabs anew from the code
	@$(BIN)/python scripts/docs_settings.py
	@$(BIN)/python scripts/docs_openapi.py
	@$(BIN)/python scripts/web_references.py

lock:  ## write requirements/ anew (ARGS=--upgrade moves versions forward)
	@bash scripts/lock.sh $(ARGS)

clean:  ## remove the environment, caches and data of earlier runs
	rm -rf .venv .data build dist web/node_modules web/dist coordinator/qubix_coordinator/_web .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
