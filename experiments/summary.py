"""Shows a network layer by layer: shapes, parameters, multiply-accumulates, bytes.

python experiments/summary.py --model=vgg16ds --picture=net.png
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.report import plots
from nncompress_jax.table import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which network."""

    model: str
    """A name of `nncompress_jax.models`, as vgg16, resnet20 or mobilenetv2; or your own, package.module:function."""
    num_classes: int = 10
    """Of the last layer."""
    image_size: int | None = None
    """Height and width of the images, a multiple of 32; by default those that the network is published for, or 32."""
    picture: Path | None = None
    """Draws the network into this PNG file."""


def main(options: Options) -> None:
    """Traces the network on one image; no weight is made."""
    network = nnc.models.named(options.model, num_classes=options.num_classes)
    size = options.image_size or network.image_size(None) or 32
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), image)
    cost = nnc.cost(network.apply, variables, image)
    rows = [dataclasses.asdict(layer) | {"output": "x".join(map(str, layer.output_shape[1:]))} for layer in cost.layers]
    total = {"path": "total", "operation": "", "output": ""}
    total |= {name: getattr(cost, name) for name in ("parameters", "macs", "resident_bytes")}
    formats = {
        "path": "",
        "operation": "",
        "output": "",
        "parameters": ",",
        "macs": ",",
        "resident_bytes": ",",
    }
    Table(f"{options.model}, one image {image.shape[1:]}", formats, [*rows, total]).print()
    if options.picture:
        plots.network(
            cost.layers,
            f"{options.model}: {cost.parameters:,} parameters, {cost.macs:,} MACs",
            options.picture,
        )


if __name__ == "__main__":
    cli.run(main, Options)
