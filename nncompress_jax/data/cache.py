"""Decoded images kept on disk."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


def folder() -> Path:
    """`nncompress_jax` in `$XDG_CACHE_HOME`, by default in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nncompress_jax"


def keep(name: str, sources: Sequence[Path], decode: Callable[[], Arrays]) -> Arrays:
    """Images and labels from the cache, or decoded and put there.

    Args:
      name: of the cached file.
      sources: the files it is made from; when their sizes or times change it is made again. Where they are
        not on a local disk nothing is kept.
      decode: makes images and labels.

    Returns:
      What `decode` returns.
    """
    if not all(source.exists() for source in sources):
        return decode()
    stamps = repr([(source.name, source.stat().st_size, source.stat().st_mtime_ns) for source in sources])
    file = folder() / f"{name}-{hashlib.sha256(stamps.encode()).hexdigest()[:16]}.npz"
    if file.exists():
        with np.load(file) as stored:
            return stored["images"], stored["labels"]
    images, labels = decode()
    _store(file, images, labels)
    return images, labels


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
