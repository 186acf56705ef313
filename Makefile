# Two commands do everything on a fresh machine with Python 3.11 and a C compiler:
#   make serve   make test
# Each creates or refreshes .venv; a stamp file per set of extras says what is installed.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard ipc/*.c ipc/*.h model/*/*.c model/*/*.h)

.PHONY: serve test lint bench-ipc verify sanitize test-aarch64 clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-serve: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.stamp-test: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.stamp-serve
