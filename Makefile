# Two commands for a fresh machine: make demo, make test. Each sets up what it needs.

PYTHON ?= python3.11
TORCH_INDEX ?=
LOCK ?=

BIN := .venv/bin
STAMP := .venv/.set-up
CPU_TORCH := $(shell sed -n 's/^torch==\([^ ]*\).*/\1/p' locks/cpu.txt)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# A file whose sha256 is not in a lock is refused, wherever it comes from. Building takes what
# locks/build.txt has installed, and fetches nothing.
# On a terminal, pip shows what it downloads and installs; a log gets errors only.
INSTALL := $(PIP) install $(if $(MAKE_TERMOUT),--progress-bar on,--quiet --quiet) --no-build-isolation
LOCKED := --require-hashes --only-binary :all: --no-binary deepspeed
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help setup demo docs test test-long check bench bench-peers chaos lab mutants sampled nightly oldest pictures fuzz lock wheel wheelhouse clean

help:  ## this list
	@echo "transloom trains translation Transformers on a Ray cluster. Begin with: make demo"
	@echo
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r target says; do printf '%-20s%s\n' "$$target" "$$says"; done
	@echo
	@echo "  PYTHON=python3.12   another Python, 3.11 to 3.13 (when .venv is made)"
	@echo "  DATA=FOLDER         where the files of Multi30k are, for make test and make bench-peers"
	@echo "  ARGS=OPTIONS        more options of make bench-peers, such as \"--models tiny --rounds 1\""
	@echo "  TORCH_INDEX=URL     package index with torch's build for CPU, besides the usual one"
	@echo "  LOCK=cpu, LOCK=cuda which of the locks to install (when .venv is made); else cpu if an"
	@echo "                      index offers torch's build for CPU, or cuda"

setup: $(STAMP)  ## make .venv with everything pinned; says whether for CPU or CUDA
	@$(BIN)/python scripts/which_device.py

$(STAMP): pyproject.toml $(wildcard locks/*.txt) hatch_build.py
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON). Name one from 3.11 to 3.13: make setup PYTHON=..."; exit 1; }
	@echo "Setting up .venv (once, takes minutes)"
	@$(PYTHON) -m venv .venv
	@lock=$(LOCK); if [ -z "$$lock" ]; then \
		$(PIP) index versions torch $(INDEX) 2>/dev/null | grep -qF '$(CPU_TORCH)' \
			&& lock=cpu || lock=cuda; fi; \
		echo $$lock >.venv/lock; $(BIN)/python scripts/sizes.py $$lock .venv
	@echo "  1 of 2: the packages of the lock, each with the sha256 that it must have"
	@$(INSTALL) $(LOCKED) -r locks/build.txt
	@$(INSTALL) $(LOCKED) $(INDEX) -r locks/$$(cat .venv/lock).txt
	@echo "  2 of 2: transloom itself"
	@$(INSTALL) --no-index --no-deps --editable .
	@$(PIP) check >/dev/null || { $(PIP) check; \
		echo "The locks lack what pyproject.toml asks for. Renew them: make lock"; exit 1; }
	@touch $@

lock:  ## renew the locks from pyproject.toml (TORCH_INDEX=URL: that for CPU, too)
	@[ -x $(BIN)/uv ] || $(MAKE) --no-print-directory setup
	@TORCH_INDEX=$(TORCH_INDEX) scripts/lock

wheel: setup  ## transloom's wheel with a lock for its installation without a clone, into dist/
	@$(BIN)/python scripts/build_wheel.py

wheelhouse: setup  ## all files for machines without network, into wheelhouse/, with their install
	@TORCH_INDEX=$(TORCH_INDEX) scripts/wheelhouse $(LOCK)

demo: setup  ## train on the built-in phrase book, then translate (3 minutes on 2 cores)
	@$(BIN)/transloom demo

docs: setup  ## the documentation site, into build/site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "Open build/site/index.html, or serve it: $(BIN)/python -m http.server --directory build/site"

test: setup  ## the unit tests, and one complete run for each promise (7 minutes on 2 cores)
	@$(if $(DATA),TRANSLOOM_TEST_DATA=$(abspath $(DATA))) scripts/test

test-long: setup  ## the other tests of CI: Ray, browsers, commands of the documentation, fresh environments
	@$(if $(DATA),TRANSLOOM_TEST_DATA=$(abspath $(DATA))) scripts/test --long

check: setup  ## lint, format, types, the direction of imports, and the launches of a step
	@scripts/check

bench: setup  ## measure: path cost, data plane with its peers, recovery, checkpoints, preparing
	@for script in path_cost data_plane/data_plane data_plane/many_shards time_to_submit \
			recovery/recovery checkpoint_stall finite_flag exact_cost "prepare_scale --pairs 300000"; do \
		echo "== $$script"; set -- $$script; name=$$1; shift; \
		$(BIN)/python benchmarks/$$name.py "$$@" || exit 1; done

bench-peers: setup  ## training speed beside Eole and Hugging Face (1 hour; DATA=FOLDER: Multi30k)
	@$(BIN)/python benchmarks/peers/peers.py $(if $(DATA),--data $(DATA)) $(ARGS)

chaos: setup  ## the long fault injections
	@$(BIN)/pytest -m "chaos and not gpu and not lab"

lab: setup  ## tests on hosts in namespaces, under Slurm, in a browser, with SeaweedFS; installs them (Debian, root)
	@scripts/lab

fuzz: setup  ## mutate files of all formats for long, and renew the table in docs/explanation/fuzzing.md
	@$(BIN)/python scripts/fuzz $(if $(CASES),--cases $(CASES)) $(if $(MINUTES),--minutes $(MINUTES)) --table

mutants: setup  ## plant known bugs in a copy and say which of them no test sees (before a release)
	@$(BIN)/python scripts/mutants

sampled: setup  ## plant 200 bugs drawn at random (SEED=N; by default the date)
	@$(BIN)/python scripts/mutants --sample 200 --seed $(or $(SEED),$(shell date +%Y%m%d))

nightly: setup  ## chaos, lab, mutants, fuzz, oldest and same_bits; goes on where it stopped (TARGETS="chaos lab")
	@$(BIN)/python scripts/nightly $(TARGETS)

oldest: setup  ## tests with the oldest versions that pyproject.toml allows (before a release)
	@scripts/oldest

pictures: setup  ## renew the pictures of README and docs, and the example of alignments (Chromium)
	@$(BIN)/python scripts/screenshots $(RUNS)
	@$(if $(RUNS),,$(BIN)/python scripts/one_curve_picture)

clean:  ## remove caches and builds; .venv, datasets and runs stay
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -path ./.git -prune -o -name __pycache__ -type d \
		-exec rm -rf {} +
