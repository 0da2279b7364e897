"""Compressed weights as what JSON can hold, and from that again."""

import dataclasses
from collections.abc import Callable
from typing import Any

import quax

from nncompress_jax.errors import InputError

TYPES: dict[str, type[Any]] = {}
"""Every type by its name in files, once its module is imported: what can be read from a file; nothing else is."""


def part_to_dict(part: Any, of_array: Callable[[Any, Any], Any], holder: Any = None) -> Any:
    """A compressed weight, or a part of one, as what JSON can hold.

    Args:
      part: a compressed weight, an array, None, or a tuple of them.
      of_array: (array, the weight that has it) -> what stands for the array.
      holder: the weight that has the part.
    """
    if part is None:
        return None
    if isinstance(part, tuple):
        return [part_to_dict(each, of_array, holder) for each in part]
    kind: Any = type(part)
    if not issubclass(kind, quax.ArrayValue):
        return of_array(part, holder)
    fields = dataclasses.fields(part)
    names = [field.name for field in fields if not field.metadata.get("static")]
    parts = {kind.FILE_FIELDS.get(name, name): part_to_dict(getattr(part, name), of_array, part) for name in names}
    static = {name: str(value) if isinstance(value, str) else value for name, value in part.static_to_dict().items()}
    return {"type": kind.FILE_NAME or kind.__name__, "static": static, "parts": parts}


def part_from_dict(path: str, described: Any, array: Callable[[Any], Any]) -> Any:
    """From what `part_to_dict` gave.

    Args:
      path: for errors.
      described: of `part_to_dict`.
      array: what stands for an array -> the array.

    Raises:
      InputError: for types, parts or static parts that are not there.
    """
    if described is None:
        return None
    if isinstance(described, list):
        return tuple(part_from_dict(path, each, array) for each in described)
    if not isinstance(described, dict) or "type" not in described:
        return array(described)
    if described["type"] not in list(TYPES):
        known = ", ".join(sorted(TYPES))
        raise InputError(f"{path}: {str(described['type'])[:40]!r} is no compressed weight; expected one of {known}")
    kind = TYPES[described["type"]]
    static, parts = described.get("static"), described.get("parts")
    if not isinstance(static, dict) or not isinstance(parts, dict):
        raise InputError(f"{path}: {described['type']} without parts")
    here = {stored: name for name, stored in kind.FILE_FIELDS.items()}
    parts = {here.get(name, name): part for name, part in parts.items()}
    fields = dataclasses.fields(kind)
    fixed_names = {field.name for field in fields if field.metadata.get("static")}
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    strange = (static.keys() - fixed_names) | (parts.keys() - ({field.name for field in fields} - fixed_names))
    if strange or not needed <= static.keys() | parts.keys():
        found = ", ".join(sorted([*static, *parts]))[:80]
        raise InputError(f"{path}: {described['type']} of {found}; expected {', '.join(sorted(needed))} at least")
    return kind(
        **{name: part_from_dict(path, part, array) for name, part in parts.items()}, **kind.static_from_dict(static)
    )
