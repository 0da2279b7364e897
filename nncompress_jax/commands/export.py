"""Writes the network in a file as ONNX, for onnxruntime and other runtimes.

nncompress export model.nnc --to=model.onnx
nncompress export model.nnc --to=model.onnx --dataset=cifar10 --pixels
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.commands.initial import Images
from nncompress_jax.data.augment import normalize
from nncompress_jax.tree import stored_bytes


@dataclasses.dataclass(frozen=True)
class Options(cli.Printed):
    """Which network, into which file."""

    file: tyro.conf.Positional[Path]
    """Of `nnc.save` or `nncompress compress`."""
    to: Path
    """The file that is written, as model.onnx."""
    images: tyro.conf.OmitArgPrefixes[Images] = dataclasses.field(default_factory=Images)
    calibration_batches: int = 4
    """Batches of 64 training images, on which ranges of data are measured that an int8 network does not bring along. Of
    the data set that the file names, by default. 0: none; where ranges are missing, floats are multiplied."""
    pixels: bool = False
    """The network takes pixels [B, H, W, I] uint8 and normalizes them itself; else it takes normalized float32."""


def main(options: Options) -> dict[str, Any]:
    """Reads, measures and writes."""
    apply, variables, info = nnc.load(options.file)
    if not info.image_shape:
        raise nnc.InputError(f"{options.file}: names no shape of images; use nnc.export_onnx")
    if options.pixels and not (info.mean and info.deviation):
        raise nnc.InputError(f"{options.file}: names no mean and deviation of pixels; leave out --pixels")

    def preprocess(images: Any) -> Any:
        return normalize(images, info.mean, info.deviation) if info.mean else images

    def from_pixels(variables: Any, images: Any) -> Any:
        return apply(variables, preprocess(images))

    batches = _batches(options, info)
    if not options.pixels:
        batches = [np.asarray(preprocess(jnp.asarray(batch))) for batch in batches]
    example = jnp.zeros((2, *info.image_shape), jnp.uint8 if options.pixels else jnp.float32)
    written = nnc.export_onnx(
        options.to,
        from_pixels if options.pixels else apply,
        variables,
        example,
        batches=batches,
        metadata={name: json.dumps(value) for name, value in info.to_dict().items()},
    )
    whole = stored_bytes(nnc.decompress(variables))
    print(
        f"{options.to}: {written.size_bytes:,} bytes, {written.size_bytes / whole:.4f} of {whole:,} as floats; "
        f"{written.integer} products on integers, {written.others} on floats"
    )
    found: dict[str, Any] = {"file": str(options.to), "bytes": written.size_bytes, "float_bytes": whole}
    return found | {"integer_products": written.integer, "float_products": written.others}


def _batches(options: Options, info: nnc.Info) -> list[np.ndarray]:
    """Of stored pixels."""
    if not options.calibration_batches:
        return []
    images = dataclasses.replace(options.images, dataset=options.images.dataset or info.dataset)
    if images.dataset is None:
        raise nnc.InputError(f"{options.file}: names no data set; give --dataset, or --calibration_batches=0")
    split = images.load(None, info.image_shape[0]).train
    size = min(64, len(split) // options.calibration_batches)
    return [split.read(np.arange(n * size, (n + 1) * size))[0] for n in range(options.calibration_batches)]
