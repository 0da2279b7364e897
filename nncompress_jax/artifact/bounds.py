"""Reading bytes that anybody may have written: nothing beyond their end."""

import struct
from typing import Any

from nncompress_jax.errors import ArtifactError


class Cursor:
    """Goes through bytes from their start."""

    def __init__(self, payload: bytes | memoryview) -> None:
        self.rest = memoryview(payload)

    def take(self, count: int) -> memoryview:
        """So many bytes."""
        if count > len(self.rest):
            raise ArtifactError(f"{len(self.rest)} bytes where {count} more are needed")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def byte(self) -> int:
        """One, as a number."""
        return self.take(1)[0]

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """As `struct` has them, the lowest byte first."""
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    def close(self) -> None:
        """Raises ArtifactError where anything is left."""
        if self.rest:
            raise ArtifactError(f"{len(self.rest)} bytes more than expected")
