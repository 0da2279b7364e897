"""Reading ahead of what is not in memory."""

import os
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

import nncompress_jax as nnc
from nncompress_jax.data import sources
from nncompress_jax.data.stream import batches
from tests.prepared import labelled_images, write_prepared

ORDER = np.random.default_rng(0).permutation(64).reshape(8, 8)


def test_streamed_is_what_is_in_memory(tiny_data):
    streamed = sources.load("tiny", data_dir=tiny_data, stream=True)
    held = sources.load("tiny", data_dir=tiny_data)
    assert (streamed.mean, streamed.deviation) == (held.mean, held.deviation)
    assert streamed.train.image_shape == held.train.image_shape
    for start in (0, 5):
        ours, theirs = (list(batches(each.train, ORDER.__getitem__, 8, start=start)) for each in (streamed, held))
        assert len(ours) == len(theirs) == 8 - start
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine[0], other[0])
            np.testing.assert_array_equal(mine[1], other[1])


def test_large_sets_are_streamed(tiny_data, monkeypatch):
    assert isinstance(sources.load("tiny", data_dir=tiny_data).train, sources.InMemory)
    monkeypatch.setattr(sources, "LARGEST_IN_MEMORY", 85 * 32 * 32 * 3 - 1)
    assert not isinstance(sources.load("tiny", data_dir=tiny_data).train, sources.InMemory)


class Endless:
    """Counts what is read."""

    image_shape = (1, 1, 3)

    def __init__(self):
        self.reads, self.threads = 0, set()

    def __len__(self):
        return 10**6

    def read(self, rows):
        self.reads += 1
        self.threads.add(threading.current_thread())
        return np.zeros((len(rows), 1, 1, 3), np.uint8), rows


def test_few_batches_are_read_ahead_and_the_threads_end():
    split = Endless()
    read = batches(split, lambda number: np.array([number]), 10**6)
    assert [next(read)[1].item() for _ in range(3)] == [0, 1, 2]
    # Each thread has one in hand, as many wait, and three were taken.
    assert split.reads <= 2 * min(32, os.cpu_count()) + 3 + 1
    read.close()
    deadline = time.monotonic() + 10
    while any(thread.is_alive() for thread in split.threads - {threading.current_thread()}):
        assert time.monotonic() < deadline


def test_a_damaged_image_is_named(tmp_path):
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
    examples = labelled_images(8)
    write_prepared(
        tmp_path, "torn", features, {"train": [*examples, {"image": b"no image", "label": 0}], "test": examples}
    )
    with pytest.raises(
        nnc.InputError, match="torn: image 8 of train is damaged \\(no picture.*\\); prepare the data set again$"
    ):
        sources.load("torn", data_dir=str(tmp_path), stream=True)
