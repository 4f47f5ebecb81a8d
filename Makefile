CORES ?= all
# Trainings take turns on a GPU; without one they share the cores.
GPUS ?= $(if $(shell nvidia-smi -L 2>/dev/null | grep '^GPU '),1,$(shell nproc))
WORKERS ?= 2
ARGS ?=

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# These write into the home folder otherwise.
export KERAS_HOME ?= $(CURDIR)/.cache/keras
export MPLCONFIGDIR ?= $(CURDIR)/.cache/matplotlib
export XDG_CACHE_HOME ?= $(CURDIR)/.cache

.PHONY: help env run test test-slow test-slurm lint cost config-docs graph screenshot check-simulation check-tiles check-estimators bench scaling hybrid adversary holes

help: ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
	@echo "CORES=$(CORES) GPUS=$(GPUS): what 'run' takes at once. WORKERS=$(WORKERS): of 'test'. ARGS=: more for snakemake or pytest."

env: ## build the environment, .venv, where it is not current
	@envs/bootstrap

run: env ## run config/config.yaml and write the report
	snakemake all --cores $(CORES) --resources gpu=$(GPUS) $(ARGS)
	@echo "report: results/report/index.html"

test: env ## run the tests
	pytest -m "not slow and not slurm" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: env ## run the slow tests: other backends, published sizes, memory, benchmarks
	pytest -m slow $(ARGS) || [ $$? = 5 ] # 5: there are none

test-slurm: env ## run the tests on a Slurm, installed and started here
	envs/slurm || [ $$? = 77 ] # 77: it cannot be had here, and the tests are skipped
	pytest -m slurm $(ARGS)

lint: env ## check style, workflow and types
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint
	mypy

config-docs: env ## regenerate what is made from the settings models
	python -m skyweave.config

graph: env ## draw docs/rulegraph.svg
	snakemake --rulegraph dot all | dot -Tsvg -o docs/rulegraph.svg

screenshot: env ## picture the report of the last run as docs/report.png
	python tests/browser.py results/report/index.html docs/report.png

check-simulation: env ## hold the simulation against published numbers and CAMB: docs/simulation.md
	OMP_NUM_THREADS=1 python -m skyweave.tasks.simulation_checks docs/simulation.md

check-tiles: env ## cut a sky in tiles and put it together again: docs/tiles.md
	python -m skyweave.tasks.tile_checks docs/tiles.md

check-estimators: env ## hold quadratic estimators against simulations and theory: docs/estimators.md
	OMP_NUM_THREADS=1 python -m skyweave.tasks.estimator_checks docs/estimators.md

hybrid: env ## train on estimates beside the published network: docs/hybrid.md
	snakemake reconstruction --cores $(CORES) --configfile config/studies/hybrid_cpu.yaml \
		--config 'pathvars={results: results/hybrid}' $(ARGS)
	python -m skyweave.tasks.hybrid_page results/hybrid docs/hybrid.md

adversary: env ## train against discriminators in several ways: docs/adversary.md
	snakemake decomposition --cores $(CORES) --configfile config/studies/adversary.yaml \
		--config 'pathvars={results: results/adversary}' $(ARGS)
	python -m skyweave.tasks.adversary_page results/adversary docs/adversary.md

holes: env ## fill holes from nothing, from their edges and from the optimum: docs/holes.md
	snakemake inpainting --cores $(CORES) --configfile config/studies/holes.yaml \
		--config 'pathvars={results: results/holes}' $(ARGS)
	python -m skyweave.tasks.holes_page results/holes docs/holes.md

bench: env ## run benchmarks/ and make docs/benchmarks.md
	python -m benchmarks
	python -m benchmarks.page

scaling: env ## plan large studies from what was measured: docs/scaling.md
	snakemake datasets --cores 1 --configfile benchmarks/scaling.yaml
	python -m benchmarks.scaling

cost: env ## print time and memory of the last run, by rule
	python -m skyweave.report.cost results
