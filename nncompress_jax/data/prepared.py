"""Reading image classification data sets of tensorflow-datasets without TensorFlow; preparing them with it."""

import contextlib
import http.client
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nncompress_jax.bars import tracked
from nncompress_jax.data import cache
from nncompress_jax.data.pictures import decode, resize
from nncompress_jax.data.split import Batch, InMemory
from nncompress_jax.errors import InputError, require

# tensorflow-datasets is imported where it is used: the import takes most of a second, and `digits` needs none of it.

NETWORK_TIMEOUT_S = 2.0


def open_builder(name: str, data_dir: str | None) -> Any:
    """The tensorflow-datasets builder of a data set that can be read; one that is not prepared is prepared first.

    Raises:
      InputError: if there is no such data set, it is not of labelled images, or it cannot be prepared here.
    """
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.ERROR)
    folder = data_dir or tfds.core.constants.DATA_DIR
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise InputError(
            f"unknown data set {name!r}: neither `digits`, nor prepared under {folder}, nor of tensorflow-datasets"
        ) from None
    except ModuleNotFoundError:
        raise InputError(f"{name}: its builder needs TensorFlow: pip install 'nncompress-jax[prepare]'") from None
    except Exception as error:  # whatever tensorflow-datasets raises on a folder that it did not write
        reason = " ".join(str(error).split())[-120:]
        raise InputError(
            f"{name}: what is prepared under {folder} cannot be read (...{reason}); prepare it again"
        ) from error
    _features(builder, name)
    if not builder.is_prepared():
        return _prepare(name, data_dir)
    if not builder.info.available_file_formats() & set(tfds.core.FileFormat.with_random_access()):
        raise InputError(
            f"{name}: prepared as {builder.info.file_format.value} under {builder.data_path}, expected array_record; "
            f"choose another --data_dir, or delete that folder and {_how_to_prepare(name)}"
        )
    return builder


