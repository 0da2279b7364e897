"""Variables as JSON: dicts, lists and tuples of arrays and compressed weights, the arrays elsewhere."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import ArtifactError, InputError
from nncompress_jax.leaves import DTYPES, check_held, is_key, is_number
from nncompress_jax.tree import is_plain_tree, named_leaves
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.dicts import part_from_dict, part_to_dict

OfArray = Callable[[str, Any, Any], dict[str, Any]]
"""(path, array, the weight that has it) -> what stands for it."""

KEY_KINDS = ("threefry2x32", "rbg", "unsafe_rbg")
"""Of random keys, by the names that jax gives them."""


def to_dict(variables: Any, of_array: OfArray) -> dict[str, Any]:
    """What JSON can hold.

    Args:
      variables: any tree; what is not of dicts with names, lists and tuples is written as leaves with their paths.
      of_array: is asked for each array, in order.
    """
    leaves = named_leaves(variables, is_compressed)
    check_held(named_leaves(variables), DTYPES)
    if is_plain_tree(variables, is_compressed):
        return _node("", variables, of_array)
    if len(dict(leaves)) < len(leaves):
        raise InputError("two leaves have the same path, by what their container says; rename one")
    return {"leaves": {path: _leaf(path, leaf, of_array) for path, leaf in leaves}}


def arrays(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """What stands for the arrays, in order, with the paths of their leaves and parts."""
    kind, content = _only(node, path)
    if kind in ("dict", "leaves"):
        for name, child in content.items():
            yield from arrays(child, _joined(path, name))
    elif kind in ("list", "tuple"):
        for place, child in enumerate(content):
            yield from arrays(child, _joined(path, str(place)))
    elif kind == "weight":
        yield from _parts(content, path)
    elif kind in ("array", "number"):
        yield path, content
    elif kind == "key":
        yield path, _key_data(content, path)


def from_dict(node: Any, array: Callable[[Any], np.ndarray], finish: Callable[[str, Any], Any]) -> Any:
    """The variables; of those that are no plain tree, leaves by path.

    Args:
      node: of `to_dict`, whose arrays `arrays` could list.
      array: what stands for an array -> the array; is asked in the order of `arrays`.
      finish: (path, sound leaf) -> what becomes of it.
    """
    return _built(node, "", array, finish)


def is_plain(node: Any) -> bool:
    """Whether `from_dict` gives the variables themselves."""
    return "leaves" not in node


def _built(node: Any, path: str, array: Callable[[Any], np.ndarray], finish: Callable[[str, Any], Any]) -> Any:
    kind, content = _only(node, path)
    if kind in ("dict", "leaves"):
        return {name: _built(child, _joined(path, name), array, finish) for name, child in content.items()}
    if kind in ("list", "tuple"):
        children = [_built(child, _joined(path, str(place)), array, finish) for place, child in enumerate(content)]
        return children if kind == "list" else tuple(children)
    if kind == "none":
        return None
    if kind == "array":
        return finish(path, array(content))
    if kind == "number":
        return finish(path, _number(array(content), path))
    if kind == "key":
        return finish(path, _key(array(_key_data(content, path)), content["impl"], path))
    try:
        weight = part_from_dict(path, content, array)
    except ArtifactError:
        raise
    except InputError as error:
        raise ArtifactError(str(error)) from None
    wrong = weight.check()
    if wrong or not weight.STANDS_ALONE:
        raise ArtifactError(f"{path}: a {type(weight).__name__} with {wrong or 'nothing around it'}")
    return finish(path, weight)


KINDS = {
    **{"dict": dict, "leaves": dict, "list": list, "tuple": list, "none": bool},
    **{"weight": dict, "array": dict, "number": dict, "key": dict},
}


def _only(node: Any, path: str) -> tuple[str, Any]:
    if isinstance(node, dict) and len(node) == 1:
        kind, content = next(iter(node.items()))
        if kind in KINDS and isinstance(content, KINDS[kind]) and (kind != "leaves" or not path):
            return kind, content
    raise ArtifactError(f"{path or 'the tree'} is described as {str(node)[:60]}")


def _key_data(content: dict[str, Any], path: str) -> dict[str, Any]:
    data = content.get("data")
    if content.keys() != {"impl", "data"} or content["impl"] not in list(KEY_KINDS) or not isinstance(data, dict):
        raise ArtifactError(f"{path}: a random key described as {str(content)[:60]}")
    return data


def _key(data: np.ndarray, kind: str, path: str) -> jax.Array:
    with contextlib.suppress(TypeError, ValueError):
        return jax.random.wrap_key_data(jnp.asarray(data), impl=kind)
    raise ArtifactError(f"{path}: {data.dtype}{list(data.shape)}, no data of {kind} keys")


def _number(array: np.ndarray, path: str) -> Any:
    number = array.item() if array.shape == () else None
    if is_number(number):
        return number
    raise ArtifactError(f"{path}: {array.dtype}{list(array.shape)}, expected a single number")


def _parts(part: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(part, list):
        for place, each in enumerate(part):
            yield from _parts(each, f"{path}.{place}")
    elif isinstance(part, dict) and "type" in part and isinstance(part.get("parts"), dict):
        for name, each in part["parts"].items():
            yield from _parts(each, f"{path}.{name}")
    elif isinstance(part, dict):
        yield path, part
    elif part is not None:
        raise ArtifactError(f"{path} is described as {str(part)[:60]}")


def _node(path: str, tree: Any, of_array: OfArray) -> dict[str, Any]:
    if tree is None:
        return {"none": True}
    if type(tree) is dict:  # in the order of the pytree, which is that of the names
        return {"dict": {name: _node(_joined(path, name), tree[name], of_array) for name in sorted(tree)}}
    if type(tree) in (list, tuple):
        children = [_node(_joined(path, str(place)), child, of_array) for place, child in enumerate(tree)]
        return {type(tree).__name__: children}
    return _leaf(path, tree, of_array)


def _leaf(path: str, leaf: Any, of_array: OfArray) -> dict[str, Any]:
    if is_key(leaf):
        kind = str(jax.random.key_impl(leaf))
        if kind not in KEY_KINDS:
            raise InputError(f"{path}: random keys of {kind}, expected one of {', '.join(KEY_KINDS)}")
        return {"key": {"impl": kind, "data": of_array(path, jax.random.key_data(leaf), None)}}
    if not is_compressed(leaf):
        return {"number" if is_number(leaf) else "array": of_array(path, leaf, None)}
    if wrong := leaf.check():
        raise InputError(f"{path}: a {type(leaf).__name__} with {wrong}, which no file can hold")
    return {"weight": part_to_dict(leaf, lambda array, holder: of_array(path, array, holder))}


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
