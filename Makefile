# Everything a person or CI runs. `make help` lists it.
PYTHON ?= python3
PORT ?= 8000
# Another wheel index for PyTorch, e.g. the one with its CPU wheels; by default the index that pip is set up with.
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
           $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# Measures how long answers take, so nothing else runs meanwhile.
ALONE := tests/system/test_overload.py

.PHONY: help demo bundle test test-system test-ray tools screenshots soak docker-test check lint types floors format clean
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: bundle ## train the demo bundle if it is not there, and serve it on 127.0.0.1:$(PORT)
	@GENREC_LOG_FORMAT=console exec $(BIN)/genrec serve --bundle bundles/demo --port $(PORT)

bundle: bundles/demo/manifest.json ## train the demo bundle on MovieLens-100K

bundles/demo/manifest.json: | $(VENV)/.installed
	$(BIN)/genrec train demo --output bundles/demo

test: $(VENV)/.installed-dev ## fast tests, on all cores with one thread each
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist loadfile

test-system: $(VENV)/.installed-dev tools ## tests with real processes, sockets and whole training runs
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m 'system and not soak' --ignore $(ALONE)
	$(BIN)/pytest -q -m 'system and not soak' $(ALONE)

test-ray: $(VENV)/.installed-dev ## tests with real Ray clusters (about nine minutes)
	$(BIN)/pytest -q -m cluster

soak: $(VENV)/.installed-dev ## the same for longer: overload, stops, reloads, leaks, more models
	$(BIN)/pytest -q -s -m soak

tools: ## what tests use beside Python: a Chromium, and Prometheus
	@scripts/tools.sh

screenshots: $(VENV)/.installed-dev bundle tools ## the pictures in docs/images/, of the demo bundle
	$(BIN)/python scripts/screenshots.py

docker-test: ## the images and compose file in a real Docker engine
	TORCH_INDEX='$(TORCH_INDEX)' scripts/docker_test.sh

check: lint types floors test ## lint, types, import contracts, fast tests

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

floors: $(VENV)/.installed-dev
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environment and caches, not bundles or runs
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# torch goes first and alone: a resolver that meets it later may take a build of several gigabytes
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV) (about two minutes)"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable '.[service,training]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable '.[service,training,otel,ray,dev]'
	@touch $@
