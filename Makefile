# Each target creates .venv with pip if it is missing or older than pyproject.toml. LOCKED=1 installs the versions and
# hashes of requirements-lock.txt, as CI does; without it the newest that pyproject.toml admits.

PYTHON ?= python3
BIN := .venv/bin
PARALLEL := -n auto --dist worksteal
DEMO := mnist5k_resnet20 mnist5k_inception_small mnist5k_mlp mnist5k_lenet5
FOUR := demo/runs demo/exports demo/latency.json

unexport PYTHONDONTWRITEBYTECODE  # pytest keeps the tests that it has compiled, which saves ten seconds per process

.PHONY: demo test test-all quick check docs docs-links lock cuda dist release clean

demo: .venv/ready  ## ship a network for 5,000 real digits in three minutes; then four of them compared in every way, and a page of it all
	@rm -rf demo
	@echo "== ship" && $(BIN)/cnnbench ship --dataset mnist5k --budget 3m --out demo/ship
	@echo "== train and test two slow ones, with few epochs" && $(BIN)/cnnbench sweep $(wordlist 1,2,$(DEMO)) --seeds 1 --override trainer.max_epochs=3 --jobs 2 --runs-dir demo/runs
	@echo "== and two fast ones with three seeds" && $(BIN)/cnnbench sweep $(wordlist 3,4,$(DEMO)) --seeds 3 --jobs 2 --runs-dir demo/runs
	@for task in $(DEMO); do \
	  echo "== export $$task" && $(BIN)/cnnbench export demo/runs/$$task --out demo/exports --precision fp32,fp16,int8 || exit; \
	done
	@echo "== verify one again" && $(BIN)/cnnbench verify demo/exports/$(lastword $(DEMO)) --rescore
	@echo "== shift the test images" && $(BIN)/cnnbench robustness demo/runs/*/seed1
	@echo "== latency" && $(BIN)/cnnbench bench demo/exports --precision fp32,fp16,int8 --batch 1,64 --seconds 0.5 --out demo/latency.json
	@echo "== compare"
	@$(BIN)/cnnbench compare $(FOUR)
	@$(BIN)/cnnbench compare $(FOUR) --view precision
	@$(BIN)/cnnbench compare $(FOUR) --pair lenet5,mlp
	@$(BIN)/cnnbench choose $(FOUR) --min-accuracy 98% --max-latency 2ms --max-bytes 1MB
	@$(BIN)/cnnbench choose $(FOUR) --min-accuracy 98% --max-bytes 100kB
	@$(BIN)/cnnbench report $(FOUR) --out demo/report.html

test: .venv/ready .venv-oldest/ready  ## the fast tests: offline, no GPU needed
	$(BIN)/pytest $(PARALLEL)

test-all: .venv/ready .venv-oldest/ready  ## the slow tests too
	$(BIN)/pytest $(PARALLEL) --slow

quick: .venv/ready  ## the fast tests of what differs from the last commit: of each file its own test file, else those of its folder
	@tests=$$({ git diff --name-only --diff-filter=d HEAD; git ls-files --others --exclude-standard; } | while read -r file; do \
	  case $$file in tests/*test_*.py) echo $$file; continue;; cnnbench/*) ;; *) continue;; esac; \
	  file=$${file#cnnbench/}; folder=$$(dirname $$file); own=tests/$$folder/test_$$(basename $${file%.*}).py; \
	  while [ ! -d tests/$$folder ]; do folder=$$(dirname $$folder); done; \
	  if [ -f $$own ]; then echo $$own; elif [ $$folder = . ]; then ls tests/test_*.py; else echo tests/$$folder; fi; \
	  done | sed 's#/\./#/#' | sort -u); \
	  if [ -n "$$tests" ]; then $(BIN)/pytest $$tests; else echo "nothing changed that has tests"; fi

check: .venv/ready  ## what pre-commit and CI run: format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/ready  ## the documentation as pages, in build/docs: every warning is an error, links between pages are checked
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs

docs-links: .venv/ready  ## asks every link to another site; needs a network
	$(BIN)/sphinx-build -W --keep-going -b linkcheck docs build/docs-links

lock:  ## renew requirements-lock.txt, for every platform: needs uv (pip install uv); UPGRADE=1 takes the newest releases
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-annotate \
	  $(if $(UPGRADE),--upgrade) --custom-compile-command "make lock" --quiet --output-file requirements-lock.txt

cuda: .venv/ready  ## ONNX Runtime for NVIDIA GPUs in the place of the one for CPUs; Linux or Windows on x86-64
	$(BIN)/python -m pip uninstall --quiet --yes onnxruntime
	$(BIN)/python -m pip install --quiet 'onnxruntime-gpu>=1.31,<2'

dist: .venv/ready  ## the sdist and the wheel, in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

release: .venv/ready  ## the steps of a release but for publishing: both, installed in fresh environments and used there
	PYTHON=$(BIN)/python .ci/release

clean:  ## everything that a target here made
	rm -rf .venv .venv-oldest demo build dist .mypy_cache .ruff_cache .hypothesis .benchmarks *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cnnbench needs Python 3.11 or newer; try make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip uninstall --quiet --yes onnxruntime-gpu 2>/dev/null  # its files are onnxruntime's: never both
ifdef LOCKED
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
endif
	@touch $@

.venv-oldest/ready: tests/oldest.txt | .venv/ready  ## numpy, Pillow and the oldest ONNX Runtime that bundles are tested on
	@rm -rf .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -r tests/oldest.txt
	@touch $@
