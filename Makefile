# Needs python3 (3.11 or newer, with pip), make and git; everything else it gets itself, into this checkout.

.DEFAULT_GOAL := help
SHELL := /bin/bash
UV := $(or $(shell command -v uv 2>/dev/null),$(CURDIR)/.uv/bin/uv)
BIN := .venv/bin
LOCAL_CACHE := $(CURDIR)/.uv/cache

# The interpreter is the machine's own; a home directory that is absent or unwritable is no obstacle.
export UV_PYTHON_DOWNLOADS ?= never
export PIP_ROOT_USER_ACTION ?= ignore
ifeq ($(shell test -n "$$HOME" && test -w "$$HOME" && echo yes),)
export UV_CACHE_DIR ?= $(LOCAL_CACHE)
export PIP_NO_CACHE_DIR ?= 1
endif

.PHONY: help setup demo run test format-check lint types imports unit faults histories policies screenshots format migration hooks clean

help:  ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup  ## serve with the sample: agreement signed, leads imported, engagements replayed
	@exec $(BIN)/baton demo

run: setup  ## serve on your own data
	@exec $(BIN)/baton serve

test: setup format-check lint types imports unit  ## check everything: format, lint, types, import rules, tests

setup: .venv/synced  ## install what is needed into .venv

.venv/synced: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --frozen --quiet
	@touch $@

$(CURDIR)/.uv/bin/uv:
	@echo "getting uv into .uv"
	@python3 -m pip install --quiet --disable-pip-version-check --no-warn-script-location --target .uv uv

format-check: setup
	@$(BIN)/ruff format --check --quiet || { echo "not formatted; make format mends it" >&2; exit 1; }

lint: setup
	@$(BIN)/ruff check --quiet

types: setup
	@$(BIN)/mypy

imports: setup
	@$(BIN)/lint-imports --no-cache

unit: setup  ## run the tests alone; lifecycle/ must be covered to the last branch
	@$(BIN)/pytest --cov --cov-report= $(ARGS)
	@$(BIN)/coverage report --include='lifecycle/*' --fail-under=100

histories: setup  ## record histories for the replay tests; those that are there stay as they are
	@$(BIN)/pytest tests/workflows/record.py -q $(ARGS)

policies: setup  ## write anew who may what (tests/web/policies.txt), from the routes; look at what changed
	@$(BIN)/pytest tests/web/record_policies.py -q $(ARGS)

screenshots: setup  ## take pictures of every page into screenshots/, light and dark, narrow and wide
	@$(BIN)/pytest tests/web/screenshots.py -q $(ARGS)

faults: setup  ## kill parts under load, and run what the tests show in small in full size; takes most of an hour
	@$(BIN)/pytest tests -m faults -s $(ARGS)

format: setup  ## format and mend what can be mended
	@$(BIN)/ruff check --quiet --fix; $(BIN)/ruff format --quiet

migration: setup  ## write a revision from the tables in code: make migration m="what changes" (a server must run)
	@$(BIN)/python -m serve.migrate --new "$(m)"

hooks: setup  ## check each commit before it is made
	@$(BIN)/pre-commit install

clean:  ## remove what was installed and cached here; var, your data, stays
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov
