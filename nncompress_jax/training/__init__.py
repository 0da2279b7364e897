"""Training and testing of networks on image classification, linen's and NNX's."""

from nncompress_jax.errors import require

require("nncompress_jax.training", "chex", "etils", "orbax", "tensorboardX", extra="train")
