"""The sections of a file while it is made: arrays as coded bytes, each array once."""

from typing import Any, Literal

import jax
import numpy as np

from nncompress_jax.artifact import container, sections
from nncompress_jax.leaves import is_number, numbers

Floats = Literal["bfloat16", "float16"]


class Payloads:
    """Codes the arrays that `tree.to_dict` comes to.

    Attributes:
      coded: bytes of each section.
      floats: as what float32 and float64 arrays are stored; None: as they are.
    """

    def __init__(self, floats: Floats | None = None) -> None:
        self.floats = floats
        self.coded: list[bytes] = []
        self._places: dict[int, tuple[int, Any]] = {}  # the arrays, too: while they are held, no other has their id

    @property
    def sizes(self) -> list[int]:
        """Bytes of each section, without the zeros behind it."""
        return [len(payload) for payload in self.coded]

    def add(self, path: str, array: Any, holder: Any) -> dict[str, Any]:
        """What stands for an array in the header.

        Args:
          path: of its leaf.
          array: of numpy or jax, or a number.
          holder: the weight that has it; None for a leaf.

        Raises:
          InputError: for what no file can hold.
        """
        if id(array) in self._places:
            return {"same": self._places[id(array)][0]}
        if isinstance(array, np.ndarray | jax.Array):
            self._places[id(array)] = len(self.coded), array
        bits = None if holder is None else holder.code_bits
        section, payload = sections.encode(numbers(path, array), bits, None if is_number(array) else self.floats)
        self.coded.append(payload)
        return section.to_dict()

    def parts(self) -> list[bytes]:
        """The sections as they stand in a file, each up to where the next may begin."""
        return [part for payload in self.coded for part in (payload, container.padding(len(payload)))]
