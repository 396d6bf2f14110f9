# Every target makes .venv with pip if it is missing or older than pyproject.toml, and goes on.

PYTHON ?= python3
BIN := .venv/bin
DEMO := mlp lenet5 resnet20 inception_small

.PHONY: demo test test-all check clean

demo: .venv/ready  ## train, test, export, prove, time and compare four networks on 5,000 real digits
	@rm -rf demo
	@for arch in $(DEMO); do \
	  echo "== $$arch" && \
	  $(BIN)/cnnbench fit --config mnist5k_$$arch --runs_dir demo/runs && \
	  $(BIN)/cnnbench test --config mnist5k_$$arch --runs_dir demo/runs && \
	  $(BIN)/cnnbench export demo/runs/mnist5k_$$arch --out demo/exports --variants fp32,fp16,int8 && \
	  $(BIN)/cnnbench verify demo/exports/mnist5k_$$arch --rescore || exit; \
	done
	@echo "== latency"
	@$(BIN)/pytest -q tests/benchmarks --bundles demo/exports --benchmark-enable --benchmark-quiet \
	  --benchmark-json demo/latency.json
	@$(BIN)/cnnbench compare demo
	@$(BIN)/cnnbench compare demo --variants

test: .venv/ready .venv-oldest/ready  ## the fast tests: offline, no GPU needed
	$(BIN)/pytest

test-all: .venv/ready .venv-oldest/ready  ## the slow tests too
	$(BIN)/pytest --slow

check: .venv/ready  ## what pre-commit and CI run: format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:  ## everything that a target here made
	rm -rf .venv .venv-oldest demo build dist .mypy_cache .ruff_cache .hypothesis .benchmarks *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cnnbench needs Python 3.11 or newer; try make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv-oldest/ready: tests/oldest.txt | .venv/ready  ## numpy, Pillow and the oldest ONNX Runtime that bundles are tested on
	@rm -rf .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -r tests/oldest.txt
	@touch $@
