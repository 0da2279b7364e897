"""A fuzzer that follows the branches of the reader: python -m tests.fuzz.guided CORPUS_FOLDER -runs=100000

Needs atheris, which pip has for Linux. The first byte chooses: the whole file, its header as JSON, or one section of
it; checksums of what is changed inside are made right, so that what is behind them is reached.
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["nncompress_jax.artifact", "nncompress_jax.weights"]):
    from tests.fuzz import files

WHOLE = files.originals()
PARTS = [files.split(file) for file in WHOLE.values()]
SLOTS = [(header, sections, i) for header, sections in PARTS for i in range(len(sections))]
FILE = Path(tempfile.mkdtemp(), "a.nnc")


def of(data: bytes) -> bytes:
    """The file that an input stands for."""
    kind, data = data[0], data[1:]
    if kind == 0:
        return data
    if kind <= len(PARTS):
        header = json.loads(data)
        return files.joined_as_said(header, PARTS[kind - 1][1]) if isinstance(header, dict) else b""
    header, sections, place = SLOTS[(kind - 1 - len(PARTS)) % len(SLOTS)]
    return files.joined(json.loads(json.dumps(header)), [*sections[:place], data, *sections[place + 1 :]])


def test_one_input(data: bytes) -> None:
    """Any exception but a refusal is a finding."""
    try:
        file = of(data)
    except (IndexError, ValueError, RecursionError):  # no JSON
        return
    files.outcome(FILE, file)


def write_seeds(folder: Path) -> None:
    """One input for each file, header and section."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [b"\0" + file for file in WHOLE.values()]
    seeds += [bytes([1 + i]) + json.dumps(header).encode() for i, (header, _) in enumerate(PARTS)]
    seeds += [bytes([1 + len(PARTS) + i]) + sections[place] for i, (_, sections, place) in enumerate(SLOTS)]
    for i, seed in enumerate(seeds):
        (folder / f"seed{i}").write_bytes(seed)


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
