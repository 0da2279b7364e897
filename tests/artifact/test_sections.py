"""Any array comes back from its section, and no section is much larger than its entropy."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nncompress_jax.artifact import sections
from nncompress_jax.artifact.symbols import Gaps
from nncompress_jax.leaves import DTYPES
from nncompress_jax.ops.packing import pack

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=30)


def through(array, bits=None):
    section, payload = sections.encode(array, bits)
    section = sections.Section.from_dict(json.loads(json.dumps(section.to_dict())))
    again = sections.decode(section, payload)
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()
    return section, again


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bytes_of_any_kind(data):
    dtype = DTYPES[data.draw(st.sampled_from(sorted(DTYPES)))]
    shape = data.draw(SHAPES)
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kinds = data.draw(st.sampled_from([1, 2, 3, 16, 100, 256]))
    symbols = random.permutation(256)[:kinds].astype(np.uint8)
    if dtype.name in ("bool", "int4", "uint4"):  # a byte of which few values are
        array = (random.choice(symbols, shape) % (2 if dtype.name == "bool" else 8)).astype(dtype)
    else:
        size = int(np.prod(shape)) * dtype.itemsize
        weights = random.dirichlet(np.full(kinds, 0.3))
        array = random.choice(symbols, size, p=weights).tobytes()
        array = np.frombuffer(array, dtype).reshape(shape)
    section, again = through(array)
    entropy, distinct = sections.entropy_bytes(section, again)
    assert section.size_bytes <= 1.002 * entropy + 64 + 2 * distinct


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 70), st.sampled_from([1, 2, 3, 4]), st.integers(0, 2**32))
def test_packed_codes(rows, last, width, seed):
    random = np.random.default_rng(seed)
    codes = random.choice(2**width, (rows, last), p=random.dirichlet(np.full(2**width, 0.5))).astype(np.uint8)
    through(pack(codes, width), (width, last))
    through(pack(codes.ravel(), width), (width, rows * last))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=300, unique=True), st.booleans())
def test_places(places, near):
    places = np.sort(np.array(places) % 5000 if near else np.array(places) % 2_000_000)
    section, _ = through(np.unique(places).astype(np.int32))
    assert section.coding == "raw" or isinstance(section.symbols, Gaps)


def test_long_columns_are_coded_in_pieces():
    """More rows, and more columns, than are coded at a time."""
    random = np.random.default_rng(0)
    for shape in ((700_000, 2), (3, 300_000), (600_001,)):
        through(random.integers(-3, 4, shape).astype(np.int8))
    through(pack((random.random(2_000_003) < 0.1).astype(np.uint8), 1), (1, 2_000_003))
    through(pack(random.integers(0, 8, 600_005, np.uint8), 3), (3, 600_005))
