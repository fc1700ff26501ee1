# Two commands on a fresh machine: `make serve` and `make test`. Both create .venv and install into it on first use.

PYTHON ?= python3
PORT ?= 8000
HOST ?= 127.0.0.1

VENV := .venv
BIN := $(VENV)/bin
# pip warns about its own age and stays silent about what matters here.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install install-batch install-speech install-train serve test test-slow test-cluster test-without lint format bench bench-serve reproduce audit clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

install: $(VENV)/installed  ## create .venv with what captioning and serving need

install-train: $(VENV)/installed-train  ## add what training and measuring need

install-batch: $(VENV)/installed-batch  ## add what reads URLs and HEIC, and what writes Parquet

install-speech: $(VENV)/installed-speech  ## add what speaking needs

serve: install  ## serve captions over HTTP (PORT=8000, HOST=127.0.0.1)
	$(BIN)/captioner serve --host $(HOST) --port $(PORT)

# A file's tests share what is costly to make, so they stay in one process.
test: $(VENV)/installed-dev  ## run the tests with branch coverage
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --cov --cov-report=term

test-slow: $(VENV)/installed-dev  ## run the tests that make test leaves out, as they take long
	$(BIN)/python -m pytest -m slow

test-cluster: $(VENV)/installed-cluster  ## run the tests of captioning on a cluster, which need Ray
	$(BIN)/python -m pytest tests/captioner/batch/test_cluster*.py

# Environments that lack an engine, and the models that tests need where it is torch.
APART := $(VENV)/apart
ENGINE ?= torch
TESTS ?= tests
# What an engine brings; torch exports through onnx.
OF_torch := torch torchvision onnx
OF_onnxruntime := onnxruntime
OF_openvino := openvino openvino-telemetry
OF_runtimes := $(OF_onnxruntime) $(OF_openvino)

test-without: $(VENV)/installed-dev  ## run the tests where an engine is missing (ENGINE=torch, onnxruntime, openvino or runtimes)
	$(BIN)/python tests/without.py $(APART)/$(ENGINE) $(OF_$(ENGINE))
	$(BIN)/python tests/prepared.py $(APART)/prepared
	$(APART)/$(ENGINE)/bin/python -m pytest --prepared=$(APART)/prepared $(TESTS)

lint: $(VENV)/installed-dev  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-dev  ## mend what style checks can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-bench  ## measure what a caption costs, beside captioners of transformers and the arithmetic
	$(BIN)/python benchmarks/speed.py

bench-serve: $(VENV)/installed-bench  ## measure the server under load, beside plain Flask and LitServe
	$(BIN)/python benchmarks/serve.py

# Every step takes up what it finds of itself, so an interrupted run goes on where it was.
DATA ?= flickr8k
RUNS ?= runs
TRAIN = $(BIN)/python -m training.train --resume
ENCODER ?= imagenet

reproduce: $(VENV)/installed-train $(VENV)/installed-speech  ## train the bundled model words from nothing (DATA=flickr8k, RUNS=runs, ENCODER=imagenet)
	$(TRAIN) --recipe words-base --data $(DATA) --output $(RUNS)/words-base --set encoder_weights=$(ENCODER)
	test -d $(RUNS)/spoken || { rm -rf $(RUNS)/spoken.partial && \
		$(BIN)/python -m training.prepare --data $(DATA) --output $(RUNS)/spoken.partial --phones --boundaries && \
		mv $(RUNS)/spoken.partial $(RUNS)/spoken; }
	$(TRAIN) --recipe phones --data $(RUNS)/spoken --output $(RUNS)/phones --set encoder_weights=$(ENCODER)
	$(TRAIN) --recipe words-teacher --data $(DATA) --output $(RUNS)/words-teacher-1 \
		--set encoder_weights=$(RUNS)/words-base/model
	$(TRAIN) --recipe words-teacher --data $(DATA) --output $(RUNS)/words-teacher-2 \
		--set encoder_weights=$(RUNS)/phones/model --set seed=12
	$(TRAIN) --recipe words --data $(DATA) --output $(RUNS)/words --set start=$(RUNS)/words-teacher-1/model \
		--set 'teachers=["$(RUNS)/words-base/model", "$(RUNS)/words-teacher-1/model", "$(RUNS)/words-teacher-2/model"]'

audit: $(VENV)/audit/bin/pip-audit  ## look up known vulnerabilities of the pinned packages; asks the package index
	$< --disable-pip --no-deps --requirement requirements-speech.txt --requirement requirements-train.txt --requirement requirements-cluster.txt

clean:  ## remove .venv and what tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

# A stamp is written last: an interrupted installation is taken up again.
$(VENV)/installed: requirements.txt requirements-serve.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	# As a path, so that the folder of this name is not taken for the package where one stands beside it.
	$(PIP) --no-deps --editable . --config-settings editable_mode=compat
	touch $@

$(VENV)/installed-speech: $(VENV)/installed requirements-speech.txt
	$(PIP) -r requirements-speech.txt
	touch $@

$(VENV)/installed-train: $(VENV)/installed requirements-train.txt
	$(PIP) -r requirements-train.txt
	touch $@

$(VENV)/installed-batch: $(VENV)/installed requirements-batch.txt
	$(PIP) -r requirements-batch.txt
	touch $@

$(VENV)/installed-cluster: $(VENV)/installed-dev requirements-cluster.txt
	$(PIP) -r requirements-cluster.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-train requirements-batch.txt requirements-speech.txt requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@

$(VENV)/installed-bench: $(VENV)/installed-dev requirements-bench.txt
	$(PIP) -r requirements-bench.txt
	touch $@

# Apart: what it needs is not pinned here.
$(VENV)/audit/bin/pip-audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
