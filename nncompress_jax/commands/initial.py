"""Networks that were trained, by a run or in a file: with their data set, and as what another run begins with."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from nncompress_jax import models
from nncompress_jax.artifact.container import MAGIC
from nncompress_jax.commands.turns import compressed, stages
from nncompress_jax.data import sources
from nncompress_jax.data.sources import Dataset
from nncompress_jax.errors import InputError
from nncompress_jax.importers import torch
from nncompress_jax.importers.safetensors import load_safetensors, torch_state_dict
from nncompress_jax.models.exits import with_exits, without_exits
from nncompress_jax.training import checkpoint
from nncompress_jax.training import config as configuration
from nncompress_jax.training.config import Config
from nncompress_jax.types import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """What a network is tested on."""

    dataset: str | None = None
    """By default the workdir's, or cifar10."""
    data_dir: str | None = None
    """Folder of prepared data sets; by default the workdir's, or that of tensorflow-datasets."""
    train_split: str | None = None
    """Training images, in tensorflow-datasets' notation, as train[:90%]; by default the workdir's, or train."""
    test_split: str | None = None
    """What is tested on, as train[90%:]; by default the workdir's, or test, or validation where there is none."""

    def load(self, run: Config | None, image_size: int | None) -> Dataset:
        """Of this run; Raises InputError as `sources.load` does."""
        name = self.dataset or (run.dataset if run else "cifar10")
        train, test = (run.train_split, run.test_split) if run and run.dataset == name else ("train", None)
        splits = (self.train_split or train, self.test_split or test)
        data_dir = self.data_dir or (run.data_dir if run else None)
        return sources.load(name, data_dir=data_dir, image_size=image_size, splits=splits)


ANY = Images()


def trained_variables(init: str, model: str | None) -> tuple[str, Variables]:
    """What was trained before: the name of its network, and its variables.

    Args:
      init: the workdir of a run, a file that torch wrote, or a safetensors file; told apart by what is in them.
      model: name of the network; of a run it is known, and state dicts of torch tell it by their keys.

    Raises:
      InputError: where it cannot be read, or nothing tells the network.
    """
    kind = kind_of(init)
    if kind == "compressed":
        raise InputError(f"{init}: a compressed network; expected the weights that it was made of")
    if kind == "run":
        return model or configuration.read(init).model, checkpoint.restore(init)
    state_dict = torch.read(init) if kind == "torch" else torch_state_dict(init)
    if state_dict is None:
        if model is None:
            raise InputError(f"--model is missing: the network that {init} is of, whose names are not torch's")
        return model, load_safetensors(init)
    try:
        return torch.recognised(state_dict, model=model).model, torch.convert(state_dict, model=model)
    except InputError as error:
        raise InputError(f"{init}: {error}") from None


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
    network: models.Network | models.OwnNetwork
    variables: Variables
    dataset: Dataset


def trained(init: str, *, model: str | None = None, images: Images = ANY) -> Trained:
    """A trained network.

    Args:
      init: as `trained_variables` takes it.
      model: as `trained_variables` takes it.
      images: what it is tested on.

    Raises:
      InputError: where the network or its data set cannot be read, and for a data set of other classes.
    """
    run = configuration.read(init) if kind_of(init) == "run" else None
    model, variables = trained_variables(init, run.model if run else model)
    network = models.fitting(models.named(model), variables)
    size = checkpoint.load_progress(init).image_shape[0] if run else network.image_size(variables)
    dataset = images.load(run, size)
    classes = len(dataset.class_names)
    if isinstance(network, models.OwnNetwork):
        network = network.copy(num_classes=classes)
    if network.num_classes != classes:
        raise InputError(
            f"{dataset.name} has {classes} classes, the network {network.num_classes}; choose another --dataset"
        )
    return Trained(model, network, variables, dataset)


def named(networks: Sequence[str], images: Images) -> Iterator[Trained]:
    """Several trained networks, one after the other.

    Args:
      networks: MODEL=INIT each, as vgg16=vgg16.pth.
      images: what they are tested on.

    Raises:
      InputError: for none, for others, all named, and as `trained` does.
    """
    if (wrong := [each for each in networks if "=" not in each]) or not networks:
        raise InputError(f"networks {', '.join(wrong) or 'are missing'}: expected MODEL=WEIGHTS, as vgg16=vgg16.pth")
    for each in networks:
        model, init = each.split("=", 1)
        yield trained(init, model=model, images=images)


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
    _, variables = trained_variables(config.init, without_exits(config.model))
    variables = with_exits(models.named(config.model), variables)
    if not config.recipe:
        return variables
    return compressed(config, stages(config.recipe, config.completed_preset().epochs)[0], variables)


def kind_of(init: str) -> Literal["run", "safetensors", "torch", "compressed"]:
    """Of trained weights, by what is there and not by its name; a remote place is a workdir.

    Raises:
      InputError: where there is nothing.
    """
    if "://" in init or Path(init).is_dir():
        return "run"
    if not Path(init).exists():
        raise InputError(
            f"{init}: no such file or folder; expected the --workdir of a training run, or a file of torch or of "
            "safetensors"
        )
    with Path(init).open("rb") as file:
        begin = file.read(9)
    if begin.startswith(MAGIC):
        return "compressed"
    return "safetensors" if begin[8:] == b"{" else "torch"
