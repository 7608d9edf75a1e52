# make        set up, run the whole lineage (dvc repro), print where the report is
# make test   set up, run every test
# make help   every target
.DEFAULT_GOAL := all
SHELL := /bin/bash
.PHONY: all setup test lint lock graph clean help check-system

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
PACKAGES := data tokenizer model eval align
STAMP := $(VENV)/.set-up

export DVC_NO_ANALYTICS := 1
# Where it is set, every process compiles torch and Megatron anew: 7 s of CPU before its first line instead of 3.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)
# TORCH_BACKEND=cpu takes PyTorch's own CPU index, for a machine with open internet and no GPU.
TORCH_BACKEND ?=
# Torch is pinned apart from the lock, since a CPU build's hash is not the registry's; so is what its CUDA build brings.
TORCH_BRINGS := triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
  cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
# uv does not read pip's configuration: hand it pip's find-links, if there are any, at run time (empty is
# harmless). Without it uv would take torch's multi-gigabyte CUDA build where pip has a CPU build on disk.
UV := VIRTUAL_ENV=$(VENV) UV_FIND_LINKS="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$($(PYTHON) -m pip config get global.find-links 2>/dev/null)}}" uv

all: setup ## set up, run the lineage at params.yaml's scale, print the report's path
	@dvc repro
	@echo "report: $(CURDIR)/report/index.html"

setup: $(STAMP) ## the virtual environment with the locked requirements and the five packages

$(STAMP): requirements/lock.txt requirements/torch.txt $(PACKAGES:%=packages/%/pyproject.toml) | check-system
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV) pip install --quiet --require-hashes --no-deps -r requirements/lock.txt
	@$(UV) pip install --quiet $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) -r requirements/torch.txt
	@$(UV) pip install --quiet --no-deps $(PACKAGES:%=-e packages/%)
	@touch $@

check-system: # what a fresh machine may lack, with the command that brings it
	@command -v $(PYTHON) >/dev/null || { echo "python 3.11 is missing: apt-get install python3.11 python3.11-venv (or make PYTHON=/path/to/python3.11)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || { echo "$(PYTHON) is older than 3.11: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "python's venv module is missing: apt-get install python3.11-venv"; exit 1; }
	@command -v c++ >/dev/null || { echo "a C++ compiler is missing: apt-get install g++"; exit 1; }
	@command -v git >/dev/null || { echo "git is missing: apt-get install git"; exit 1; }

test: setup ## every test: contracts, lineage, kills, and each package's own tests in an environment of its own
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python -m pytest tests -n 2 --dist loadscope --no-loadscope-reorder

lint: setup ## ruff, mypy, and who may import whom
	@ruff check . && ruff format --check . && mypy && lint-imports --no-logo

lock: setup ## resolve requirements/lock.txt anew from the packages' own requirements
	@$(UV) pip compile --extra test packages/*/pyproject.toml requirements/dev.in -c requirements/torch.txt \
	  --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-find-links --no-emit-index-url --quiet -o requirements/lock.txt \
	  $(addprefix --no-emit-package ,torch $(TORCH_BRINGS))

graph: setup ## the lineage as a Mermaid graph
	@dvc dag --mermaid

clean: ## remove what runs made (not the environment, not DVC's cache)
	rm -rf artefacts runs report work

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16
