# `make` alone lists the targets. They need only python3 (3.11 to 3.13) and its pip: everything
# else goes into .tools/ and .venv/, from the lock file with hashes, and only when that changed.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run submit test test-fast faults mutants lint golden lock images wheels test-images kind-test bench clean

PYTHON ?= python3
DATA ?=
INCIDENTS ?=
SEED ?= 42
ROLLOUT ?= yes
KUBEFLOW ?=
ENGINE ?= docker
BASE ?=
REGISTRY ?=
PIP_CONF ?=
INSTALL ?=
ONLY ?=
ARGS ?=

READY := .venv/.ready
BIN := .venv/bin
UV := .tools/bin/uv
export PYTHONPATH :=

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make run DATA=telemetry.csv INCIDENTS=incidents.json   on your own telemetry"
	@echo "  make run SEED=7                                        simulate with another seed"
	@echo "  make run ROLLOUT=no                                    leave the two rollouts out"
	@echo "  make submit KUBEFLOW=http://localhost:8080             the same on a cluster"
	@echo "  make images ENGINE=podman BASE=python:3.11-slim-bookworm@sha256:...   docs/images.md"

$(UV): requirements-bootstrap.lock
	@echo "setting up: the installer"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"python3 is {v[0]}.{v[1]}, this project needs 3.11 to 3.13: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action ignore \
		--upgrade --target .tools --require-hashes --requirement $<
	@touch $@

$(READY): requirements.lock pyproject.toml $(UV)
	@echo "setting up: the libraries of requirements.lock (about 2 GB, a minute or two)"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip sync --quiet --compile-bytecode --require-hashes requirements.lock
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

test: export EVERY_EXAMPLE = 1
test: $(READY) ## Run every test, the fast ones first
	@$(BIN)/pytest -q -x
	@$(BIN)/pytest -q -m "train or slow or pipeline or server or go" --durations=10
	@$(BIN)/pytest -q -m cluster tests/cluster --durations=10

test-fast: $(READY) ## Run the tests of pure logic: a minute
	@$(BIN)/pytest -q

faults: $(READY) ## Try every fault of the operator in full numbers: an hour and a half
	@$(BIN)/python -m benchmarks.reported_faults
	@$(BIN)/python -m benchmarks.faults -n 2

mutants: $(READY) ## Break the pure modules in small ways and see which tests notice (ONLY='dwcp_ml.rollout.analysis*')
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2 $(if $(ONLY),'$(ONLY)')
	@$(BIN)/mutmut results | grep survived || echo "no mutant survived"

lint: $(READY) ## Style, types, imports, and no logic on the text of a message
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python tools/check_messages.py

golden: $(READY) ## Write again what is generated and committed: schema, pipeline, reference
	@$(BIN)/python docs/generate.py

lock: $(UV) ## Pin the newest allowed libraries, with hashes and without an index address
	@echo "uv" | $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header -o requirements-bootstrap.lock -
	@$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --all-extras -o requirements.lock pyproject.toml
	@$(PIN) --extra train --extra serve --extra pipeline --extra s3 --extra gs --extra az --extra http \
		-o images/requirements-trainer.lock pyproject.toml
	@$(PIN) --extra serve -o images/requirements-server.lock pyproject.toml
	@$(PIN) --extra operator -o images/requirements-operator.lock pyproject.toml
	@printf 'hatchling\nsetuptools\n' | $(PIN) -o images/requirements-build.lock -

# Of each image, what requirements.lock pins of it.
PIN = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate -c requirements.lock

IMAGES := trainer server operator
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' dwcp_ml/__init__.py)
SOURCES := dwcp_ml components pipelines images pyproject.toml requirements.lock
REVISION = $(shell commit=$$(git rev-parse --verify HEAD 2>/dev/null) && \
	echo $$commit$$(git status --porcelain -- $(SOURCES) | sed -n '1s/.*/-dirty/p'))
TAG = $(if $(REGISTRY),$(REGISTRY)/)dwcp-ml-
COMMA := ,
# With wheels at hand the build is cut off from any network.
BUILD = $(ENGINE) build --file images/Containerfile \
	--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
	$(if $(BASE),--build-arg BASE=$(BASE)) $(if $(PIP_CONF),--secret id=pip.conf$(COMMA)src=$(PIP_CONF)) \
	$(if $(wildcard images/wheels/*.whl),--network=none) $(ARGS)

# The trainer has a second name, the one in the pipeline: Kubeflow's local runner looks for "python".
images: export DOCKER_BUILDKIT = 1
images: ## Build the three container images (ENGINE=, BASE=, REGISTRY=, PIP_CONF=)
	@set -e; for image in $(IMAGES); do \
		echo "$(TAG)$$image:$(VERSION)"; \
		$(BUILD) --target $$image --tag $(TAG)$$image:$(VERSION) .; \
		if [ $$image = trainer ]; then \
			$(ENGINE) tag $(TAG)trainer:$(VERSION) $(TAG)trainer-python:$(VERSION); \
		fi; \
	done

wheels: ## Download what the images are made of, for a build without a network
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.platform == "linux" else "make wheels: on Linux only, with the python3 of the images; docs/images.md says how in a container.")'
	@for lock in images/requirements-*.lock; do \
		$(PYTHON) -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
			--dest images/wheels --requirement $$lock || exit; \
	done

test-images: $(READY) ## Run the images, confined as on a cluster (root; ENGINE=docker or podman)
	@ENGINE=$(ENGINE) $(BIN)/pytest -q -n 0 -m image tests/images --durations=10

kind-test: $(READY) ## Try all of it on a Kubernetes of kind, and remove that again (KEEP=1, DRY_RUN=1, STEPS=, OFFLINE=1)
	@$(if $(OFFLINE),$(BIN)/python -m tests.kind.offline $(if $(filter yes,$(INSTALL)),--install),tests/kind/run.sh) $(STEPS)

bench: $(READY) ## Measure everything again; the tables in benchmarks/ come from here
	@$(BIN)/python -m benchmarks

clean: ## Remove what make made, the runs excepted
	rm -rf .venv .tools .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
