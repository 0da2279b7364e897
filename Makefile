# make demo     train VGG16-DS on the embedded digits, compare float and simulated 8-bit quantization
# make test     format, lint, types, doctests and tests: minutes, fewer once what they compile is kept
# make test-all and those that start, kill and wait for processes
# make docs     the documentation as a site, in runs/docs/docs/index.html
# make bench    speed and memory on this CPU beside torch and onnxruntime: half an hour
# make verify   the same numbers as the original project, on reference data (see docs/training.md)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MARKED := not reference and not system

.PHONY: demo test test-all types units sharding docs verify bench test-lowest test-newest lock torch

demo: $(READY)
	$(BIN)/python experiments/compare.py --dataset=digits --models vgg16ds --epochs=7 --batch_size=32 --learning_rate=0.02 --out=runs/demo

# Types and the tests of sharding run beside the others.
test-all: MARKED := not reference
test-all: EXAMPLES := --hypothesis-profile=default
test-all: docs
test test-all: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --jobs=3 types units sharding MARKED='$(MARKED)' EXAMPLES='$(EXAMPLES)'

types:
	$(BIN)/mypy

units:
	$(BIN)/pytest -m '$(MARKED)' $(EXAMPLES) --numprocesses=auto --maxprocesses=4 --dist=worksteal

# A process has one number of devices: four here, one elsewhere.
sharding:
	$(BIN)/pytest -m '$(MARKED)' tests/sharding

# Strict: a warning is an error. Nothing is fetched.
docs: $(READY)
	$(BIN)/sphinx-build -q -W --keep-going -c docs . runs/docs
	@echo "site: runs/docs/docs/index.html"

verify: $(READY)
	$(BIN)/pytest -m reference -rsP tests/reference

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"python3 is {sys.version.split()[0]}, expected 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Beside torch and onnxruntime, which it installs.
bench: $(READY)
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python benchmarks/cpu.py --json=runs/bench/cpu.json
	$(BIN)/python benchmarks/compile.py --json=runs/bench/compile.json
	$(BIN)/python benchmarks/weights.py --json=runs/bench/weights.json
	$(BIN)/python benchmarks/channels.py --json=runs/bench/channels.json
	$(BIN)/python benchmarks/kernels.py --json=runs/bench/kernels.json
	$(BIN)/python benchmarks/artifact.py --json=runs/bench/artifact.json
	$(BIN)/python benchmarks/scale.py --json=runs/bench/scale.json

# The optional extra that reads the original project's .pth files.
torch: $(READY)
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet -e '.[torch]'

# The tests once more with the oldest and the newest packages that pyproject.toml admits, as test-newest PYTHON=python3.13.
test-lowest: RESOLUTION = lowest-direct
test-newest: RESOLUTION = highest
test-lowest test-newest:
	$(PYTHON) -m venv .venv-$@
	.venv-$@/bin/python -m pip install --quiet uv
	.venv-$@/bin/uv pip compile --quiet --resolution=$(RESOLUTION) --extra=dev pyproject.toml -o .venv-$@/requirements.txt
	.venv-$@/bin/python -m pip install --quiet -r .venv-$@/requirements.txt
	.venv-$@/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	.venv-$@/bin/pytest -m 'not reference' -W default --numprocesses=auto --maxprocesses=4 --dist=worksteal  # other versions warn of other things
	.venv-$@/bin/pytest -m 'not reference' -W default tests/sharding

lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version=3.11 --fork-strategy=requires-python --generate-hashes --no-annotate --extra=dev pyproject.toml -o requirements.lock
