"""Networks as files of ONNX."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from nncompress_jax.bars import bar
from nncompress_jax.errors import InputError
from nncompress_jax.export import activations, elementwise, folding, places, pooling, products, shapes
from nncompress_jax.export.equations import known_array, stored
from nncompress_jax.export.graph import Graph, Product
from nncompress_jax.export.program import Translation
from nncompress_jax.export.values import Tensor, Value, Writer
from nncompress_jax.files import replacing
from nncompress_jax.inputs import arguments, examples_in, is_array, listed
from nncompress_jax.leaves import is_key, numbers
from nncompress_jax.ops.portable import portable
from nncompress_jax.programs.sizes import EXAMPLES, merged, resized
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tracing.trace import traced_with_outputs
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed

RULES = elementwise.RULES | places.RULES | shapes.RULES | products.RULES | pooling.RULES


FLOATS = (
    "{}: integers in the file, multiplied as floats: in transposed convolutions, of which onnxruntime has none on "
    "integers, and where the range of inputs is not known; it is measured on batches="
)


class StoredDense(UserWarning):
    """Sparse weights, of which a file of ONNX holds all entries."""


class RunsOnFloats(UserWarning):
    """Weights that are stored in integers and multiply floats."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
      size_bytes: of the file.
      integer: products on integers.
      others: products on floats.
    """

    size_bytes: int
    integer: int
    others: int


def export_onnx(
    path: str | Path,
    apply: Apply,
    variables: Any,
    example: Any,
    *,
    batches: Sequence[Any] = (),
    any_batch: bool = True,
    reduce_range: bool = False,
    opset: int = 21,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Writes a network as one file of ONNX, of any number of examples at a time.

    All floats are float32 there. Weights of `quantize` that run on integers here do so there. A runtime needs static
    ranges of all data around them: those that `quantize(ranges=)` found, and others, measured on `batches`.

    Args:
      path: of the file; an older one is replaced once the new one is whole.
      apply: of (variables, *inputs), in the mode in which it is served.
      variables: compressed or not.
      example: inputs, as `batches` hold them: a tuple of apply's further arguments, or the only one. Arrays whose first
        axis has the length of the batch take any length there.
      batches: of inputs, from which ranges are measured that are missing.
      any_batch: whether the first axis takes any length; else it has the one of the example.
      reduce_range: inputs that may be below zero are quantized to 7 bits, for processors whose sums of two products of
        8 bits saturate in 16: x86 without VNNI. Others have 7 bits and no sign in any case.
      opset: version of the operations, 21 or later.
      metadata: strings that go along, by name.

    Returns:
      How large the file is, and how many products run on integers.

    Raises:
      InputError: for operations that cannot be written, all of them by name and module, and where onnx is missing.

    Example:
      >>> import tempfile, jax.numpy as jnp
      >>> from nncompress_jax.recipes import compress
      >>> weights, x = {"kernel": jnp.ones((4, 3))}, jnp.ones((2, 4))
      >>> apply = lambda weights, x: jax.nn.relu(x @ weights["kernel"])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     exported = export_onnx(f"{folder}/network.onnx", apply, compress(weights), x, batches=[x])
      >>> exported.integer, exported.others
      (1, 0)

    Source: https://onnx.ai/onnx/operators
    """
    from nncompress_jax.export.model import model_of
    from nncompress_jax.export.runtime import measured

    if opset < 21:
        raise InputError(f"opset={opset}: expected 21 or later")
    leaves = named_leaves(variables, is_compressed)
    if sparse := [path for path, leaf in leaves if is_compressed(leaf) and "Sparse" in leaf.nesting]:
        text = f"{', '.join(sparse)}: sparse here, with all entries in the file, for runtimes multiply by all"
        warnings.warn(text, StoredDense, stacklevel=2)
    with bar(f"writing {path}"):
        graph, names = graph_of(apply, variables, arguments(example), any_batch)
        folding.fold(graph)
    options: Any = {"opset": opset, "metadata": metadata or {}, "reduce_range": reduce_range}
    largest: dict[str, float] = {}
    if batches and (missing := activations.wanted(graph)):
        largest = measured(graph, names, [arguments(batch) for batch in listed(batches)], missing, **options)
    activations.quantize(graph, largest)
    every = [node for node in graph.nodes if isinstance(node, Product)]
    on_integers = activations.integer_products(graph)
    floats = [node.scope or node.outputs[0] for node in every if node.scale is not None and node not in on_integers]
    if floats:
        warnings.warn(FLOATS.format(", ".join(floats)), RunsOnFloats, stacklevel=2)
    content = model_of(graph, names, **options).SerializeToString()
    with replacing(path) as file:
        file.write(content)
    return Exported(len(content), len(on_integers), len(every) - len(on_integers))


def graph_of(
    apply: Apply, variables: Any, inputs: tuple[Any, ...], any_batch: bool = True
) -> tuple[Graph, dict[str, str]]:
    """A network as a graph, and the names of its inputs and outputs.

    Raises:
      InputError: for what cannot be written.
    """
    programs, results = _traced(apply, variables, inputs, any_batch)
    named = named_leaves(variables, is_compressed)
    weights = [numbers(path, part) for path, leaf in named for part in jax.tree.leaves(leaf) if is_array(part)]
    graph, names = Graph(), {}
    values: list[Value] = [known_array(weight) for weight in weights]
    arrays = [(path, leaf) for path, leaf in named_leaves(inputs) if is_array(leaf)]
    if keys := [path for path, leaf in arrays if is_key(leaf)]:
        raise InputError(f"inputs {', '.join(keys)}: random keys, which ONNX has none of; export what runs without")
    paths = [path for path, _ in arrays]
    variables_of = [program.jaxpr.invars[len(weights) :] for program in programs]
    for path, one, other in zip(paths, *variables_of, strict=True):
        sizes, dtype = merged(one.aval.shape, other.aval.shape), stored(one.aval.dtype)
        name = graph.new("input", sizes, dtype)
        graph.inputs.append(name)
        names[name] = _name("input", path, paths)
        values.append(Tensor(name, sizes, tuple(range(len(sizes))), dtype, sizes))
    writer = Writer(graph)
    translation = Translation(writer, RULES)
    found = translation.run(programs, values)
    if translation.refused:
        reasons = [f"{name} in {scope or 'apply'}: {why}" for (name, scope), why in translation.refused.items()]
        raise InputError(f"ONNX cannot be written of {'; '.join(reasons)}")
    for path, value in zip(results, found, strict=True):
        x = writer.plain(value)
        x = writer.made("Identity", [x.name], x.shape, x.dtype)
        graph.outputs.append(x.name)
        names[x.name] = _name("output", path, results)
    return graph, names


def _traced(apply: Apply, variables: Any, inputs: tuple[Any, ...], any_batch: bool) -> tuple[list[Any], list[str]]:
    """The program for each number of `EXAMPLES`, or twice for that of the inputs, and the paths of its results."""
    examples, programs, paths = examples_in(inputs), [], []
    for count in EXAMPLES:
        given = [resized(each, examples, count if any_batch else examples) for each in inputs]
        with portable():
            program, results = traced_with_outputs(inject(apply), variables, *given)
        programs.append(program)
        paths = [path for path, _ in results]
    return programs, paths


def _name(kind: str, path: str, paths: Sequence[str]) -> str:
    return kind if len(paths) == 1 else f"{kind}_{path.replace('/', '_')}"
