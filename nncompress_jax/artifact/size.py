"""What a weight takes in a file."""

from typing import Any

from nncompress_jax.artifact import container, tree
from nncompress_jax.artifact.payloads import Floats, Payloads


def stored_size(weight: Any, *, floats: Floats | None = None) -> int:
    """Bytes that `nnc.save` makes of a weight: its coded parts, exactly, and about what its entry in the header takes.

    The parts are coded as in a file, and counted with the zeros up to where the next may begin. The header is deflated
    as a whole; an entry is taken to stand among others of its kind. What a file has once, some
    300 bytes, is not counted.

    Args:
      weight: a compressed weight, an array, or a tree of them.
      floats: as `nnc.save` has it.

    Returns:
      Bytes.

    Raises:
      InputError: for what no file can hold.

    Example:
      >>> import jax, nncompress_jax as nnc
      >>> kernel = jax.random.normal(jax.random.key(0), (100, 640))
      >>> small = nnc.compress({"kernel": kernel}, nnc.quantize(rate=1.0))["kernel"]
      >>> 7_900 < stored_size(small) < 8_200, stored_size(kernel) > 200_000
      (True, True)
    """
    payloads = Payloads(floats)
    node = tree.to_dict({"weight": weight}, payloads.add)
    return sum(map(len, payloads.parts())) + container.entry_bytes(node)
