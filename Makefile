# One command shows torchward at work, one checks it. Both make the virtual environment that they need.
#
#   make demo     learn CartPole, draw its curve, film it
#   make ladder   from a text to a model that was rewarded: pretraining, fine-tuning, GRPO, a report
#   make test     ruff, mypy, mkdocs, pytest: all that a change must pass
#   make docs     the book as a site, in site/
#   make bench-env  .venv-peers: what torchward is measured against (benchmarks/README.md)
#
# PYTHON=python3.12 chooses an interpreter, VENV=path another place, PYTEST_ARGS="-k returns" some of the tests.

VENV ?= .venv
TORCH ?= torch>=2.7,<2.14
WORKERS ?= 2

# The first interpreter that is new enough and can make virtual environments.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$python; break; fi; done)

BIN := $(VENV)/bin
DEMO_RUN := runs/demo

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo ladder test lint types docs tests bench-env

help:
	@sed -n 's/^#   //p' Makefile

# The stamps make a second call quick; a change of pyproject.toml installs anew, without making a new environment.
$(VENV)/.torch:
	@test -n "$(PYTHON)" || { echo "make: found no Python 3.11 or newer that has the modules venv and ensurepip." \
		"Install one (on Debian: python3-venv too), or name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON) and installing PyTorch: some minutes, once."
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[classic,plots,tensorboard]"
	@touch $@

$(VENV)/.ladder: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[language,plots,tensorboard]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.demo $(VENV)/.ladder

demo: $(VENV)/.demo
	@rm -rf "$(DEMO_RUN)"
	$(BIN)/torchward train ppo CartPole-v1 --path "$(DEMO_RUN)"
	$(BIN)/torchward watch "$(DEMO_RUN)" --out "$(DEMO_RUN)/video.gif"
	@echo && echo "The policy, the curve and the video:"
	@ls -d "$(DEMO_RUN)/policy" "$(DEMO_RUN)/curve.png" "$(DEMO_RUN)"/*.gif

# What is there already is not done again: `rm -r runs/ladder` to begin anew.
ladder: $(VENV)/.ladder
	$(BIN)/python docs/examples/ladder.py --path runs/ladder

test: lint types docs tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict --quiet

# One thread for each worker: small networks gain nothing from a second, and two workers would fight over the cores.
tests: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

# The peers have an environment of their own: nothing of torchward depends on them.
bench-env: $(VENV)/.dev
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e ".[mujoco]" "$(TORCH)"
	test -x $(VENV)-peers/bin/pip || $(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(VENV)-peers/bin/pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt
