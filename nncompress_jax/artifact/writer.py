"""Compressed variables into one file."""

import hashlib
from pathlib import Path
from typing import Any

from nncompress_jax.artifact import container, tree
from nncompress_jax.artifact.info import Info
from nncompress_jax.artifact.network import network_apply
from nncompress_jax.artifact.payloads import Floats, Payloads
from nncompress_jax.errors import InputError
from nncompress_jax.files import replacing


def save(
    path: str | Path,
    variables: Any,
    *,
    floats: Floats | None = None,
    **about: Any,
) -> Info:
    """Writes a network into one file, as small as the entropy of its parts allows.

    The file takes its place at once, when it is whole: a crash leaves what was there before. An array that stands at
    several places of the tree is stored once.

    Args:
      path: of the file.
      variables: any tree of arrays, numbers, random keys and compressed weights.
      floats: stores float32 and float64 arrays in 16 bits; by default bit for bit. The largest error stands in the
        file, by array. They are read as the type that they had.
      **about: what the file is to say of the network, as fields of `Info`: model="vgg16ds", image_shape=(32, 32, 3),
        recipe="quantize:8", ... Of a file without a model, `load` must be given the apply.

    Returns:
      What the file says of the network.

    Raises:
      InputError: for what no file can hold, a network that the variables do not fit, and where nothing can be written.

    Example:
      >>> import tempfile
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
    payloads = Payloads(floats)
    header = info.to_dict() | {"variables": tree.to_dict(variables, payloads.add)}
    parts = [container.header_bytes(header, payloads.sizes), *payloads.parts()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with replacing(path) as file:
        file.writelines([*parts, digest.digest()])
    return info.with_digest(digest.hexdigest())
