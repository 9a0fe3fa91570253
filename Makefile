# Two commands for a newcomer, each with all its own set-up: `make demo` and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test lint clean

demo: $(STAMP)
	$(BIN)/ctr-keras quickstart

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal tests
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist worksteal tests/layers tests/losses tests/metrics

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info

# The stamp is newer than what it depends on, so a second run installs nothing.
$(STAMP): setup.py requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@
