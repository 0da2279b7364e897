"""Networks in files, of `nnc.save` or of ONNX, with what they take."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nncompress_jax.artifact.container import MAGIC
from nncompress_jax.artifact.info import KINDS, Info
from nncompress_jax.artifact.reader import load
from nncompress_jax.data.augment import normalize
from nncompress_jax.errors import InputError
from nncompress_jax.types import Apply


class Opened(NamedTuple):
    """A network.

    Attributes:
      apply: of (variables, images).
      variables: of it.
      info: that the file holds.
      preprocess: pixels [B, H, W, I] uint8 -> images, if the file says how.
    """

    apply: Apply
    variables: Any
    info: Info
    preprocess: Callable[[Any], Any]


def opened(path: Path) -> Opened:
    """The network in a file; Raises InputError where there is none."""
    with path.open("rb") as file:
        is_own = file.read(len(MAGIC)) == MAGIC
    if is_own or path.suffix != ".onnx":
        apply, variables, info = load(path)
        return Opened(apply, variables, info, functools.partial(normalize, mean=info.mean, deviation=info.deviation))
    from nncompress_jax.export.runtime import served

    network = served(path)
    info = _info(path, network.metadata)
    preprocess = functools.partial(normalize, mean=info.mean, deviation=info.deviation)
    return Opened(network.apply, {}, info, (lambda images: images) if network.takes_pixels else preprocess)


def _info(path: Path, metadata: Any) -> Info:
    try:
        return Info.of(**{name: json.loads(text) for name, text in metadata.items() if name in KINDS})
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: metadata of another program: {error}") from None
