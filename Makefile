# Everything there is to run. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint e2e bench format chart lock clean

help:  ## List the commands
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1|\2/p' Makefile | column -t -s '|'

demo: $(READY)  ## Run the digits study on this machine alone
	$(BIN)/halvard run examples/digits/study.yaml

test: $(READY)  ## Everything that needs no root: unit, simulation, and a real etcd and kube-apiserver
	$(BIN)/python -m pytest

e2e: $(READY)  ## A whole cluster on this machine (root, Debian), with Studies running on it
	$(BIN)/python -m pytest tests/e2e

bench: $(READY)  ## Measure: ratios against a peer or a limit in the same run
	$(BIN)/python -m benchmarks

lint: $(READY)  ## Format, style, types, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chart: $(READY)  ## Make the chart's CRDs and dashboard, and docs/values.md
	$(BIN)/python helm/make_chart.py
	$(BIN)/python helm/dashboard.py > helm/halvard/files/dashboard.json

lock: $(READY)  ## Pin the dependencies anew
	$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements.lock
	$(BIN)/uv pip compile -q pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o requirements-dev.lock

clean:  ## Remove what the commands above made in this folder
	rm -rf .venv results build dist

$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
