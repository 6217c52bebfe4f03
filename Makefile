PYTHON ?= python3
ARGS ?=
JOBS ?= 2
FLOORS := ops runtime importers tools
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Links that show the floors as onnxgrad.*, for what does not know the editable install.
LINKS := rm -rf build/types && mkdir -p build/types/onnxgrad && \
  ln -s $(addprefix "$(CURDIR)"/,$(wildcard onnxgrad/*) $(FLOORS)) build/types/onnxgrad
.PHONY: help .venv demo test check format operators gpu clean

help:  ## list the targets
	@sed -nE 's/^([.a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.venv: .venv/stamp  ## make the environment; again when pyproject.toml or setup.py changed

# The editable install maps whole folders: a new file is importable without another install.
.venv/stamp: pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,serve,explain,dev]'
	touch $@

demo: .venv  ## the main job on the model that ships in the package
	.venv/bin/onnxgrad demo

test: .venv  ## run the tests, on 2 cores (JOBS=8: on 8); ARGS='-k conv -x' goes to pytest, on one
	.venv/bin/pytest $(or $(ARGS),-n $(JOBS))

check: .venv  ## lint, format, types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(LINKS)
	cd tests && ../.venv/bin/mypy --config-file ../pyproject.toml -p onnxgrad \
	  | sed -E 's,^[^:]*build/types/,,; s,^onnxgrad/($(subst $() ,|,$(FLOORS)))/,\1/,'

format: .venv  ## let ruff fix what it can
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

operators: .venv  ## write docs/operators.md again, after a change of bindings
	mkdir -p build && .venv/bin/python -m onnxgrad.tools.operators > build/operators.md && mv build/operators.md docs/operators.md

gpu: $(if $(GPU_PYTHON),,.venv)  ## test and measure on a CUDA device; GPU_PYTHON=python3 uses an image's own packages
	$(LINKS)
	PYTHONPATH="$(CURDIR)/build/types:$(CURDIR)" $(or $(GPU_PYTHON),.venv/bin/python) -m tests.gpu_session $(ARGS)

clean:  ## remove everything that make made
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(FLOORS) onnxgrad tests -name __pycache__ -type d -prune -exec rm -rf {} +
