# make demo     train VGG16-DS on the embedded digits, compare float and simulated 8-bit quantization
# make test     format, lint, types, doctests and tests
# make bench    speed and memory on this CPU beside torch and onnxruntime: half an hour
# make verify   the same numbers as the original project, on reference data (see the README)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test verify bench test-lowest test-newest lock torch

demo: $(READY)
	$(BIN)/python experiments/compare.py --dataset=digits --models vgg16ds --epochs=7 --batch_size=32 --learning_rate=0.02 --out=runs/demo

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

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
	.venv-$@/bin/pytest -W default --numprocesses=auto --maxprocesses=4 --dist=loadfile  # other versions warn of other things

lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --fork-strategy=fewest --generate-hashes --no-annotate --extra=dev pyproject.toml -o requirements.lock
