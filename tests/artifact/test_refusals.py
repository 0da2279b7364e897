"""Files that are not read, and why; what a save that dies leaves behind."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.artifact import sections as coding
from nncompress_jax.artifact.reader import opened
from tests.fuzz import files
from tests.weights.cases import draw

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "a.nnc"
    nnc.save(path, {"a": {"kernel": nnc.compress({"k": draw((30, 40), 0)})["k"]}, "b": draw((5,), 1)})
    return path


def refused(path, content, **options):
    path.write_bytes(content)
    with pytest.raises(nnc.ArtifactError) as refusal:
        nnc.load(path, **options)
    line = str(refusal.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


def test_a_newer_version_says_so(whole):
    content = bytearray(whole.read_bytes())
    content[8] = 3
    assert "format 3, newer than this library's, which is 2; update nncompress-jax" in refused(whole, bytes(content))
    content[8] = 2
    assert "format 2 with a header of format 1" in refused(whole, bytes(content))


def test_another_kind_of_file(whole):
    for content in (b"", b"PK\x03\x04 a zip", whole.read_bytes().replace(b"\r\n", b"\n", 1)):
        assert "expected b'\\x89NNC" in refused(whole, content)


def test_every_truncation_and_every_byte(whole):
    content = whole.read_bytes()
    for size in range(len(content)):
        refused(whole, content[:size])
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 16
        refused(whole, bytes(changed))


def test_it_names_the_section(whole):
    content = bytearray(whole.read_bytes())
    content[-50] ^= 1
    assert "section 2, b: its checksum is another" in refused(whole, bytes(content))


def test_terabytes_are_refused_before_they_are_allocated(whole):
    nnc.save(whole, {"a": np.zeros((100, 100), np.int8)})
    header, sections = files.split(whole.read_bytes())
    files.sections_of(header)[0]["shape"] = [2**20, 2**21]
    tracemalloc.start()
    line = refused(whole, files.joined(header, sections))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "declares 2,199,023,255,552 bytes of arrays, more than the" in line
    assert peak < 2**20
    files.sections_of(header)[0]["shape"] = [100, 100]
    line = refused(whole, files.joined(header, sections), max_bytes=100)
    assert "declares 10,000 bytes of arrays, more than the 100 that may be; see max_bytes=" in line


def test_a_header_that_swells(whole):
    """A megabyte of nested brackets, and zeros that deflate to little."""
    for text in (b"[" * 10**6, b'{"variables":' + b" " * 2**23 + b"1}", b'{"variables": NaN}', b"\xff", b"[1]"):
        assert "header" in refused(whole, files.framed(text, []))


@pytest.mark.parametrize("depth", [100, 300, 400, 450, 600, 900, 5000])
def test_a_header_that_is_nested_deep(whole, depth):
    """It is read up to some depth, and then refused: never by a stack that overflows."""
    nnc.save(whole, {"a": np.ones(3)})
    header, sections = files.split(whole.read_bytes())
    inner = json.dumps(header["variables"])
    text = '{"variables":' + '{"list":[' * depth + inner + "]}" * depth + "}"
    found = files.outcome(whole, files.framed(text.encode(), sections))
    assert found == "loaded" or "header" in found
    assert (found == "loaded") == (depth < 200) or 200 < depth < 900


@pytest.mark.parametrize(
    ("name", "part", "value", "message"),
    [
        ("others", "positions", lambda a: a[::-1].copy(), "expected ascending ones"),
        ("others", "positions", lambda a: a + 500, "of 600, expected ascending"),
        ("groups", "positions.parts", lambda a: a * 0, "or twice the same"),
        ("others", "codes.parts", lambda a: a | 255, "bits behind the last code"),
        ("three", "c.codes.parts", lambda a: a | 255, "bits behind the last code"),
        ("integers", "scale", lambda a: a[..., :5], "scale \\[1, 5\\] for codes"),
        ("kept", "scale", lambda a: a.astype(np.float64), "expected float32"),
    ],
)
def test_arrays_that_no_program_may_see(whole, name, part, value, message):
    """Their checksums are right."""
    whole.write_bytes(files.originals()[name])
    with opened(whole) as file:
        (place, path), *_ = [(i, path) for i, (path, _) in enumerate(file.sections) if path.endswith(part)]
        array = [*file.arrays()][place]
    header, sections = files.split(whole.read_bytes())
    section, payload = coding.encode(value(array))
    described = files.sections_of(header)[place]
    described.clear()
    described |= section.to_dict()
    sections[place] = payload
    line = refused(whole, files.joined(header, sections))
    assert re.search(message, line)
    assert path.partition(".")[0] in line


def test_only_known_names(whole):
    header, sections = files.split(whole.read_bytes())
    header["variables"]["dict"]["a"]["dict"]["kernel"]["weight"]["type"] = "os.system"
    assert "'os.system' is no compressed weight; expected one of Binary" in refused(
        whole, files.joined(header, sections)
    )
    header["model"] = "os"
    del header["variables"]["dict"]["a"]
    header["image_shape"] = [32, 32, 3]
    assert "unknown model 'os'; choose one of" in refused(whole, files.joined(header, sections[2:]))


def test_loading_holds_little_more_than_the_weights(tmp_path):
    """Many sections of a megabyte, decoded one by one."""
    random = np.random.default_rng(0)
    weights = {f"{i:02}": np.clip(random.normal(0, 20, (1024, 1024)), -127, 127).astype(np.int8) for i in range(12)}
    nnc.save(tmp_path / "a.nnc", weights)
    nnc.load(tmp_path / "a.nnc")
    with opened(tmp_path / "a.nnc") as file:
        tracemalloc.start()
        arrays = [*file.arrays()]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert sum(array.nbytes for array in arrays) == 12 * 2**20
    assert peak < (12 + 1 + 5) * 2**20  # one section as it is stored, and pieces of 2^18 symbols in a few forms


KILLED = """
import os, random, signal, sys, time
import numpy as np
import nncompress_jax as nnc

path, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
versions = [{"a": np.random.default_rng(i).normal(0, 30, (300, 1000)).astype(np.int8)} for i in (0, 1)]
random.seed(seed)
begin = time.perf_counter()
nnc.save(path, versions[0])
span, new = time.perf_counter() - begin, 0
for i in range(count):
    child = os.fork()
    if not child:
        nnc.save(path, versions[1 - i % 2])
        os._exit(0)
    time.sleep(random.uniform(0, 1.3 * span))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    held = nnc.load(path).variables["a"]
    found = [(held == version["a"]).all() for version in versions]
    assert any(found), "neither the old file nor the new one"
    new += bool(found[1 - i % 2])
print("whole after", count, "kills,", new, "of them with the new file")
"""


@pytest.mark.system
def test_a_killed_save_leaves_a_whole_file(tmp_path):
    """The old one, or the new one."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "a.nnc"), "50", "0"],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": ""},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("whole after 50 kills")


def test_files_of_version_1_load_for_ever():
    """Written by the first version of the format, with a type and a coding of every kind."""
    apply, variables, info = nnc.load(DATA / "format-1.nnc", apply=lambda v, x: x @ nnc.decompress(v)["a"]["kernel"])
    expected = np.load(DATA / "format-1.npz")
    leaves = dict(zip(expected.files, jax.tree.leaves(nnc.decompress(variables)), strict=True))
    for name, leaf in leaves.items():
        assert np.asarray(leaf).tobytes() == expected[name].tobytes()
    assert (info.library, info.recipe, info.class_names) == ("0.1.0", "of every kind", ("x", "y"))
    assert json.loads(json.dumps(info.to_dict()))["accuracy"] == 0.5
    assert apply(variables, jnp.ones((1, 16))).shape == (1, 24)
