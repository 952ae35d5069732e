# Every target that runs something makes the environment first when it is missing or older than the lock.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?=
ARGS ?=
VENV_PYTHON := .venv/bin/python
READY := .venv/.installed

.PHONY: help setup frontier smoke test test-full faults lint type bench ui lock clean

help: ## Show this list
	@echo "make TARGET [ARGS='more arguments'] [PYTHON=/path/to/python3.11 or 3.12]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Check the machine, then install everything into .venv (once, about 6 GB)
	@echo ".venv is ready"

$(READY): requirements.lock pyproject.toml scripts/setup.sh scripts/check_machine.py
	@PYTHON='$(PYTHON)' scripts/setup.sh

frontier: $(READY) ## Train, code and time the seven families, print their frontier (about 10 min on 2 cores)
	@$(VENV_PYTHON) -m sweep +experiment=frontier $(ARGS)

smoke: $(READY) ## The smallest sweep through the same steps (under 90 s)
	@$(VENV_PYTHON) -m sweep +experiment=smoke $(ARGS)

test: $(READY) ## Run the tests (under 8 min on 2 cores)
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -m "not full" -n auto --maxprocesses 4 --dist loadscope --no-loadscope-reorder $(ARGS)

test-full: test ## Run the tests, then the slow ones: a real browser, PostgreSQL, LaTeX, the wheel, clean installs
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -m full -n auto --maxprocesses 3 --dist loadscope $(ARGS)

faults: $(READY) ## Kill what a sweep runs on 100 times and see that nothing is lost (SEED, FAULTS; about 40 min)
	@$(VENV_PYTHON) -m tests.faults.campaign --seed $(or $(SEED),0) --faults $(or $(FAULTS),100)

lint: $(READY) ## Check style, format and the import rules
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@.venv/bin/lint-imports

type: $(READY) ## Check the types
	@$(VENV_PYTHON) -m mypy

bench: $(READY) ## Measure against what users would pick instead; prints a summary
	@$(VENV_PYTHON) -m benchmarks $(ARGS)

ui: $(READY) ## Open the tracked sweeps in a browser (this machine only)
	@$(VENV_PYTHON) -m sweep.ui $(ARGS)

lock: $(READY) ## Write requirements.lock anew from pyproject.toml (UPGRADE=1: newest versions)
	@scripts/lock.sh

clean: ## Remove caches and build outputs; .venv, runs and downloaded data stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
