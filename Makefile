# The project's own commands. Everything is built in .venv from pyproject.toml; nothing else is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pytest workers; tests use free ports and their own folders, so any number may run side by side. One more than
# there are cores, as a third of the time they wait for peers.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(1 + (os.cpu_count() or 1))')
INSTALLED := $(VENV)/.installed-test $(if $(TORCH),$(VENV)/.installed-torch)

.PHONY: fuzz demo large lossless results-page test every-file soak cycles bench crash check lint types audit clean help

help:
	@echo "make demo           build the environment and run the main job end to end"
	@echo "make test           run the tests (TORCH=1 adds the extras torch and monai)"
	@echo "make every-file     send and retrieve every real image there is (the tests take a part)"
	@echo "make soak           an hour under load while peers and workers are killed (SECONDS=600 SEED=1)"
	@echo "make large          receive, keep and give back one object of 4.5 GB (the tests take 96 MB)"
	@echo "make cycles         make 10,000 associations, good and hostile ones (COUNT=10000; the tests make 400)"
	@echo "make lossless       write the figures of docs/lossless.md: every codec, kind of pixel and real file"
	@echo "make results-page   write the checklist of docs/results.md from the marks of the tests"
	@echo "make bench          measure beside the peers (ROWS=store,get RUNS=3; DOCS=1 rewrites the page's figures)"
	@echo "make crash          kill the node at every named point and at COUNT=200 random moments, and cut its power"
	@echo "make fuzz           fuzz the parsers for hours (TARGET=pdu, header or matching; RUNS=100000)"
	@echo "make audit          are the dependencies reviewed, whole, and without known holes?"
	@echo "make check          lint, types, audit and tests: what CI does"
	@echo "make clean          remove what was built"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "anode needs Python 3.11 or newer; name one with 'make PYTHON=/path/to/python3.11 ...'"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-torch: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,torch,monai]'
	@touch $(VENV)/.installed $(VENV)/.installed-test $@

demo: $(VENV)/.installed
	$(BIN)/anode demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

every-file: $(VENV)/.installed-test
	ANODE_EVERY_FILE=1 $(BIN)/python -m pytest tests/interop/test_every_file.py $(ARGS)

soak: $(VENV)/.installed-test
	$(BIN)/python -m tests.soak $(or $(SECONDS),3600) $(SEED)

large: $(VENV)/.installed-test
	ANODE_LARGE_BYTES=$(or $(BYTES),4500000000) $(BIN)/python -m pytest -s tests/integration/test_large_object.py $(ARGS)

cycles: $(VENV)/.installed-test
	ANODE_CYCLES=$(or $(COUNT),10000) $(BIN)/python -m pytest -s tests/integration/test_wire_cycles.py $(ARGS)

lossless: $(VENV)/.installed-test
	$(BIN)/python -m tests.support.lossless_page

results-page: $(VENV)/.installed-test
	$(BIN)/python -m tests.support.results_page

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks $(if $(ROWS),--rows $(ROWS)) $(if $(RUNS),--runs $(RUNS)) $(if $(DOCS),--page) $(ARGS)

crash: $(VENV)/.installed-test
	ANODE_CRASH=1 ANODE_CRASH_COUNT=$(or $(COUNT),200) ANODE_CRASH_SEED=$(SEED) \
		nice $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -rP tests/crash $(ARGS)

# how many inputs each target of the fuzzer is given
RUNS_pdu := 10000000
RUNS_header := 1000000
RUNS_matching := 1000000
TARGET ?= pdu header matching

fuzz: $(VENV)/.installed-test
	set -e; $(foreach target,$(TARGET),$(BIN)/python -m tests.fuzz $(target) --runs $(or $(RUNS),$(RUNS_$(target))) $(ARGS);)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy

audit: $(INSTALLED)
	$(BIN)/python -m tests.support.dependencies

check: lint types audit test

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis demo-output
