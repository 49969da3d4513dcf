# make demo and make test need python3 (3.10 or newer), a C++ compiler and make; they set up everything else in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# torch's threads must not spin while another program has the core
export OMP_WAIT_POLICY ?= PASSIVE
# processes that run the tests, a file each; some of them run several threads
WORKERS ?= 2
# what an installation is made from: Python files are used where they lie, so a change of one installs nothing
SOURCES := $(shell find csrc kernels -type f -not -name '*.py' -not -name '*.pyc' -not -name '*.md') \
           setup.py pyproject.toml CMakeLists.txt constraints.txt
INSTALL = $(BIN)/pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test test-all packaging lint format sanitize bench compare gpu-check napari weights clean FORCE

help:
	@echo "make demo       install, super-resolve a real EM stack, leave an OME-Zarr and a side-by-side picture in demo/"
	@echo "make extra-train  add the packages that train, pair, noise and finetune need; so for every extra (docs/install.md)"
	@echo "make test       install, run the test suite (minutes)"
	@echo "make test-all   the same with every sweep: interpreted and emulated GPU kernels, long loops; CI runs this"
	@echo "make packaging  build and install the package in every supported way (a few minutes)"
	@echo "make lint       ruff and mypy"
	@echo "make sanitize   the CPU kernels' tests with memory and undefined-behaviour checks"
	@echo "make bench      time everything on this machine"
	@echo "make compare    is this commit slower than the one before (BASE=commit for another)?"
	@echo "make gpu-check  build, test and time the GPU kernels with what is installed (under 8 minutes, no network)"
	@echo "make napari     test the napari plugin in an environment of its own, $(VENV)-napari, and in a real window (needs xvfb)"
	@echo "make weights    train the shipped models (EMSR_DATA=folder of training images)"
	@echo "make clean      remove what these made"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "emsr_fast needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)

# the list of sources, renewed when one comes or goes
$(VENV)/.sources: $(BIN)/python FORCE
	@echo '$(sort $(SOURCES))' | cmp -s - $@ || echo '$(sort $(SOURCES))' > $@

# one stamp per set of packages. Editable: the compiled kernels lie beside the Python files, so that emsr-fast,
# python -m emsr_fast in this folder and torchrun run the same code
$(VENV)/.installed: $(VENV)/.sources $(SOURCES)
	@echo "installing into $(VENV): torch and other packages, then the kernels are compiled; some minutes the first time"
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.sources $(SOURCES)
	@echo "installing into $(VENV): torch and other packages, then the kernels are compiled; some minutes the first time"
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed

# the packages of an extra alone: to install the package again would compile the kernels again
extra-%: $(VENV)/.installed
	$(BIN)/python -m emsr_fast.installing $* | xargs -d '\n' $(INSTALL)

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m 'not packaging and not exhaustive'

test-all: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m 'not packaging'

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
	for stage in 1 2 3 4 5 6 7 8; do $(BIN)/emsr-fast train examples/weights/emsr-x3-small-$$stage.yaml || exit; done
	$(BIN)/python bench/measure/average_weights.py run/emsr-x3-small-3/last.safetensors run/emsr-x3-small-8/last.safetensors \
	  0.7 run/averaged.safetensors
	for name in emsr-x3-small emsr-x3; do \
	  $(BIN)/emsr-fast train examples/weights/$$name.yaml && $(BIN)/python bench/measure/ship_weights.py run/$$name || exit; done

# the CPU kernels' own tests, on every instruction set, with accesses outside memory and undefined operations fatal
SANITIZED := build/sanitize
sanitize: $(VENV)/.installed-dev
	rm -rf $(SANITIZED) && mkdir -p $(SANITIZED) && cp -r emsr_fast $(SANITIZED)/ && rm -f $(SANITIZED)/emsr_fast/_C*.so
	$(BIN)/cmake -S . -B $(SANITIZED)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DEMSR_CUDA=OFF -DEMSR_SANITIZE=ON -DEMSR_OUTPUT_DIR=$(CURDIR)/$(SANITIZED)/emsr_fast \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build $(SANITIZED)/cmake
	for isa in baseline avx2 avx512; do \
	  EMSR_FAST_CPU_ISA=$$isa PYTHONPATH=$(SANITIZED) LD_PRELOAD=$$($(CXX) -print-file-name=libasan.so) \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 $(BIN)/pytest -p no:cacheprovider -q \
	    tests/ops/test_atrous.py tests/ops/test_conv3x3.py tests/ops/test_edge_gate.py tests/ops/test_upsample_to_image.py tests/ops/test_window_attention.py \
	    -k 'matches_reference or strides or batch or not_a_number' || exit; \
	done

# the commit that passed last, or BASE, against HEAD, side by side
compare: $(VENV)/.installed-dev
	$(BIN)/python bench/guard/compare.py $(BASE)

bench: $(VENV)/.installed-dev
	$(BIN)/pytest bench --benchmark-enable --benchmark-only

# with the packages of $(PYTHON): a machine with a GPU may have no network
gpu-check:
	$(PYTHON) bench/gpu/check.py

# beside the packages of $(VENV), which it sees: nothing else needs Qt. The screen is one in memory
$(VENV)-napari/.installed: $(VENV)/.installed-dev
	$(BIN)/python -m venv $(VENV)-napari
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  > $$($(VENV)-napari/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages-of-the-tests.pth
	$(VENV)-napari/bin/pip install --disable-pip-version-check --quiet --constraint constraints.txt napari pyqt6
	@touch $@

napari: $(VENV)-napari/.installed
	@command -v xvfb-run > /dev/null || { echo "make napari needs a screen in memory and OpenGL in software:" \
	  "apt-get install xvfb libegl1 libgl1-mesa-dri libxkbcommon-x11-0 libdbus-1-3 libxcb-cursor0 libxcb-icccm4" \
	  "libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 libxcb-xinerama0"; exit 2; }
	$(VENV)-napari/bin/python -m pytest -m napari tests/napari/test_plugin.py tests/napari/test_window.py

clean:
	rm -rf $(VENV) $(VENV)-napari build dist demo emsr_fast/_C*.so *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
