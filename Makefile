# Everything happens in a virtual environment of its own:  make test VENV=/tmp/v PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin

.PHONY: help install quickstart test lint format check clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*##\(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.installed  ## create the environment and install unihap into it

quickstart: $(VENV)/.installed  ## joint training of all five tasks on the embedded data, on a CPU
	$(BIN)/torchrun --nproc-per-node 2 tools/train_net.py --config configs/quick/joint_cpu.yaml --resume DATA.ROOT datasets
	@echo "results: output/joint_cpu/results.json   predictions beside the truth: output/joint_cpu/visualizations/"

test: $(VENV)/.installed-test  ## the test suite, with the renderer of people
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev  ## let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test  ## lint and test

clean:  ## remove the environment, caches and build products; runs in ./output stay
	rm -rf $(VENV) build dist unihap.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("unihap needs Python 3.10 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# A stamp is older than the files that declare the dependencies when these have changed.
$(VENV)/.installed: $(VENV)/.created setup.py pyproject.toml
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created setup.py pyproject.toml
	$(BIN)/python -m pip install --editable ".[test,synth]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(VENV)/.created setup.py pyproject.toml
	$(BIN)/python -m pip install --editable ".[test,synth,dev]"
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test
