# One page of everything that is done with this repository. `make` alone prints it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
DOCS    ?= .venv-docs
OUT     ?= runs/glyphs
DATA    ?= glyphs
ARGS    ?=

.PHONY: help setup run test test-slow test-faults mutants golden lint format help-texts docs wheel bench-main bench-headline bench-sweep bench-verify bench-audit bench-codelength bench-paper-tables bench-training bench-decoder bench-step bench-gpu bench-data bench-processes bench-saving bench-letters bench-samples bench-defaults bench-profile bench-before bench-mutants bench-architectures bench-ecosystem clean

help:  ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# Re-done only when what is to be installed changes.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is older than 3.11; name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || { echo "setting up $(VENV) (about 1 GB, minutes; only the first time)"; $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[metrics,dev]'
	@touch $@

setup: $(STAMP)  ## Create .venv and install the project into it (the targets below do it themselves)

run: $(STAMP)  ## The main job on the embedded pictures: train both stages, evaluate, write the report
	$(BIN)/unilat train $(DATA) --out $(OUT) $(ARGS)

test: $(STAMP)  ## All tests that take seconds, file by file on up to four processors
	$(BIN)/python -m pytest -q -n auto --maxprocesses=4 --dist loadfile $(ARGS)

test-slow: $(STAMP)  ## The tests that take minutes
	$(BIN)/python -m pytest -q -m slow $(ARGS)

test-faults: $(STAMP)  ## Kill, starve and deceive the command line: benchmarks/results/faults.json (an hour; ARGS="--minutes 20")
	OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python -m tests.faults --write $(ARGS)

mutants: $(STAMP)  ## Break the library one line at a time and see the tests notice (half an hour)
	$(BIN)/python tests/mutants.py $(ARGS)

golden: $(STAMP)  ## Write tests/golden/*.json again after a change that is meant to move numbers
	$(BIN)/python tests/golden_runs.py

lint: $(STAMP)  ## ruff and pyright, as pinned
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)  ## Let ruff mend what it can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

help-texts: $(STAMP)  ## Write docs/help/*.txt again after the command line changed
	$(BIN)/python tests/test_cli_help.py

# An environment of its own: the pages need no torch, and CI's need no zensical.
$(DOCS)/.installed: constraints.txt
	@test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -c constraints.txt zensical
	@touch $@

docs: $(DOCS)/.installed  ## Build the docs site: site/index.html; stops at a broken link
	$(DOCS)/bin/python docs/site.py build/pages
	$(DOCS)/bin/zensical build --strict --clean
	@echo "site/index.html; to read it: $(PYTHON) -m http.server --directory site"

wheel:  ## Build sdist and wheel, install the wheel into an empty environment and train there (minutes): build/wheel/dist
	rm -rf build/wheel
	$(PYTHON) tests/wheel.py build/wheel

bench-main: $(STAMP)  ## Measure the claims of the main job: benchmarks/results/main.json and .md
	$(BIN)/python benchmarks/main.py $(ARGS)

bench-headline: $(STAMP)  ## Unified Latents against KL-VAE latents on equal footing (six hours a data set; ARGS=--quick: two; goes on)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt stlpips-pytorch==0.0.2
	$(BIN)/python benchmarks/headline.py $(ARGS)

bench-sweep: $(STAMP)  ## Advice on held-out budgets, and whether cheap runs rank as full ones (hours; ARGS=--quick: 80 minutes; goes on)
	$(BIN)/python benchmarks/sweep.py $(ARGS)

bench-verify: $(STAMP)  ## Bits against closed forms, a run's slack, Shannon's bound: benchmarks/results/verify.json and .md
	$(BIN)/python benchmarks/verify.py $(ARGS)

bench-paper-tables: $(STAMP)  ## The paper's Tables 2 to 6 at the scale of two cores (hours; goes on where it stopped)
	$(BIN)/python benchmarks/paper_tables.py $(ARGS)

bench-audit: $(STAMP)  ## Audits: planted faults, Gaussian latents: benchmarks/results/audit.json and .md
	$(BIN)/python benchmarks/audit.py $(ARGS)

bench-codelength: $(STAMP)  ## Latent bits + decoder bits against a pixel model, PNG, WebP and JPEG XL
	$(BIN)/python benchmarks/codelength.py $(ARGS)

bench-training: $(STAMP)  ## What the training recipe is worth, part by part, to equal loss and distance (an hour; goes on)
	$(BIN)/python benchmarks/training.py $(ARGS)

bench-before: $(STAMP)  ## `make run` beside itself before the fast path: time and quality (half an hour; needs git's history)
	$(BIN)/python benchmarks/before.py $(ARGS)

bench-architectures: $(STAMP)  ## The same bits through convolutions, a ViT and a UViT (half an hour; goes on where it stopped)
	$(BIN)/python benchmarks/architectures.py $(ARGS)

bench-ecosystem: $(STAMP)  ## What loads where, FID beside others', the page, --from (hours; ARGS=--quick: minutes)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt torchmetrics==1.9.0 lightning-utilities==0.15.3
	$(BIN)/python benchmarks/ecosystem.py $(ARGS)

bench-step: $(STAMP)  ## The fast path beside plain PyTorch: step, FLOP rates, memory, pixels, data, start (ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/step.py $(ARGS)

# On a borrowed machine there may be no package index: whatever Python is at hand, with torch and our dependencies.
bench-gpu:  ## One GPU: steps of the presets, glyphs, bits in bf16, resuming (eight minutes; needs no network)
	PYTHONPATH=src:$(PYTHONPATH) $(firstword $(wildcard $(BIN)/python) $(PYTHON)) benchmarks/gpu.py $(ARGS)

bench-data: $(STAMP)  ## Reading what does not fit in memory: speed, index, memory, resuming, lost workers (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/data.py $(ARGS)

bench-processes: $(STAMP)  ## Two processes beside one: losses, weights, memory of a sharded state, speed (ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/processes.py $(ARGS)

bench-letters: $(STAMP)  ## What `make run` makes: letters named, distance, PSNR, minutes (8 minutes a seed, both cores)
	$(BIN)/python benchmarks/letters.py $(ARGS)

bench-samples: $(STAMP)  ## Samples of Fashion-MNIST and of emoji, 32 and 64 wide, their sheets and figures (two hours; goes on)
	$(BIN)/python benchmarks/samples.py $(ARGS)

bench-saving: $(STAMP)  ## What a save costs the steps beside it (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/saving.py $(ARGS)

bench-defaults: $(STAMP)  ## Networks, grid and shares of time of `small`, on Fashion-MNIST and emoji (an hour of one core; goes on)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/defaults.py $(ARGS)

bench-profile: $(STAMP)  ## Where a step's time goes, operator by operator: benchmarks/profiles/*.txt
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/operators.py $(ARGS)

bench-decoder: $(STAMP)  ## Quality against network calls, before and after distilling; speed beside diffusers (an hour)
	$(BIN)/python benchmarks/decoder.py $(ARGS)

bench-mutants: $(STAMP)  ## Which slips the tests see, room by room: benchmarks/results/mutants.json (an hour)
	$(BIN)/python benchmarks/mutants.py $(ARGS)

clean:  ## Remove the virtual environment and caches; never runs/
	rm -rf $(VENV) $(DOCS) .pytest_cache .ruff_cache .hypothesis .cache build dist site
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
