"""Networks as StableHLO, by `jax.export`."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export

from nncompress_jax.files import replacing
from nncompress_jax.inputs import arguments, is_array
from nncompress_jax.leaves import is_number, native
from nncompress_jax.ops.portable import portable
from nncompress_jax.programs.reading import program_from_dict
from nncompress_jax.programs.running import apply_of, leaves_of
from nncompress_jax.programs.sizes import Batch
from nncompress_jax.programs.writing import program_to_dict
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tree import is_plain_tree, named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed


def export_stablehlo(
    path: str | Path,
    apply: Apply,
    variables: Any,
    example: Any,
    *,
    any_batch: bool = True,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
) -> export.Exported:
    """Writes a network for other runtimes as a file of `jax.export`: a function of (variables, *inputs) in StableHLO.

    The parts of compressed weights are arguments of the function: the file is a program without weights, int8 stays
    int8 in it, and `nnc.save` writes what belongs to it. `jax.export.deserialize(bytearray(file)).call(variables,
    *inputs)` runs it; `mlir_module_serialized` of the result is what runtimes without JAX read. A file from somebody
    else should not be read at all: a damaged one can end the process.

    Args:
      path: of the file; an older one is replaced once the new one is whole.
      apply: of (variables, *inputs), in the mode in which it is served.
      variables: compressed or not. The function takes such a tree; where it is not of dicts, lists and tuples, a dict
        of its leaves by path, as `nnc.load` gives it.
      example: inputs: a tuple of apply's further arguments, or the only one. Arrays whose first axis has the length of
        the batch take any length there.
      any_batch: whether the first axis takes any length; else it has the one of the example.
      platforms: that it is for, as JAX names them.

    Returns:
      What was written.

    Raises:
      InputError: for operations that are not in the list of docs/format.md, by name and module.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> from nncompress_jax.recipes import compress
      >>> small, x = compress({"kernel": jnp.ones((4, 3))}), jnp.ones((2, 4))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = export_stablehlo(f"{folder}/network.hlo", lambda v, x: x @ v["kernel"], small, x)
      ...     again = export.deserialize(bytearray(Path(folder, "network.hlo").read_bytes()))
      >>> again.call(small, jnp.ones((5, 4))).shape
      (5, 3)

    Source: https://docs.jax.dev/en/latest/export/export.html
    """
    described, arrays = program_to_dict(apply, variables, example, any_batch=any_batch)
    program = program_from_dict(described)
    function = inject(apply_of(program, leaves_of(variables), arrays))
    (batch,) = export.symbolic_shape("batch")
    sizes = {each.path: [batch * x.times if isinstance(x, Batch) else x for x in each.shape] for each in program.inputs}

    def sized(keys: Any, leaf: Any) -> Any:
        place = jax.tree_util.keystr(keys, simple=True, separator="/")
        return _described(leaf, sizes.get(place))

    inputs = jax.tree_util.tree_map_with_path(sized, arguments(example))
    leaves = dict(leaves_of(variables))
    arrays_alone = {path: leaf for path, leaf in leaves.items() if not is_number(leaf)}
    if is_plain_tree(variables, is_compressed) and len(arrays_alone) == len(named_leaves(variables, is_compressed)):
        arrays_alone, called = variables, function
    else:
        called = functools.partial(_with_numbers, function, {path: x for path, x in leaves.items() if is_number(x)})
    parts = jax.tree.map(_described, arrays_alone)
    with portable("integers"):
        exported = export.export(jax.jit(called), platforms=platforms)(parts, *inputs)
    with replacing(path) as file:
        file.write(exported.serialize())
    return exported


def _described(leaf: Any, shape: Sequence[Any] | None = None) -> Any:
    return jax.ShapeDtypeStruct(tuple(shape or leaf.shape), native(leaf).dtype) if is_array(leaf) else leaf


def _with_numbers(function: Apply, numbers: dict[str, Any], arrays: dict[str, Any], *inputs: Any) -> Any:
    return function(arrays | numbers, *inputs)
