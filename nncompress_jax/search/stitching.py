"""Steps that were chosen, as a network: weights rounded, statistics re-estimated, everything else made short."""

import dataclasses
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nncompress_jax.artifact.writer import save
from nncompress_jax.leaves import described
from nncompress_jax.methods import batch_norm
from nncompress_jax.methods.channels.unused import without_unused
from nncompress_jax.methods.quantize import quantize
from nncompress_jax.methods.rounding import Rounding
from nncompress_jax.methods.selection import network
from nncompress_jax.methods.steps import base_path
from nncompress_jax.search.reference import Reference, statistics_of
from nncompress_jax.tracing.normalization import normalizations
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Context
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.channel_pruned import ChannelPruned

PRICE = math.log(2) / 12
"""Of a bit, in squared steps: half of what a bit less adds to the mean error of small steps, which is a twelfth.
Half was found by trial, on one network.
"""


@dataclasses.dataclass(frozen=True)
class Stitching:
    """How steps become a network.

    Attributes:
      rounding: as of `quantize`.
      inputs: as of `quantize`.
      short: whether arrays that stay float take the nearest values of bfloat16, which a file stores in half the bytes.
    """

    rounding: Rounding = "second_order"
    inputs: bool = True
    short: bool = True

    def __call__(self, reference: Reference, steps: Mapping[str, float]) -> Any:
        """The network with these steps, by path.

        Args:
          reference: the network, dense, or compressed otherwise than by codes.
          steps: by path.
        """
        price = PRICE if self.rounding == "second_order" else 0.0
        method = quantize(step=dict(steps), inputs=self.inputs, rounding=self.rounding, price=price)
        made = method(reference.variables, reference.context)
        return self.finished(without_unused(made, reference.context), reference)

    def finished(self, variables: Any, reference: Reference) -> Any:
        """With what stands around the weights, so that outputs are near those of the variables before."""
        return self.folded(estimated(variables, reference), reference.context)

    def folded(self, variables: Any, context: Context) -> Any:
        """With two vectors for each batch normalization, and other floats made short."""
        apply, inputs = network(context, "auto")
        if normalizations(apply, variables, *inputs[0]).found:
            variables = batch_norm.fold(weights=False)(variables, context)
        return jax.tree.map(shortened, variables, is_leaf=is_compressed) if self.short else variables


def estimated(variables: Any, reference: Reference) -> Any:
    """With the statistics of batch normalization moved by as much as those of the batches move.

    Means are moved by the difference between the two networks, variances by the ratio: what batches without
    augmentation have other than training had it does not count. All stays, where outputs for the batches come no nearer
    to those of the reference: after second-order rounding, which keeps the outputs, they mostly do not.

    Args:
      variables: compressed.
      reference: the same tree before; where channels are gone since, statistics become those of the batches.
    """
    apply, inputs = network(reference.context, "auto")
    found = normalizations(apply, variables, *inputs[0]).found
    if not found:
        return variables
    epsilons = {each.variance: each.epsilon for each in found}
    now, then = statistics_of(variables, reference.context), reference.statistics

    def moved(path: str, leaf: Any) -> Any:
        if leaf is now[path] or base_path(path) not in {*epsilons, *(each.mean for each in found)}:
            return leaf
        if path not in then or then[path].shape != leaf.shape:
            return now[path]
        if (epsilon := epsilons.get(base_path(path))) is None:
            return leaf + (now[path] - then[path])
        return jnp.maximum((leaf + epsilon) * (now[path] + epsilon) / (then[path] + epsilon) - epsilon, 0)

    new = [moved(path, leaf) for path, leaf in named_leaves(variables)]
    other = jax.tree.unflatten(jax.tree.structure(variables), new)
    return other if reference.error(other) < reference.error(variables) else variables


def shortened(leaf: Any) -> Any:
    """A float32 array, or what is left of one, with the nearest values of bfloat16; all else as it is."""
    if isinstance(leaf, ChannelPruned):
        return dataclasses.replace(leaf, values=shortened(leaf.values))
    shape = None if is_compressed(leaf) else described(leaf)
    if shape is None or shape.dtype != jnp.float32 or not hasattr(leaf, "shape"):
        return leaf
    return jnp.asarray(leaf, jnp.bfloat16).astype(jnp.float32)


def file_bytes(variables: Any) -> int:
    """Bytes of the file that `nnc.save` writes of the arrays and numbers among variables alone."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.nnc")
        save(file, jax.tree.map(lambda leaf: None if described(leaf) is None else leaf, variables))
        return file.stat().st_size
