# Everything there is to run. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
PEERS := .venv-peers/bin
PEERS_READY := .venv-peers/ready

.DEFAULT_GOAL := help
.PHONY: help demo test lint e2e chaos chaos-cluster bench bench-engine bench-quality format chart lock clean

help:  ## List the commands
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/make \1|\2/p' Makefile | column -t -s '|'

demo: $(READY)  ## Run the digits study on this machine alone
	$(BIN)/halvard run examples/digits/study.yaml

test: $(READY)  ## Everything that needs no root: unit, simulation, and a real etcd and kube-apiserver
	$(BIN)/python -m pytest

e2e: $(READY)  ## A whole cluster on this machine (root, Debian), with Studies running on it
	$(BIN)/python -m pytest tests/e2e

chaos: $(READY)  ## Kill operators and break their API server, 19 minutes (MINUTES=30, ARGS="--seed 7 …")
	PYTHONPATH=tests $(BIN)/python -m chaos --minutes $(or $(MINUTES),19) $(ARGS)
	HALVARD_FUZZED=10000 $(BIN)/python -m pytest -q tests/unit/test_fuzzed_reports.py

chaos-cluster: $(READY)  ## Troubles of all kinds on a whole cluster, 30 minutes (root, Debian; MINUTES=5)
	PYTHONPATH=tests $(BIN)/python -m chaos.long_run --minutes $(or $(MINUTES),30) $(ARGS)

bench: $(READY)  ## Measure: ratios against a peer or a limit in the same run
	$(BIN)/python -m benchmarks

bench-engine: $(PEERS_READY)  ## Measure what a decision costs, beside its peers (ARGS=--short: two minutes)
	$(PEERS)/python -m benchmarks.engine $(ARGS)

bench-quality: $(PEERS_READY)  ## Measure how good the search is, beside its peers (hours; ARGS=--short: minutes)
	$(PEERS)/python -m benchmarks.quality $(ARGS)

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
	$(BIN)/uv pip compile -q pyproject.toml benchmarks/peers.in -c requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--no-emit-package nvidia-nccl-cu12 --no-emit-package nvidia-nccl-cu13 -o requirements-peers.lock

clean:  ## Remove what the commands above made in this folder
	rm -rf .venv .venv-peers results build dist

$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

# What the peers need that nothing here uses (300 MB for several GPUs) is left out of the lock: hence no dependencies.
$(PEERS_READY): requirements-peers.lock pyproject.toml
	$(PYTHON) -m venv .venv-peers
	$(PEERS)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-peers.lock
	$(PEERS)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(PEERS_READY)
