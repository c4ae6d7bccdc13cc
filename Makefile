# Two commands do everything on a fresh machine with Python 3.11+: make reproduce, make test.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

.PHONY: setup reproduce test check format bench docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test,check,docs,baselines,plots,rl]"
	touch $(STAMP)

# The main job on the bundled sample: train, evaluate, print the table. Needs no data and no network once installed.
reproduce: setup
	$(BIN)/fastgaum reproduce --datasets sample

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --quiet

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Races against rivals and the scaling curves, then the pages that show them. Minutes, on a machine that is otherwise idle.
bench: setup
	$(BIN)/fastgaum bench --json docs/tables/bench.json --plot docs/scaling.svg
	$(BIN)/python bench/readme.py

docs: setup
	$(BIN)/mkdocs serve

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
