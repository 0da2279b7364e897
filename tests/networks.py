"""Networks of a quarter of the width and less, or of few layers, for tests of what does not depend on it."""

import functools

from nncompress_jax import models
from nncompress_jax.models import vgg

NARROW = {
    "narrow_deep": vgg.configuration("8 M 16 M 32 32 M 64 64 M 64 64 M"),
    "narrow": vgg.configuration("16 16 M 32 M 64 M M M"),
    "narrowest": vgg.configuration("16/2 64/2 M M M"),
    "short": vgg.configuration("256 M 256 M M M M"),
    "narrow_stride": vgg.configuration("32/2 32/2 64/2 64 M M", separable=True),
}


def register():
    """Makes them known by name."""
    models.NAMES |= {name: functools.partial(vgg.VGG, blocks) for name, blocks in NARROW.items()}
    models.NAMES["narrowest_exits"] = functools.partial(vgg.VGG, NARROW["narrowest"], exits=(0, 2))