def _prepare(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    if not _reachable(builder.info.homepage or "https://www.tensorflow.org/datasets"):
        raise InputError(f"{name}: not prepared under {builder.data_path}, and no network; {_how_to_prepare(name)}")
    require(f"{name}: preparing it", "tensorflow", extra="prepare")
    try:
        builder.download_and_prepare()
    except Exception as error:  # whatever the download, the extraction or the builder raises
        raise InputError(f"{name}: preparing it failed ({' '.join(str(error).split())[:200]})") from error
    return builder


def class_names(builder: Any) -> tuple[str, ...]:
    """C names, by label."""
    _, label = _features(builder, builder.name)
    return tuple(builder.info.features[label].names)


def part(builder: Any, split: str | None) -> Any:
    """What tensorflow-datasets knows of a split, or of a part of one.

    Args:
      builder: of `open_builder`.
      split: in its notation, as `test` or `train[90%:]`; None: `test`, or `validation` where there is none.

    Raises:
      InputError: where there is no such split, or nothing in it.
    """
    found = list(builder.info.splits)
    if split is None:
        split = next((name for name in ("test", "validation") if name in found), None)
    if split is None:
        whole = found[0] if found else "train"
        raise InputError(
            f"{builder.name}: has no split 'test' or 'validation', only {', '.join(found)}; "
            f"--train_split='{whole}[:90%]' --test_split='{whole}[90%:]' divides it"
        )
    try:
        known = builder.info.splits[split]
    except Exception as error:  # whatever its parser raises
        reason = " ".join(str(error).split())[:80]
        raise InputError(
            f"{builder.name}: has no split {split!r}, only {', '.join(found)} ({reason}); "
            "name one of them, or a part as 'train[90%:]'"
        ) from None
    if not known.num_examples:
        raise InputError(
            f"{builder.name}: its split {split!r} is empty; name another with --train_split and --test_split"
        )
    return known


def check_apart(builder: Any, train: Any, test: Any) -> None:
    """Raises InputError where the network would be tested on images that it learns from; both are of `part`."""
    ranges = [
        [(str(file.filename), file.skip, file.skip + file.take) for file in each.file_instructions]
        for each in (train, test)
    ]
    for file, begin, end in ranges[0]:
        for other, other_begin, other_end in ranges[1]:
            if file == other and max(begin, other_begin) < min(end, other_end):
                raise InputError(
                    f"{builder.name}: the splits {train.name!r} and {test.name!r} have images in common; "
                    "give --train_split and --test_split that have none, as 'train[:90%]' and 'train[90%:]'"
                )


class StoredSplit:
    """A split that is decoded as it is read.

    Args:
      builder: of `open_builder`.
      split: of `part`.
      image_size: as in `sources.load`.

    Raises:
      InputError: if a file is missing or cut short; from `read`, too, and if an image is damaged or not labelled.
    """

    def __init__(self, builder: Any, split: Any, *, image_size: int | None):
        import tensorflow_datasets as tfds

        self._builder, self._split = builder, split
        self._image, self._label = _features(builder, builder.name)
        shape = builder.info.features[self._image].shape
        if image_size is None:
            own = shape[0] is not None and shape[0] == shape[1] and shape[0] % 32 == 0
            image_size = shape[0] if own else 32
        self.image_shape = (image_size, image_size, 3)
        with self._whole():
            self._source = builder.as_data_source(split.name, decoders={self._image: tfds.decode.SkipDecoding()})
            len(self._source)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, rows: np.ndarray) -> Batch:
        """The examples of those rows."""
        size = self.image_shape[0]
        images, labels = np.empty((len(rows), *self.image_shape), np.uint8), np.empty(len(rows), np.int32)
        with self._whole():
            examples = self._source.__getitems__([int(row) for row in rows])
        for i, example in enumerate(examples):
            try:
                decoded, _ = decode(example[self._image])
            except InputError as error:
                name = f"{self._builder.name}: image {rows[i]} of {self._split.name}"
                raise InputError(f"{name} is damaged ({error}); prepare the data set again") from None
            images[i] = decoded if decoded.shape[:2] == (size, size) else resize(decoded, size)
            labels[i] = example[self._label]
        if (labels < 0).any():
            raise InputError(
                f"{self._builder.name}: its split {self._split.name!r} is not labelled; choose another data set"
            )
        return images, labels

    def in_memory(self) -> InMemory:
        """The whole split, decoded once: the second time it comes from `cache`."""
        files = sorted({Path(file.filename) for file in self._split.file_instructions})
        name = f"{self._builder.info.full_name}-{self._split.name}-{self.image_shape[0]}"
        return InMemory(*cache.keep(name, files, self._read_all))

    def _read_all(self) -> Batch:
        images, labels = np.empty((len(self), *self.image_shape), np.uint8), np.empty(len(self), np.int32)
        chunk = 1000
        for start in tracked(range(0, len(self), chunk), f"decoding {self._builder.name}, {self._split.name}"):
            rows = np.arange(start, min(start + chunk, len(self)))
            images[rows], labels[rows] = self.read(rows)
        return images, labels

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """What array_record raises on files that are missing, cut short or damaged becomes an InputError."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(
                f"{self._builder.name}: its split {self._split.name!r} cannot be read ({reason}); "
                "prepare the data set again"
            ) from None


def _features(builder: Any, name: str) -> tuple[str, str]:
    """Keys of the image and the class label: those that the data set names, or the only ones there are."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    kinds = {"image": tfds.features.Image, "class label": tfds.features.ClassLabel}
    named = [key for key in builder.info.supervised_keys or () if isinstance(key, str)]
    if [type(features.get(key)) for key in named] == list(kinds.values()):
        return named[0], named[1]
    keys = []
    for kind, feature_type in kinds.items():
        found = [key for key, feature in features.items() if isinstance(feature, feature_type)]
        if len(found) != 1:
            raise InputError(
                f"{name}: has {len(found)} features that are a {kind}, expected 1 (its features: "
                f"{', '.join(features)}); choose an image classification data set"
            )
        keys += found
    return keys[0], keys[1]


def _how_to_prepare(name: str) -> str:
    return (
        "where there is a network run: pip install 'nncompress-jax[prepare]' && python -c "
        f"\"import tensorflow_datasets as t; t.builder('{name}', file_format='array_record').download_and_prepare()\""
    )


def _reachable(url: str) -> bool:
    """Whether any answer comes from there in time; name look-ups have no time-out of their own."""
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT_S).close()
        except (urllib.error.HTTPError, http.client.HTTPException):
            pass  # an answer all the same
        except (OSError, ValueError):
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(NETWORK_TIMEOUT_S)
    return answered.is_set()
