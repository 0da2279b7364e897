"""What a file says of its network beside the weights."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from nncompress_jax.errors import ArtifactError


@dataclasses.dataclass(frozen=True)
class Info:
    """What is needed to use the network, and how it came about.

    Attributes:
      model: name of the network, for `nnc.models.create`; None: it is the caller's own.
      options: of `nnc.models.create`.
      image_shape: [H, W, I] of an input, float32 after preprocessing.
      mean: per channel, of pixel values from 0 to 1: an input is (pixel / 255 - mean) / deviation.
      deviation: per channel, likewise.
      class_names: by label.
      recipe: how it was compressed, in words.
      dataset: that it was measured on, at the test split.
      accuracy: there, from 0 to 1, of the weights as they are in the file.
      library: version of this library that wrote the file.
      digest: SHA-256 of the file, in hexadecimal digits; "" until it is written.
    """

    model: str | None = None
    options: Mapping[str, int] = dataclasses.field(default_factory=dict)
    image_shape: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()
    recipe: str | None = None
    dataset: str | None = None
    accuracy: float | None = None
    library: str = dataclasses.field(default_factory=lambda: importlib.metadata.version("nncompress-jax"))
    digest: str = ""

    @classmethod
    def of(cls, **fields: Any) -> "Info":
        """From any sequences and numbers, as a caller has them."""
        fields["options"] = dict(fields.get("options") or {})
        floats = {name: tuple(map(float, fields.get(name, ()))) for name in ("mean", "deviation")}
        fields |= floats | {name: tuple(fields.get(name, ())) for name in ("image_shape", "class_names")}
        if fields.get("accuracy") is not None:
            fields["accuracy"] = float(fields["accuracy"])
        return cls(**fields)

    def with_digest(self, digest: str) -> "Info":
        """The same, of a file with this digest."""
        return dataclasses.replace(self, digest=digest)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold; without the digest, which is of the whole."""
        fields = {name: getattr(self, name) for name in KINDS}
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return {name: value for name, value in fields.items() if value not in (None, [], {})}

    @classmethod
    def from_dict(cls, described: Any) -> "Info":
        """From what `to_dict` gave; Raises ArtifactError for anything else."""
        if not isinstance(described, dict) or not described.keys() <= KINDS.keys():
            raise ArtifactError(f"information {str(described)[:60]}")
        if wrong := _wrong(described):
            raise ArtifactError(wrong)
        lists = {name: tuple(value) for name, value in described.items() if isinstance(value, list)}
        return cls(**described | {"library": described.get("library", "")} | lists)

    def check(self) -> str | None:
        """What no file can say, in words; None: it is sound."""
        return _wrong(self.to_dict())


def _wrong(described: Mapping[str, Any]) -> str | None:
    for name, value in described.items():
        whole, *parts = KINDS[name]
        entries = list(value) if isinstance(value, list | dict) else [value]
        entries += value.values() if isinstance(value, dict) else []
        if not isinstance(value, whole) or any(type(entry) not in parts for entry in entries):
            return f"{name} {str(value)[:60]}"
    return None


KINDS: Mapping[str, tuple[Any, ...]] = {
    **{"model": (str, str), "options": (dict, str, int), "image_shape": (list, int)},
    **{"mean": (list, float, int), "deviation": (list, float, int), "class_names": (list, str)},
    **{"recipe": (str, str), "dataset": (str, str), "accuracy": (float | int, float, int), "library": (str, str)},
}
"""Of each field in a file: what it is, and what its entries may be."""
