"""Networks that were trained, by a run or in a file: with their data set, and as what another run begins with."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp

from nncompress_jax import models
from nncompress_jax.data import sources
from nncompress_jax.data.sources import Dataset
from nncompress_jax.errors import InputError
from nncompress_jax.importers import torch
from nncompress_jax.importers.safetensors import load_safetensors
from nncompress_jax.models.vgg import VGG
from nncompress_jax.recipes import compress, recipe
from nncompress_jax.training import checkpoint
from nncompress_jax.training import config as configuration
from nncompress_jax.training.config import Config
from nncompress_jax.training.setup import load_dataset
from nncompress_jax.types import Variables


def trained_variables(init: str, model: str | None) -> Variables:
    """What was trained before.

    Args:
      init: the workdir of a run, a .pth file of the original project, or a .safetensors file.
      model: name of the network.

    Raises:
      InputError: where it cannot be read.
    """
    if not _is_file(init):
        return checkpoint.restore(init)
    load = load_safetensors if Path(init).suffix == ".safetensors" else torch.load
    return load(init, model=model)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, and what it is tested on.

    Attributes:
      model: its name.
      network: with the classes and widths of its variables, computing in float32.
      variables: what was trained compressed is as it trained.
      dataset: with images of the size that the network takes.
    """

    model: str
    network: VGG
    variables: Variables
    dataset: Dataset


def trained(init: str, *, model: str | None = None, dataset: str | None = None, data_dir: str | None = None) -> Trained:
    """A trained network.

    Args:
      init: as `trained_variables` takes it.
      model: name of the network; of a run it is known.
      dataset: by default the run's, or cifar10.
      data_dir: by default the run's.

    Raises:
      InputError: where the network or its data set cannot be read, and for a data set of other classes.
    """
    run = None if _is_file(init) else configuration.read(init)
    model = run.model if run else model
    if model is None:
        raise InputError(f"--model is missing: the network that {init} is of")
    variables = trained_variables(init, model)
    network = models.fitting(models.create(model), variables)
    name, folder = (run.dataset, run.data_dir) if run else ("cifar10", None)
    name = dataset or name
    images = sources.load(name, data_dir=data_dir or folder, image_size=network.image_size(variables))
    if network.num_classes != len(images.class_names):
        raise InputError(
            f"{name} has {len(images.class_names)} classes, the network {network.num_classes}; choose another --dataset"
        )
    return Trained(model, network, variables, images)


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
    image = jnp.zeros((1, *load_dataset(config).train.image_shape))
    return compress(variables, recipe(config.recipe), apply=network.apply, batches=[image])


def _is_file(init: str) -> bool:
    """Else it is a workdir, perhaps a remote one."""
    return Path(init).suffix in (".pth", ".safetensors") or Path(init).is_file()
