"""Checkpoints that are damaged."""

import dataclasses
import os
import shutil

import pytest

import nncompress_jax as nnc
from nncompress_jax.training import checkpoint, config, loop
from tests.training.runs import assert_equal, lines


def truncated(folder):
    for file in folder.rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            os.truncate(file, file.stat().st_size // 2)


def flipped(folder):
    """One bit of the largest file of the variables."""
    largest = max((folder / "variables").rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 4
    largest.write_bytes(content)


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def misdescribed(folder):
    """A number that is read without complaint."""
    file = folder / "described" / "metadata"
    content = file.read_text()
    assert '"total_steps": 12' in content
    file.write_text(content.replace('"total_steps": 12', '"total_steps": 13'))


@pytest.mark.parametrize("damage", [truncated, flipped, emptied, misdescribed])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_taken(damage, finished, spoilt, caplog, monkeypatch):
    damage(spoilt / "checkpoints" / "12")
    checkpoint.restore(spoilt)
    message = "checkpoints/12: damaged checkpoint ("
    assert message in caplog.text
    assert "step 8 is taken, the latest that is whole" in caplog.text

    run = loop.train(dataclasses.replace(config.read(finished.workdir), workdir=str(spoilt)))
    assert_equal(spoilt, finished.workdir)
    assert [line["step"] for line in lines(run.workdir)] == [4, 8, 12]
    assert [folder.name.split("-")[0] for folder in (spoilt / "damaged").iterdir()] == ["12"]
    caplog.clear()
    checkpoint.restore(spoilt)
    assert not caplog.text


def test_no_checkpoint_is_whole(finished, spoilt):
    for folder in (spoilt / "checkpoints").iterdir():
        truncated(folder)
    settings = dataclasses.replace(config.read(finished.workdir), workdir=str(spoilt))
    for use in (lambda: checkpoint.restore(spoilt), lambda: loop.train(settings)):
        with pytest.raises(nnc.InputError, match="checkpoints/12: damaged checkpoint .*, and no other is whole"):
            use()
