# underlay: every command that the documentation and CI name. `make` alone lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PINS := requirements/constraints.txt
UV := $(shell command -v uv 2>/dev/null)

ifeq ($(UV),)
  MAKE_VENV = $(PYTHON) -m venv $(VENV)
  INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS)
else
  MAKE_VENV = $(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
  INSTALL = $(UV) pip install --quiet --python $(BIN)/python --constraint $(PINS)
endif

.PHONY: e2e-grafana e2e stack-binaries dashboards help demo test lint format generate check-generated wheel-test bench clean

help:  ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "underlay needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 3; }
	@$(MAKE_VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml $(PINS)
	@echo "setting up $(VENV) (once)"
	@$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml $(PINS)
	@echo "setting up $(VENV) for development (once)"
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo  ## run one program without and with underlay against a simulated provider
	@$(BIN)/python examples/demo.py

test: $(VENV)/.dev  ## run the whole test suite
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

lint: $(VENV)/.dev check-generated  ## formatting, types, import contract, docstrings, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/interrogate --quiet tests  # each test says the promise that it keeps

format: $(VENV)/.dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

GENERATORS := scripts/generate_twins.py scripts/generate_prices.py scripts/generate_settings_docs.py scripts/generate_metrics_docs.py

generate: $(VENV)/.dev  ## write every generated file again
	@for script in $(GENERATORS); do $(BIN)/python $$script || exit 1; done
	$(BIN)/python -m underlay_dashboards render

check-generated: $(VENV)/.dev
	@for script in $(GENERATORS); do $(BIN)/python $$script --check || exit 1; done
	$(BIN)/python -m underlay_dashboards render --check

dashboards: $(VENV)/.dev  ## render the dashboards from the vocabulary
	$(BIN)/python -m underlay_dashboards render

stack-binaries: $(BIN)/python  ## build the native servers of the stack from their published Go modules (once, about 10 minutes)
	@PYTHONPATH=runtime $(BIN)/python scripts/build_stack.py

wheel-test: $(VENV)/.dev  ## build the wheel, install it in an empty environment, import every module of it
	$(BIN)/python scripts/test_wheel.py

e2e: $(VENV)/.dev  ## prove every query of the dashboards on the real servers (builds them once)
	$(BIN)/python -m e2e
	UNDERLAY_STACK_TESTS=1 $(BIN)/python -m pytest -q tests/stack -m stack

e2e-grafana: $(VENV)/.dev  ## put the same queries to a running Grafana (underlay stack up, with a container engine)
	$(BIN)/python -m e2e.grafana

bench: $(VENV)/.dev  ## measure what a call costs and what concurrent callers gain, beside the bare client
	$(BIN)/python -m benchmarks

clean:  ## remove what the commands above made
	rm -rf $(VENV) dist build .demo .underlay .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage*
