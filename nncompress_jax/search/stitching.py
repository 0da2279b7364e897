"""Steps that were chosen, as a network: weights rounded, statistics re-estimated, everything else made short."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nncompress_jax.artifact.writer import save
from nncompress_jax.leaves import described
from nncompress_jax.methods import batch_norm
from nncompress_jax.methods.quantize import quantize
from nncompress_jax.methods.reestimate import reestimate
from nncompress_jax.methods.rounding import Rounding
from nncompress_jax.methods.selection import network
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tracing.normalization import normalizations
from nncompress_jax.types import Context
from nncompress_jax.weights.base import is_compressed


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

    def __call__(self, variables: Any, steps: Mapping[str, float], context: Context) -> Any:
        """The network with these steps, by path.

        Batch normalization is re-estimated where outputs for the batches come nearer by that: after rounding to nearest
        they mostly do, after second-order rounding, which keeps the outputs, they mostly do not.

        Args:
          variables: dense, or compressed otherwise than by codes.
          steps: by path.
          context: with apply and batches.
        """
        method = quantize(step=dict(steps), inputs=self.inputs, rounding=self.rounding)
        return self.finished(method(variables, context), variables, context)

    def finished(self, variables: Any, reference: Any, context: Context) -> Any:
        """With what stands around the weights, so that outputs are near those of other variables."""
        apply, inputs = network(context, "auto")
        if not normalizations(apply, variables, *inputs[0]).found:
            return self.folded(variables, context)
        estimated = reestimate(variables, context)
        errors = [_error(context, each, reference) for each in (variables, estimated)]
        return self.folded(estimated if errors[1] < errors[0] else variables, context)

    def folded(self, variables: Any, context: Context) -> Any:
        """With two vectors for each batch normalization, and other floats made short."""
        apply, inputs = network(context, "auto")
        if normalizations(apply, variables, *inputs[0]).found:
            variables = batch_norm.fold(weights=False)(variables, context)
        return jax.tree.map(shortened, variables, is_leaf=is_compressed) if self.short else variables


def _error(context: Context, variables: Any, reference: Any) -> float:
    """Squared distance of the outputs for the batches."""
    apply, inputs = network(context, "auto")
    run = inject(apply, fast=True)

    @jax.jit
    def of_batch(one: Any, other: Any, batch: Any) -> Any:
        pairs = zip(jax.tree.leaves(run(one, *batch)), jax.tree.leaves(run(other, *batch)), strict=True)
        return sum(jnp.square(a.astype(jnp.float32) - b.astype(jnp.float32)).sum() for a, b in pairs)

    return sum(float(of_batch(variables, reference, batch)) for batch in inputs)


def shortened(leaf: Any) -> Any:
    """A float32 array with the nearest values of bfloat16; all else as it is."""
    shape = None if is_compressed(leaf) else described(leaf)
    if shape is None or shape.dtype != jnp.float32 or not hasattr(leaf, "shape"):
        return leaf
    return jnp.asarray(leaf, jnp.bfloat16).astype(jnp.float32)


def file_bytes(variables: Any) -> int:
    """Bytes of the file that `nnc.save` writes of variables alone."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.nnc")
        save(file, variables)
        return file.stat().st_size
