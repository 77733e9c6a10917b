# The doors of the house. Each target works on a fresh machine with Python 3.11 and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=

.PHONY: run test lint format bench demo clean

run: $(VENV)/.installed
	@exec $(BIN)/hetuflow up

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report= \
	  --ignore tests/faults $(PYTEST_ARGS)
	# Alone: they kill and starve what they run, and should meet no other test's load.
	$(BIN)/python -m pytest --cov --cov-append --cov-report=term tests/faults

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	for name in dispatch process lateness trigger failover; do $(BIN)/python bench/$$name.py || exit 1; done

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
