# make demo, make test: set up .venv if needed, then run. Everything else is for developers.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

export RAY_USAGE_STATS_ENABLED = 0
export FLWR_TELEMETRY_ENABLED = 0

.PHONY: demo test docker-test priors bench check lint format clean help
help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## the main job on bundled data: federation, interception, attacks, report
	$(BIN)/fl-sim demo

test: $(STAMP)  ## every test
	$(PYTEST) -m "not alone"
	$(BIN)/python -m pytest -m alone

docker-test: $(STAMP)  ## a study in containers, with TLS, against the same in one process: minutes; needs Docker
	FL_SIM="$${FL_SIM:-$(BIN)/fl-sim}" PYTHON=$(BIN)/python experiments/deploy/docker_test.sh

priors: $(STAMP)  ## the fitted priors of the study bayes_table5_mnist, in runs/priors
	for kind in gaussian mixture vae; do \
		$(BIN)/fl-sim train-prior --kind $$kind --data mnist --out runs/priors/mnist_$$kind.safetensors || exit 1; \
	done

bench: $(STAMP)  ## speed, measured: two hours on 2 cores; results in experiments/results/speed.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.speed run

check: lint  ## what lint checks, and the fast tests
	$(PYTEST) -m "not slow"

lint: $(STAMP)  ## format, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the virtual environment and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
