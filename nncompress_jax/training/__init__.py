"""Training and testing of any linen network on image classification."""

from nncompress_jax.errors import require

require("nncompress_jax.training", "chex", "etils", "optax", "orbax", "tensorboardX", extra="train")
