# `make` alone lists the targets. They need only python3 (3.11 to 3.13) and its pip: everything
# else goes into .tools/ and .venv/, from the lock file with hashes, and only when that changed.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run submit test test-fast faults lint golden lock bench clean

PYTHON ?= python3
DATA ?=
INCIDENTS ?=
SEED ?= 42
ROLLOUT ?= yes
KUBEFLOW ?=
ARGS ?=

READY := .venv/.ready
BIN := .venv/bin
UV := .tools/bin/uv
export PYTHONPATH :=

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make run DATA=telemetry.csv INCIDENTS=incidents.json   on your own telemetry"
	@echo "  make run SEED=7                                        simulate with another seed"
	@echo "  make run ROLLOUT=no                                    leave the two rollouts out"
	@echo "  make submit KUBEFLOW=http://localhost:8080             the same on a cluster"

$(UV): requirements-bootstrap.lock
	@echo "setting up: the installer"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"python3 is {v[0]}.{v[1]}, this project needs 3.11 to 3.13: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action ignore \
		--upgrade --target .tools --require-hashes --requirement $<
	@touch $@

$(READY): requirements.lock pyproject.toml $(UV)
	@echo "setting up: the libraries of requirements.lock (about 2 GB, a minute or two)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip sync --quiet --require-hashes requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY) ## Simulate telemetry (or take DATA=), train, prove, export, judge, roll out
	@$(BIN)/dwcp-ml pipeline run --seed $(SEED) $(if $(DATA),--data-path "$(DATA)") \
		$(if $(INCIDENTS),--incidents-path "$(INCIDENTS)") \
		$(if $(filter no,$(ROLLOUT)),--no-rollouts,--rollouts) $(ARGS)

submit: $(READY) ## Run the compiled pipeline on Kubeflow (KUBEFLOW=URL), wait for the gate
	@$(BIN)/dwcp-ml pipeline submit --wait $(if $(KUBEFLOW),--host "$(KUBEFLOW)") \
		--argument seed=$(SEED) $(if $(DATA),--argument "data_path=$(DATA)") \
		$(if $(INCIDENTS),--argument "incidents_path=$(INCIDENTS)") $(ARGS)

test: $(READY) ## Run every test, the fast ones first
	@$(BIN)/pytest -q -x
	@$(BIN)/pytest -q -m "train or slow or pipeline or server or go" --durations=10
	@$(BIN)/pytest -q -m cluster tests/cluster --durations=10

test-fast: $(READY) ## Run the tests of pure logic: a minute and a half
	@$(BIN)/pytest -q

faults: $(READY) ## Try every fault of the operator in full numbers: an hour and a half
	@$(BIN)/python -m benchmarks.faults -n 2

lint: $(READY) ## Style, types, and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

golden: $(READY) ## Write again what is generated and committed: schema, pipeline, reference
	@$(BIN)/python docs/generate.py

lock: $(UV) ## Pin the newest allowed libraries, with hashes and without an index address
	@echo "uv" | $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header -o requirements-bootstrap.lock -
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --all-extras -o requirements.lock pyproject.toml

bench: $(READY) ## Measure everything again; the tables in benchmarks/ come from here
	@$(BIN)/python -m benchmarks

clean: ## Remove what make made, the runs excepted
	rm -rf .venv .tools .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
