# make demo and make test need python3 (3.10 or newer), a C++ compiler and make; they set up everything else in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# torch's threads must not spin while another program has the core
export OMP_WAIT_POLICY ?= PASSIVE
SOURCES := $(shell find emsr_fast csrc kernels -type f -not -name '*.pyc' -not -name '*.so') \
           setup.py pyproject.toml CMakeLists.txt constraints.txt

.PHONY: help demo test packaging lint format bench weights clean FORCE

help:
	@echo "make demo       install, super-resolve a real EM stack, leave an OME-Zarr and a side-by-side picture in demo/"
	@echo "make test       install, run the test suite"
	@echo "make packaging  build and install the package in every supported way (a few minutes)"
	@echo "make lint       ruff and mypy"
	@echo "make bench      time the operators on this machine"
	@echo "make weights    train the shipped models (EMSR_DATA=folder of training images)"
	@echo "make clean      remove what these made"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "emsr_fast needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)

# the list of sources, renewed when one comes or goes
$(VENV)/.sources: $(BIN)/python FORCE
	@echo '$(sort $(SOURCES))' | cmp -s - $@ || echo '$(sort $(SOURCES))' > $@

# one stamp per set of packages: a change of the sources installs again
$(VENV)/.installed: $(VENV)/.sources $(SOURCES)
	$(BIN)/pip install --quiet --constraint constraints.txt .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.sources $(SOURCES)
	$(BIN)/pip install --quiet --constraint constraints.txt '.[dev]'
	touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed-dev
	$(BIN)/pytest -m 'not packaging and not slow'

packaging: $(VENV)/.installed-dev
	$(BIN)/pytest -m packaging tests

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# EMSR_DATA is the folder with the training images; hours on a CPU
weights: $(VENV)/.installed-dev
	test -d "$(EMSR_DATA)" || (echo "set EMSR_DATA to the folder with the training images"; exit 2)
	for name in emsr-x3-small emsr-x3; do \
	  $(BIN)/emsr-fast train examples/weights/$$name.yaml && $(BIN)/python bench/ship_weights.py run/$$name || exit; done

bench: $(VENV)/.installed-dev
	$(BIN)/pytest bench --benchmark-enable --benchmark-only

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
