# Two commands on a fresh machine do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What has been set up: to use it, and to work on it.
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
PIP_FLAGS :=
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt
EXTRAS := dev

.PHONY: demo test check lint types floors bench clean

# Phantom images through the whole job, with the encoder that needs no weights.
demo: $(READY)
	$(BIN)/embed demo --out demo

# Three files at a time on two cores, since tests of processes wait for these, and one thread for each: threads of several
# processes on few cores wait for each other.
test: $(DEV_READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

check: lint types floors test

lint: $(DEV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_READY)
	$(BIN)/mypy

floors: $(DEV_READY)
	$(BIN)/lint-imports --config setup.cfg

bench: $(DEV_READY)
	for script in $(filter-out benchmarks/simulat%, $(wildcard benchmarks/*.py)); do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) demo build *.egg-info

# Set up once, and again when what is needed changes. torch comes first and alone: its pinned release is the
# CPU build, and later packages then find their need of torch met.
$(READY): setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch==2.13.0
	$(INSTALL) -e .
	touch $(READY)

$(DEV_READY): $(READY)
	$(INSTALL) -e ".[$(EXTRAS)]"
	touch $(DEV_READY)
