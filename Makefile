# `make` lists the targets. Every step leaves a stamp in the virtual environment, so repeated calls are instant.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check -qq
# Left to the user: a model (default: SmolLM2-135M-Instruct), more options of the command, an index for torch.
MODEL  ?=
ARGS   ?=
TORCH_INDEX ?=
# How long `make soak` lasts (1800), and each target of `make fuzz` (60); which of them (default: all), or of
# `make mutate`.
SECONDS ?=
TARGET  ?=

NATIVE := $(wildcard CMakeLists.txt) $(shell find tenon/kernels -name '*.cpp' -o -name '*.h' -o -name '*.txt' -o -name '*.cmake')

.PHONY: help serve chat test test-long soak fuzz mutate check format coverage native docs clean distclean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

serve: $(VENV)/.tenon ## serve a model on 127.0.0.1:8000 (MODEL=..., ARGS='--port 9000')
	@$(if $(MODEL),,$(BIN)/tenon pull smollm2 &&) exec $(BIN)/tenon serve $(MODEL) $(ARGS)

chat: $(VENV)/.tenon ## talk to a model in the terminal (MODEL=...)
	@exec $(BIN)/tenon chat $(MODEL) $(ARGS)

test: $(VENV)/.tenon $(VENV)/.test ## run the tests (ARGS='-k engine')
	@$(BIN)/tenon pull smollm2
	@$(BIN)/tenon pull minilm
	@scripts/browser.sh || true
	$(BIN)/python -m pytest -q $(ARGS)

test-long: $(VENV)/.tenon $(VENV)/.test ## the long tests, about an hour: machines, simulations, faults (ARGS='-k prefix')
	@$(BIN)/tenon pull smollm2
	$(BIN)/python -m pytest -q -m long $(ARGS)

soak: $(VENV)/.tenon $(VENV)/.test ## a server under mixed load, disconnects and kills for SECONDS, then what is left behind
	$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),1800) $(ARGS)

fuzz: $(VENV)/.tenon $(VENV)/.test $(VENV)/.fuzz ## damaged inputs for whatever reads them (TARGET=gguf SECONDS=600)
	$(BIN)/python -m fuzz $(TARGET) --seconds $(or $(SECONDS),60) $(ARGS)

mutate: $(VENV)/.tenon $(VENV)/.test $(VENV)/.mutation ## small faults in the code, which its tests have to notice (TARGET=parse)
	$(BIN)/python scripts/mutate.py $(or $(TARGET),sampling) $(ARGS)

check: $(VENV)/.tenon $(VENV)/.test $(VENV)/.dev ## format, lint, types and architecture, in under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	find tenon/kernels -name '*.cpp' -o -name '*.h' | xargs -r $(BIN)/clang-format --dry-run -Werror
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(VENV)/.dev ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix --select I .
	$(BIN)/ruff format .
	find tenon/kernels -name '*.cpp' -o -name '*.h' | xargs -r $(BIN)/clang-format -i

coverage: $(VENV)/.tenon $(VENV)/.test ## line coverage of every file of tenon/; fails when one is under 80 %
	@$(BIN)/tenon pull smollm2
	@$(BIN)/tenon pull minilm
	@scripts/browser.sh || true
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest -q $(ARGS); status=$$?; \
	$(BIN)/python -m coverage combine -q; $(BIN)/python -m coverage report; \
	$(BIN)/python scripts/coverage_floor.py 80 && exit $$status

native: ## rebuild the native kernels now (`make serve` and `make test` do it when their sources changed)
	@rm -f $(VENV)/.tenon
	@$(MAKE) --no-print-directory $(VENV)/.tenon

docs: $(VENV)/.tenon ## regenerate docs/reference from the code
	$(BIN)/python scripts/cli_reference.py
	$(BIN)/python scripts/sampling_reference.py
	$(BIN)/python scripts/routes_reference.py
	$(BIN)/python scripts/limits_reference.py
	$(BIN)/python scripts/errors_reference.py
	$(BIN)/python scripts/models_reference.py

clean: ## remove build products and caches
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis htmlcov .coverage .coverage.*
	find tenon tests scripts -name __pycache__ -prune -exec rm -rf {} +
	find tenon -name '*.so' -delete
	rm -f $(VENV)/.tenon

distclean: clean ## also remove the virtual environment
	rm -rf $(VENV)

$(VENV)/.base:
	@scripts/preflight.sh $(PYTHON)
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# What builds the native module lives in the environment too, so that a later build redoes only what changed.
$(VENV)/.build: $(VENV)/.base pyproject.toml constraints.txt
	@$(PIP) install -c constraints.txt cmake ninja -r <($(BIN)/python scripts/requirements.py build-system)
	@touch $@

# Editable: Python files run from the working tree, the native module from the environment.
$(VENV)/.tenon: $(VENV)/.build pyproject.toml $(NATIVE)
	@echo "installing tenon and building its native kernels (a minute or two)"
	@PATH="$(abspath $(BIN)):$$PATH" scripts/alive.sh $(PIP) install -c constraints.txt --no-build-isolation -e '.[server,hub]'
	@$(BIN)/python -m compileall -q tenon
	@touch $@

$(VENV)/.test: $(VENV)/.base pyproject.toml constraints.txt
	@echo "installing what the tests need"
	@$(if $(TORCH_INDEX),$(PIP) install --no-deps -c constraints.txt --index-url $(TORCH_INDEX) torch)
	@$(PIP) install -c constraints.txt \
	  -r <($(BIN)/python scripts/requirements.py test)
	@touch $@

$(VENV)/.fuzz: $(VENV)/.base pyproject.toml constraints.txt
	@$(PIP) install -c constraints.txt -r <($(BIN)/python scripts/requirements.py fuzz)
	@touch $@

$(VENV)/.mutation: $(VENV)/.base pyproject.toml constraints.txt
	@$(PIP) install -c constraints.txt -r <($(BIN)/python scripts/requirements.py mutation)
	@touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml constraints.txt
	@$(PIP) install -c constraints.txt -r <($(BIN)/python scripts/requirements.py dev)
	@touch $@

SHELL := /bin/bash
