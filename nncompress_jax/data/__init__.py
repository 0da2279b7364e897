"""Images and labels: where they come from, and how they are augmented."""

from nncompress_jax.errors import require

require("nncompress_jax.data", "PIL", "chex", "cv2", "grain", "sklearn", "tensorflow_datasets", extra="train")
