"""The weights that a training run begins with: of another run, or of a file; compressed, if it says so."""

from pathlib import Path

import jax.numpy as jnp

from nncompress_jax import models
from nncompress_jax.data import sources
from nncompress_jax.errors import InputError
from nncompress_jax.importers import torch
from nncompress_jax.importers.safetensors import load_safetensors
from nncompress_jax.recipes import compress, recipe
from nncompress_jax.training import checkpoint
from nncompress_jax.training.config import Config
from nncompress_jax.types import Variables


def trained_variables(init: str, model: str | None) -> Variables:
    """What was trained before.

    Args:
      init: the workdir of a run, a .pth file of the original project, or a .safetensors file.
      model: name of the network.

    Raises:
      InputError: where it cannot be read.
    """
    if Path(init).suffix == ".pth":
        return torch.load(init, model=model)
    if Path(init).suffix == ".safetensors":
        return load_safetensors(init, model=model)
    return checkpoint.restore(init)


def initial_variables(config: Config) -> Variables | None:
    """What `loop.train` takes beside the configuration.

    Args:
      config: its `init` and `recipe` are followed.

    Returns:
      The network's variables; None: the run begins at random.

    Raises:
      InputError: for a recipe without weights to compress, and where either cannot be read.
    """
    if config.init is None:
        if config.recipe:
            raise InputError(f"--recipe={config.recipe} needs --init, the weights that are compressed")
        return None
    variables = trained_variables(config.init, config.model)
    if not config.recipe:
        return variables
    network = models.fitting(models.create(config.model), variables)
    dataset = sources.load(config.dataset, data_dir=config.data_dir, image_size=config.image_size, stream=config.stream)
    image = jnp.zeros((1, *dataset.train.image_shape))
    return compress(variables, recipe(config.recipe), apply=network.apply, batches=[image])
