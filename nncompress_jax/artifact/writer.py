"""Compressed variables into one file."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from nncompress_jax.artifact import container, sections, tree
from nncompress_jax.artifact.info import Info
from nncompress_jax.artifact.network import network_apply
from nncompress_jax.artifact.symbols import DTYPES
from nncompress_jax.errors import InputError

Floats = Literal["bfloat16", "float16"]


def save(
    path: str | Path,
    variables: Any,
    *,
    floats: Floats | None = None,
    **about: Any,
) -> Info:
    """Writes a network into one file, as small as the entropy of its parts allows.

    The file takes its place at once, when it is whole: a crash leaves what was there before.

    Args:
      path: of the file.
      variables: any tree of arrays and compressed weights.
      floats: stores float32 and float64 arrays in 16 bits; by default bit for bit. The largest error stands in the
        file, by array. They are read as the type that they had.
      **about: what the file is to say of the network, as fields of `Info`: model="vgg16ds", image_shape=(32, 32, 3),
        recipe="quantize:8", ... Of a file without a model, `load` must be given the apply.

    Returns:
      What the file says of the network.

    Raises:
      InputError: for what no file can hold, a network that the variables do not fit, and where nothing can be written.

    Example:
      >>> import jax.numpy as jnp
      >>> import nncompress_jax as nnc
      >>> small = nnc.compress({"kernel": jnp.ones((64, 64)), "bias": jnp.zeros(64)})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = nnc.save(Path(folder, "model.nnc"), small)
      ...     _, again, _ = nnc.load(Path(folder, "model.nnc"), apply=lambda v, x: x @ v["kernel"] + v["bias"])
      >>> bool((again["kernel"].codes == small["kernel"].codes).all())
      True
    """
    info = Info.of(**about)
    if wrong := info.check():
        raise InputError(f"not to be written: {wrong}")
    if info.model:
        network_apply(info, variables)
    payloads: list[bytes] = []

    def coded(name: str, array: Any, holder: Any) -> dict[str, Any]:
        bits = None if holder is None else holder.code_bits
        section, payload = sections.encode(_held(name, array), bits, floats)
        payloads.append(payload)
        return section.to_dict()

    header = info.to_dict() | {"variables": tree.to_dict(variables, coded)}
    start = container.header_bytes(header, [len(payload) for payload in payloads])
    parts = [start] + [part for payload in payloads for part in (payload, container.padding(len(payload)))]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    _replace(Path(path), [*parts, digest.digest()])
    return info.with_digest(digest.hexdigest())


def _held(name: str, array: Any) -> np.ndarray:
    if jax.dtypes.issubdtype(getattr(array, "dtype", None), jax.dtypes.prng_key):
        raise InputError(f"{name}: a random key, which no file can hold; save jax.random.key_data of it")
    held = np.asarray(array)
    if held.dtype.name not in DTYPES:
        raise InputError(f"{name}: {held.dtype}, expected one of {', '.join(DTYPES)}")
    return held


def _replace(path: Path, parts: Sequence[bytes]) -> None:
    """A file of these parts in the place of what is there, or, where that fails, nothing new at all."""
    partial: str | None = None
    try:
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(descriptor)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)  # as if it had been opened; mkstemp lets nobody else read
        os.replace(partial, path)
        partial = None
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); what was there before is as it was") from None
    finally:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
