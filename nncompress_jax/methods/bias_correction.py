"""Biases that make up for what compression changes in the mean."""

from typing import Any

import numpy as np

from nncompress_jax.errors import InputError
from nncompress_jax.leaves import check_there, native
from nncompress_jax.methods.selection import exchanged, leave_alone, network
from nncompress_jax.tracing.biases import biases
from nncompress_jax.tracing.graph import graph
from nncompress_jax.tracing.moments import Moments
from nncompress_jax.tracing.sequence import Pairs, Stop, Walk
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Context, Method
from nncompress_jax.weights.base import dense, is_compressed


def correct_biases(reference: Any) -> Method:
    """Moves biases so that the outputs of each layer have the mean that they had before compression.

    Compression shifts the mean of what a layer computes; the bias takes the shift back, layer after layer, each on
    inputs from the network that is corrected up to there. It is what `reestimate` is for batch normalization.

    Args:
      reference: the variables before compression, but after `batch_norm.fold` and `equalize`, if these came first.

    Returns:
      A method for `compress` and `chain`, behind what compresses; it needs `apply` and `batches`: some hundreds of
      inputs. In memory are, for all of them at once and in both networks, the values that are needed behind the
      present layer. Layers without a bias, and biases that are added at several places, stay, with a warning.

    Raises:
      InputError: (when applied) without `apply` and `batches`; for a reference with other leaves; where no layer has a
        bias; where outputs are not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> dense, small = ({"w": jnp.array([[w]]), "b": jnp.zeros(1)} for w in (1.0, 0.5))
      >>> apply = lambda tree, x: x @ tree["w"] + tree["b"]
      >>> correct_biases(dense)(small, Context(apply, [jnp.array([[1.0], [3.0]])]))["b"].tolist()
      [1.0]

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2.
    """

    def method(variables: Any, context: Context) -> Any:
        apply, inputs = network(context, "correct_biases")
        leaves, before = (dict(named_leaves(tree, is_compressed)) for tree in (variables, reference))
        if odd := sorted(leaves.keys() ^ before.keys()):
            raise InputError(f"{', '.join(odd[:3])}: in one of the variables and the reference, expected in both")
        check_there([*leaves.items(), *before.items()])
        program = graph(apply, variables, *inputs[0])
        found = biases(program, leaves)
        compressed = [path for path, leaf in leaves.items() if is_compressed(leaf)]
        for each in found:
            if each.obstacle or is_compressed(leaves[each.path]):
                leave_alone(each.path, each.obstacle or "compressed already")
        for path in set(compressed) - {name for each in found for name in (each.path, each.weight)}:
            leave_alone(path, "nothing is added to what it multiplies; nnc.reestimate is for batch normalization")
        free = {each.place: each for each in found if not each.obstacle and not is_compressed(leaves[each.path])}
        if not free:
            raise InputError("no layer has a bias that could be corrected; leave correct_biases out")

        def visit(stop: Stop, pairs: Pairs) -> dict[str, Any]:
            each = free[stop.place]
            now, then = (Moments(each.places, np.shape(leaves[each.path])) for _ in range(2))
            for pair in pairs:
                for moments, operands in zip((now, then), pair, strict=True):
                    moments.add(dense(operands[stop.data]))
            shift = (then.mean - now.mean) / each.factor
            if not np.isfinite(shift).all():
                raise InputError(f"{each.weight}: its outputs hold NaN or infinite values")
            old = np.asarray(before[each.path], np.float64)
            leaves[each.path] = now.into(old, old.ravel()[now.entries] + shift)
            return {each.path: leaves[each.path].astype(native(before[each.path]).dtype)}

        walk = Walk(apply, lambda stop: stop.place in free)
        walk.through(variables, context.batches, visit, references=(reference,), as_dense=False)
        return exchanged(variables, {each.path: leaves[each.path] for each in free.values()})

    return method
