# Two commands for a fresh machine: make demo, make test. Each sets up what it needs.

PYTHON ?= python3.11
TORCH_INDEX ?=

BIN := .venv/bin
STAMP := .venv/.set-up
TORCH := $(shell grep '^torch==' constraints.txt)
# Constraints as a variable, not as -c: so they also hold for what packages are built with.
PIP := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench bench-peers chaos lab mutants clean

help:  ## this list
	@echo "transloom trains translation Transformers on a Ray cluster. Begin with: make demo"
	@echo
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target says; do printf '%-20s%s\n' "$$target" "$$says"; done
	@echo
	@echo "  PYTHON=python3.12   another Python, 3.11 to 3.13 (when .venv is made)"
	@echo "  DATA=FOLDER         where the files of Multi30k are, for make test and make bench-peers"
	@echo "  TORCH_INDEX=URL     package index with torch for your CPU or CUDA version"

setup: $(STAMP)  ## make .venv with everything pinned; says whether for CPU or CUDA
	@$(BIN)/python scripts/which_device.py

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON). Name one from 3.11 to 3.13: make setup PYTHON=..."; exit 1; }
	@echo "Setting up .venv (once; about 2 GB, with CUDA more)"
	@$(PYTHON) -m venv .venv
	@echo "  1 of 2: $(TORCH), the largest part"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@echo "  2 of 2: the other packages, and transloom itself"
	@$(PIP) hatchling editables --editable '.[dev]'
	@touch $@

demo: setup  ## train on the built-in phrase book, then translate (2 minutes on 2 cores)
	@$(BIN)/transloom demo

test: setup  ## the tests, without those that need a GPU and the long fault injections
	@$(if $(DATA),TRANSLOOM_TEST_DATA=$(abspath $(DATA))) scripts/test

check: setup  ## lint, format, types, and the direction of imports
	@scripts/check

bench: setup  ## measure: path cost, data plane with its peers, recovery, checkpoints, preparing
	@for script in path_cost data_plane/data_plane time_to_first_batch recovery/recovery \
			checkpoint_stall finite_flag exact_cost cost_curves/cost_curves "prepare_scale --pairs 300000"; do \
		echo "== $$script"; set -- $$script; name=$$1; shift; \
		$(BIN)/python benchmarks/$$name.py "$$@" || exit 1; done

bench-peers: setup  ## training speed beside Eole and Hugging Face (1 hour; DATA=FOLDER: Multi30k)
	@$(BIN)/python benchmarks/peers/peers.py $(if $(DATA),--data $(DATA))

chaos: setup  ## the long fault injections
	@$(BIN)/pytest -m "chaos and not gpu and not lab"

lab: setup  ## tests on hosts in namespaces, under Slurm, in a browser; installs them (Debian, root)
	@scripts/lab

mutants: setup  ## plant known bugs in a copy and say which of them no test sees (before a release)
	@$(BIN)/python scripts/mutants

clean:  ## remove caches and builds; .venv, datasets and runs stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -path ./.git -prune -o -name __pycache__ -type d \
		-exec rm -rf {} +
