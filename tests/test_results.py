"""The networks that are kept in results/: what their table says is what they are."""

from pathlib import Path

import pytest

from nncompress_jax.commands import results
from nncompress_jax.data import sources

FOLDER = Path(__file__).parents[1] / "results"
ROWS = {row["file"]: row for row in results.rows(FOLDER)}
MOST = 300_000
"""Bytes of a file: the repository stays small."""


def test_some_are_kept():
    assert {row["dataset"] for row in ROWS.values()} >= {"digits", "cifar10_jpeg"}
    assert max(row["bytes"] for row in ROWS.values()) <= MOST


@pytest.mark.parametrize("file", [file for file, row in ROWS.items() if row["dataset"] == "digits"])
def test_accuracy_and_operations(file):
    found = results.tested(FOLDER / file, sources.load("digits"))
    assert results.fits(ROWS[file], found), found
