"""Image classification data sets as uint8: in memory, or read as training goes on."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from nncompress_jax.data import pictures, prepared
from nncompress_jax.data.split import InMemory, Split
from nncompress_jax.data.stream import batches
from nncompress_jax.errors import InputError

CIFAR10_MEAN, CIFAR10_DEVIATION = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
Splits = tuple[str, str | None]
LARGEST_IN_MEMORY = 2 * 2**30
"""Bytes of decoded images."""
MOST_FOR_STATISTICS = 5_000
"""Images."""
LEAST_DEVIATION = 1 / 255
"""One grey level: a channel that varies by less is not scaled up, which would blow up the first image that differs."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set with what is needed to train on it.

    Attributes:
      name: as it was asked for.
      train: to learn from.
      test: to measure on.
      class_names: C names, by label.
      mean: per channel, of pixel values from 0 to 1.
      deviation: standard deviation per channel, likewise.
      flips: a mirrored image keeps its class.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    flips: bool = True


def load(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    stream: bool | None = None,
    splits: Splits = ("train", None),
) -> Dataset:
    """A data set by name.

    Args:
      name: `digits`, or a data set of tensorflow-datasets (`cifar10`, `name/config:version`) that has one image
        and one class label an example and is prepared under `data_dir`. One that is not prepared is prepared
        where there is a network and TensorFlow.
      data_dir: folder of prepared data sets; the default is tensorflow-datasets' own.
      image_size: images are resized to this height and width; the default is their own size where all are
        square and divisible by 32, else 32.
      stream: images are read when they are needed, and never all held; by default where they take more than 2 GiB.
        The digits are in memory always.
      splits: to learn from and to measure on, in tensorflow-datasets' notation, as ("train[:90%]", "train[90%:]"); None
        is `test`, or `validation` where there is none. The digits have their own.

    Returns:
      Images with 3 channels. Mean and deviation are CIFAR-10's published ones for it, else those of the training
      images, of 5,000 evenly spaced ones where there are more; a channel that hardly varies has a deviation of 1.

    Raises:
      InputError: if there is no such data set, it cannot be had, or it is not one of labelled images; for splits that
        are not there, are empty, or have images in common.

    Example:
      >>> digits = load("digits")
      >>> digits.train.images.shape, len(digits.test)
      ((1437, 32, 32, 3), 360)
    """
    if image_size is not None and (image_size <= 0 or image_size % 32):
        raise InputError(f"image_size={image_size}: expected a multiple of 32")
    if name == "digits":
        if splits != ("train", None):
            raise InputError("digits: has splits of its own; --train_split and --test_split are for other data sets")
        return _digits(image_size or 32)
    builder = prepared.open_builder(name, data_dir)
    parts = [prepared.part(builder, split) for split in splits]
    prepared.check_apart(builder, *parts)
    train, test = (prepared.StoredSplit(builder, part, image_size=image_size) for part in parts)
    if stream is None:
        stream = (len(train) + len(test)) * math.prod(train.image_shape) > LARGEST_IN_MEMORY
    learns: Split = train if stream else train.in_memory()
    tests: Split = test if stream else test.in_memory()
    if name.split(":")[0] in ("cifar10", "cifar10_jpeg"):
        return Dataset(name, learns, tests, CIFAR10_CLASSES, CIFAR10_MEAN, CIFAR10_DEVIATION)
    return Dataset(name, learns, tests, prepared.class_names(builder), *_statistics(learns))


def _digits(image_size: int) -> Dataset:
    """The 1,797 handwritten digits of scikit-learn, 8x8 with values from 0 to 16, each class split 4 to 1.

    Source: Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository (its test part).
    """
    import sklearn.datasets  # a second, which no other data set needs
    import sklearn.model_selection

    digits = sklearn.datasets.load_digits()
    small = np.round(digits.images * (255 / 16)).astype(np.uint8)
    grey = np.stack([pictures.resize(image, image_size) for image in small])
    images = np.repeat(grey[..., None], 3, axis=-1)
    split: Callable[..., list[np.ndarray]] = sklearn.model_selection.train_test_split
    train_images, test_images, train_labels, test_labels = split(
        images, digits.target.astype(np.int32), test_size=360, stratify=digits.target, random_state=0
    )
    names = tuple(str(name) for name in digits.target_names)
    train, test = InMemory(train_images, train_labels), InMemory(test_images, test_labels)
    return Dataset("digits", train, test, names, *_statistics(train), flips=False)


def _statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel, exactly, from the counts of the 256 values."""
    rows = np.linspace(0, len(split) - 1, min(len(split), MOST_FOR_STATISTICS)).astype(np.int64)
    parts = np.array_split(rows, -(-len(rows) // 100))
    counts = np.zeros((split.image_shape[-1], 256), np.int64)
    for images, _ in batches(split, lambda number: parts[number], len(parts)):
        counts += [np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(len(counts))]
    values, shares = np.arange(256) / 255, counts / counts.sum(-1, keepdims=True)
    means = [float(share @ values) for share in shares]
    deviations = [float(np.sqrt(share @ (values - m) ** 2)) for share, m in zip(shares, means, strict=True)]
    return tuple(means), tuple(deviation if deviation >= LEAST_DEVIATION else 1.0 for deviation in deviations)
