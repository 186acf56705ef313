# Two commands do everything on a fresh machine with Python 3.11 and a C compiler:
#   make serve   make test
# Each creates or refreshes .venv; a stamp file per set of extras says what is installed.
PYTHON  ?= python3.11
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SOURCES := pyproject.toml setup.py $(wildcard ipc/core/*.[ch])

.PHONY: serve test lint format verify sanitize test-aarch64 clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-serve: $(SOURCES) | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(VENV)/.stamp-test: $(SOURCES) | $(BIN)/python
	$(PIP) --editable '.[test]'
	touch $@ $(VENV)/.stamp-serve

serve: $(VENV)/.stamp-serve
	@echo "The server comes with a later change. What there is now: the rings it will run on."
	@echo "  $(BIN)/python -m ipc.inspect   list live rings      make bench-ipc   measure them"

test: $(VENV)/.stamp-test
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(VENV)/.stamp-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.stamp-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

verify: $(BIN)/python
	$(BIN)/python scripts/verify_rings.py

sanitize: $(VENV)/.stamp-test
	$(BIN)/python scripts/sanitize.py

test-aarch64: $(VENV)/.stamp-test
	$(BIN)/python scripts/test_aarch64.py

clean:
	rm -rf $(VENV) build dist *.egg-info ipc/*.so
