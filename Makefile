# Everything runs in .venv, which the first command makes: with the package alone for make demo, and with what the other
# commands need on top.
PYTHON ?= python3
BIN := .venv/bin
RUN := runs/demo
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test pipelines oldest lint docs dist wheels clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	@echo "installing into .venv (a minute or two)"
	@# Without an NVIDIA GPU, the CPU build of torch, a twentieth of the size; where it cannot be had, the next line's.
	@command -v nvidia-smi >/dev/null || $(PIP) --retries 0 torch --extra-index-url https://download.pytorch.org/whl/cpu 2>/dev/null || true
	$(PIP) --editable .
	@touch $@

.venv/test: .venv/ready
	$(PIP) --editable '.[test]'
	@touch $@

.venv/dev: .venv/ready
	$(PIP) --editable '.[dev]'
	@touch $@

demo: .venv/ready
	$(BIN)/python main.py --mode train --config digits --workdir $(RUN)
	$(BIN)/python main.py --mode train_classifier --workdir $(RUN)
	for sampler in heun dpmpp pc; do $(BIN)/python main.py --mode sample --workdir $(RUN) --sampler $$sampler || exit 1; done
	$(BIN)/python main.py --mode likelihood --workdir $(RUN) --num_samples 128
	$(BIN)/python main.py --mode likelihood --workdir $(RUN) --num_samples 128 --split train
	$(BIN)/python main.py --mode compare --workdir $(RUN)
	@echo
	@echo "The run is in $(RUN): open report.html, compare/compare.html, and the digits in samples/."

test: .venv/test
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup

# What needs transformers, which make test leaves out unless it is there.
.venv/latent: .venv/test
	$(PIP) --editable '.[latent]'
	@touch $@

pipelines: .venv/latent
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup tests/sde/pretrained/pipelines tests/sde/text/test_transformers_text.py tests/score_sde/test_pipeline_runs.py

oldest: .venv/test
	$(PYTHON) -m venv .venv-oldest
	$(BIN)/python -m tests.lower_bounds > .venv-oldest/constraints.txt
	@echo "installing the oldest versions allowed into .venv-oldest (torch brings CUDA: several GB)"
	.venv-oldest/bin/python -m pip install --quiet -c .venv-oldest/constraints.txt --editable '.[test]'
	@# Sharding over CPUs, part of the one launch that tests/sde/test_parallel.py makes, needs a newer torch.
	.venv-oldest/bin/python -m pytest -q -n 2 --dist loadgroup --ignore tests/sde/test_parallel.py

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# python docs/sampler_pages.py makes the samplers' pages again where a class has changed; a test says when.
docs: .venv/dev
	$(BIN)/sphinx-build -q -W --keep-going docs site
	@echo "The documentation is in site/index.html."

dist: .venv/dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation . >/dev/null
	$(BIN)/python -m tests.distribution

# What a machine without a network may lack: benchmarks/device.py takes it from there, diffusers for comparison.
wheels: .venv/ready
	rm -rf wheels
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -c constraints.txt --dest wheels ml_collections torchsde trampoline diffusers==0.42.1

clean:
	rm -rf .venv .venv-oldest .mypy_cache .pytest_cache .ruff_cache build dist site wheels *.egg-info
