"""The networks that are kept in results/, on the 10,000 test images of `cifar10_jpeg`.

Needs NNCOMPRESS_DATA (a data_dir); skips without it.
"""

import os
from pathlib import Path

import pytest

from nncompress_jax.commands import results
from nncompress_jax.data import sources

pytestmark = pytest.mark.reference

FOLDER = Path(__file__).parents[2] / "results"
ROWS = {row["file"]: row for row in results.rows(FOLDER) if row["dataset"] == "cifar10_jpeg"}


@pytest.fixture(scope="module")
def dataset():
    if not os.environ.get("NNCOMPRESS_DATA"):
        pytest.skip("NNCOMPRESS_DATA is not set")
    return sources.load("cifar10_jpeg", data_dir=os.environ["NNCOMPRESS_DATA"])


@pytest.mark.parametrize("file", ROWS)
def test_accuracy_and_operations(file, dataset):
    found = results.tested(FOLDER / file, dataset)
    print(f"{file}: {found['tested']:.2%}, {ROWS[file]['bytes']:,} bytes")
    assert results.fits(ROWS[file], found), found
