"""Decoded images that are kept: used, made anew, and never in the way."""

import os

import numpy as np
import pytest

from nncompress_jax.data import cache


def test_the_cache_is_used_and_made_anew_when_the_source_changes(tmp_path):
    source = tmp_path / "source"
    source.write_text("one")
    calls = []

    def decode():
        calls.append(source.read_text())
        return np.full((1, 2, 2, 3), len(calls), np.uint8), np.zeros(1, np.int32)

    for text in ("one", "one", "another", "another"):
        if source.read_text() != text:
            source.write_text(text)
        images, _ = cache.keep("set", [source], decode)
        assert images[0, 0, 0, 0] == len(calls)
    assert calls == ["one", "another"]
    assert not list(cache.folder().glob("*.partial"))


@pytest.mark.parametrize("damage", [b"", b"no zip", None], ids=["empty", "text", "cut"])
def test_a_damaged_cache_is_made_again(tmp_path, damage, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arrays = np.arange(300, dtype=np.uint8).reshape(1, 10, 10, 3), np.zeros(1, np.int32)
    cache.keep("set", [], lambda: arrays)
    (file,) = cache.folder().iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    for calls in (1, 0):
        made = []
        images, _ = cache.keep("set", [], lambda made=made: made.append(1) or arrays)
        np.testing.assert_array_equal(images, arrays[0])
        assert len(made) == calls
    assert caplog.text.count("cannot be read, and is made again") == 1


def test_parts_are_not_taken_for_each_other():
    def made(value):
        return np.full((1, 1, 1, 3), value, np.uint8), np.zeros(1, np.int32)

    assert cache.keep("set-train[:9]", [], lambda: made(1))[0].max() == 1
    assert cache.keep("set-train[9:]", [], lambda: made(2))[0].max() == 2


def test_nothing_is_kept_where_there_is_no_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for an unknown user
    assert cache.folder() is None
    assert cache.keep("set", [], lambda: (1, 2)) == (1, 2)


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    images, _ = cache.keep("set", [], lambda: (np.ones((1, 1, 1, 3), np.uint8), np.zeros(1, np.int32)))
    assert images.shape == (1, 1, 1, 3)
    assert "are not kept" in caplog.text
