"""Compressed variables into one file."""

import hashlib
from pathlib import Path
from typing import Any

import jax

from nncompress_jax.artifact import container, tree
from nncompress_jax.artifact.info import Info
from nncompress_jax.artifact.network import network_apply
from nncompress_jax.artifact.payloads import Floats, Payloads
from nncompress_jax.bars import bar
from nncompress_jax.errors import InputError
from nncompress_jax.files import replacing
from nncompress_jax.inputs import arguments, is_array
from nncompress_jax.programs.reading import program_from_dict
from nncompress_jax.programs.running import apply_of, leaves_of
from nncompress_jax.programs.writing import program_to_dict
from nncompress_jax.types import Apply


def save(
    path: str | Path,
    variables: Any,
    *,
    apply: Apply | None = None,
    example: Any = None,
    train: Apply | None = None,
    any_batch: bool = True,
    floats: Floats | None = None,
    **about: Any,
) -> Info:
    """Writes a network into one file, as small as the entropy of its parts allows.

    The file takes its place at once, when it is whole: a crash leaves what was there before. An array that stands at
    several places of the tree is stored once.

    Args:
      path: of the file.
      variables: any tree of arrays, numbers, random keys and compressed weights.
      apply: of (variables, *inputs), on dense variables, in the mode in which it is served. Its program goes into the
        file, which then needs no other code: `load` gives it back as a function for methods, `inject` and exports.
      example: inputs of apply: a tuple of its further arguments, or the only one. Arrays whose first axis has the
        length of the batch take any length there. Of images [B, H, W, I] float32 the shape is `image_shape` of `about`.
      train: of (variables, *inputs, key), which runs in training mode, where dropout and batch normalization do other
        things; its program goes into the file, too. The key is one of `jax.random.key`.
      any_batch: whether the first axis of inputs takes any length; else it has the one of the example.
      floats: stores float32 and float64 arrays in 16 bits; by default bit for bit. The largest error stands in the
        file, by array. They are read as the type that they had.
      **about: what the file is to say of the network, as fields of `Info`: model="vgg16ds", image_shape=(32, 32, 3),
        recipe="quantize:8", ... Of a file without a model or a program, `load` must be given the apply.

    Returns:
      What the file says of the network.

    Raises:
      InputError: for what no file can hold, a network that the variables do not fit, a program of operations that are
        not in the list of docs/format.md, by name and module, and where nothing can be written.

    Example:
      >>> import tempfile
      >>> import jax.numpy as jnp
      >>> import nncompress_jax as nnc
      >>> small = nnc.compress({"kernel": jnp.ones((64, 64)), "bias": jnp.zeros(64)})
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     apply = lambda weights, x: x @ weights["kernel"] + weights["bias"]
      ...     _ = nnc.save(Path(folder, "model.nnc"), small, apply=apply, example=jnp.ones((2, 64)))
      ...     again, variables, _ = nnc.load(Path(folder, "model.nnc"))
      >>> again(variables, jnp.ones((8, 64))).shape
      (8, 64)
    """
    if apply is not None and "image_shape" not in about and _are_images(example):
        about["image_shape"] = example.shape[1:]
    info = Info.of(**about)
    if wrong := info.check():
        raise InputError(f"not to be written: {wrong}")
    if info.model:
        network_apply(info, variables)
    payloads = Payloads(floats)
    with bar(f"writing {path}"):
        header = info.to_dict() | {"variables": tree.to_dict(variables, payloads.add)}
    header |= _programs(apply, train, variables, example, payloads, any_batch)
    parts = [container.header_bytes(header, payloads.sizes), *payloads.parts()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with replacing(path) as file:
        file.writelines([*parts, digest.digest()])
    return info.with_digest(digest.hexdigest())


def _are_images(example: Any) -> bool:
    return is_array(example) and example.ndim == 4 and example.dtype == "float32"


def _programs(
    apply: Apply | None, train: Apply | None, variables: Any, example: Any, payloads: Payloads, any_batch: bool
) -> dict[str, Any]:
    """By their names in the header."""
    if apply is None:
        if example is not None or train is not None:
            raise InputError(f"{'train' if example is None else 'example'}= without apply=, to which it belongs")
        return {}
    if example is None:
        raise InputError("apply= without example=: expected inputs of it, such as a batch of images")
    payloads.floats = None  # what programs hold is no weight
    inputs, key = arguments(example), jax.random.key(0)
    functions = {"program": (apply, inputs)} | ({"train": (train, (*inputs, key))} if train else {})
    written = {}
    for name, (function, given) in functions.items():
        written[name], arrays = program_to_dict(function, variables, given, any_batch=any_batch)
        written[name]["constants"] = [payloads.add("constants", array, None) for array in arrays]
        apply_of(program_from_dict(written[name]), leaves_of(variables), arrays)
    return written
