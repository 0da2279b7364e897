"""Decoded images kept on disk."""

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]

VERSION = 2
"""Of how images are decoded and resized: others are not taken for them."""


def folder() -> Path | None:
    """`nncompress_jax` in `$XDG_CACHE_HOME`, by default in `~/.cache`; None where there is no home."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "nncompress_jax") if os.path.isabs(base) else None


def keep(name: str, sources: Sequence[Path], decode: Callable[[], Arrays]) -> Arrays:
    """Images and labels from the cache, or decoded and put there.

    Args:
      name: of what is cached.
      sources: the files it is made from; when their sizes or times change it is made again. Where they are
        not on a local disk, or there is no folder for it, nothing is kept.
      decode: makes images and labels.

    Returns:
      What `decode` returns.
    """
    place = folder()
    if place is None or not all(source.exists() for source in sources):
        return decode()
    stamps = [(source.name, source.stat().st_size, source.stat().st_mtime_ns) for source in sources]
    digest = hashlib.sha256(repr((VERSION, name, stamps)).encode()).hexdigest()[:16]
    file = place / f"{re.sub('[^0-9A-Za-z_.]+', '-', name)}-{digest}.npz"
    stored = _stored(file)
    if stored is None:
        stored = decode()
        _store(file, *stored)
    return stored


def _stored(file: Path) -> Arrays | None:
    """What the file holds; None: it is not there, or damaged."""
    try:
        with np.load(file) as stored:
            return stored["images"], stored["labels"]
    except FileNotFoundError:
        pass
    except Exception as error:  # whatever numpy and its zip reader raise on a damaged file
        logging.getLogger(__name__).warning("%s: cannot be read, and is made again: %s", file, error)
    return None


def _store(file: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Written beside and renamed; a cache that cannot be written only costs time."""
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.savez(stream, images=images, labels=labels)
        partial.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        logging.getLogger(__name__).warning("%s: the decoded images are not kept: %s", file, error)
