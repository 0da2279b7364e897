"""Networks by name."""

from typing import Any

from nncompress_jax.errors import InputError
from nncompress_jax.models.vgg import CONFIGURATIONS, VGG, fitting

__all__ = ["NAMES", "create", "fitting"]

NAMES = {
    "vgg11": "A",
    "vgg13": "B",
    "vgg16": "D",
    "vgg19": "E",
    "vgg16ds": "D-DSM",
    "vgg16ds_stride": "D-DS",
}


def create(name: str, **options: Any) -> VGG:
    """A network by name.

    Args:
      name: a key of `NAMES`.
      **options: fields of the network, those of `VGG`.

    Returns:
      A linen module of (images [B, H, H, I], train=False) -> logits [B, C], H divisible by 32.

    Raises:
      InputError: for a name that is not there.

    Example:
      >>> create("vgg16ds", num_classes=100).num_classes
      100
    """
    if name not in NAMES:
        raise InputError(f"unknown model {name!r}; choose one of {', '.join(NAMES)}")
    return VGG(CONFIGURATIONS[NAMES[name]], **options)
