# What people type. `make demo` on a fresh machine with Python and git needs nothing set up before.
SHELL := /bin/bash
PYTHON ?= python3
# where pip finds torch; empty: pip's own index. https://download.pytorch.org/whl/cpu has builds without CUDA
TORCH_INDEX ?=
WORKERS ?= 3

BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo run repro test check lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the Python of a new environment, TORCH_INDEX=URL where torch comes from,"
	@echo "  WORKERS=3 how many stages run side by side."

setup: .venv/complete ## create .venv from the lock, where it is missing or older than the lock

demo: .venv/complete ## the whole job on the embedded default, minutes on two CPU cores
	@grep -Eq '^profile: *demo( |$$)' params.yaml || { \
	  echo "params.yaml holds profile $$(sed -n 's/^profile: *\([^ ]*\).*/\1/p' params.yaml), not demo."; \
	  echo "Run it with \`make run\`, or go back to the demo with \`$(BIN)/mixdpo profile use demo\`."; exit 2; } >&2
	@$(MAKE) --no-print-directory run

run: .venv/complete ## the whole job on the profile in params.yaml, through Prefect
	@$(BIN)/python -m flows.retrain --workers $(WORKERS)

repro: .venv/complete ## the same up to the report, by DVC alone
	@$(BIN)/dvc repro

test: .venv/complete ## run the tests, side by side
	@$(BIN)/python -m pytest -n 3

check: .venv/complete ## format, lint, types, configuration: what pre-commit and CI run too
	@scripts/check

lock: .venv/complete ## resolve pyproject.toml again into requirements.lock
	@scripts/lock

clean: ## remove stage outputs and tool caches; inputs, registry and DVC's cache stay
	rm -rf metrics plots reports .mixdpo/work .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find data -mindepth 1 -maxdepth 1 ! -name external -exec rm -rf {} +

.venv/complete: requirements.lock pyproject.toml scripts/setup
	@PYTHON=$(PYTHON) TORCH_INDEX=$(TORCH_INDEX) scripts/setup .venv
	@touch $@
