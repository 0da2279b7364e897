"""What defines a run, from the command line to its folder."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
from etils import epath

from nncompress_jax.errors import InputError
from nncompress_jax.training.schedules import Preset, preset

FILE_NAME = "config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How networks are trained."""

    dataset: str = "cifar10"
    """digits, or a data set of tensorflow-datasets: cifar10, or any other of labelled images that is prepared."""
    train_split: str = "train"
    """What is learnt from, in tensorflow-datasets' notation, as train[:90%]."""
    test_split: str | None = None
    """What is tested on, as train[90%:]; by default test, or validation where there is none."""
    data_dir: str | None = None
    """Folder of prepared data sets; by default that of tensorflow-datasets."""
    image_size: int | None = None
    """Images are resized to this height and width, a multiple of 32; by default their own, or 32."""
    preset: str = "fast"
    """fast: one cycle, 30 epochs; seed: the original project's, 200 epochs."""
    epochs: int | None = None
    """Passes over the training images; by default the preset's."""
    batch_size: int | None = None
    """Images a step, over all devices; by default the preset's."""
    learning_rate: float | None = None
    """The highest of the schedule; by default the preset's."""
    stream: bool | None = None
    """Read the images as training goes on instead of holding them all; by default where they take more than 2 GiB."""
    seed: int = 0
    """Of the initial weights, the order of the images and the augmentation."""
    bfloat16: bool | None = None
    """Compute in bfloat16; parameters, batch statistics and loss stay float32. By default on GPU and TPU alone."""

    def computes_in_bfloat16(self) -> bool:
        """As asked for, or as the platform runs well."""
        return jax.default_backend() != "cpu" if self.bfloat16 is None else self.bfloat16

    def completed_preset(self) -> Preset:
        """The preset with this run's own epochs, batch size and learning rate.

        Raises:
          InputError: for an unknown preset or a number out of range.
        """
        own = {name: getattr(self, name) for name in ("epochs", "batch_size", "learning_rate")}
        for name, value in own.items():
            if value is not None and not value > 0:
                raise InputError(f"{name}={value}: expected more than 0")
        chosen = {name: value for name, value in own.items() if value is not None}
        return dataclasses.replace(preset(self.preset), **chosen)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """One training run."""

    model: str
    """vgg11, vgg13, vgg16, vgg19, vgg16ds (depthwise separable), vgg16ds_stride (strides for pooling), resnet18,
    resnet20, resnet32, resnet56, resnet110, mobilenetv2, or another name of `nncompress_jax.models`."""
    init: str | None = None
    """Weights to begin with, by default at random: a workdir, a file of torch, or safetensors."""
    recipe: str | None = None
    """How they are compressed before they train on, as fake_quantize:4 or prune:0.9+cluster:4; see `nnc.recipe`. In
    turns of --epochs each, as prune:0.6/prune:0.8 or prune:0.6/dense; step by step within a turn: prune:0.9@cubic."""
    teacher: str | None = None
    """A trained network whose answers are learnt, too: a workdir, a file as of --init, a compressed .nnc file, or self,
    the network of --init before the recipe compresses it."""
    teacher_model: str | None = None
    """The teacher's network, where its file does not say."""
    temperature: float = 4.0
    """Of the distillation: the higher, the more counts what the teacher says of wrong classes."""
    alpha: float = 0.9
    """Share of the teacher in the loss; the labels have the rest."""
    hints: str | None = None
    """Weights whose inputs are to be those of the teacher's, as params/Conv_5/kernel:params/Conv_7/kernel,..."""
    workdir: str | None = None
    """Folder of checkpoints and metrics, gs:// too; a run found there is resumed. By default made up from the flags."""
    checkpoint_steps: int = 1000
    """A checkpoint is written after each epoch, and after so many steps within one."""
    keep_last: int = 2
    """Checkpoints that are kept beside the one of the best test."""

    def folder(self) -> epath.Path:
        """The workdir, or `runs/` and what tells this run from others."""
        if self.workdir:
            return epath.Path(self.workdir)
        own = ("epochs", "batch_size", "learning_rate", "image_size")
        changed = [f"{name}{getattr(self, name)}" for name in own if getattr(self, name) is not None]
        parts = [self.dataset.replace("/", "_").replace(":", "_"), self.model, self.preset, *changed]
        if (self.train_split, self.test_split) != ("train", None):
            parts.append(re.sub("[^0-9A-Za-z_:%]", "", f"{self.train_split}_{self.test_split}").replace(":", "_"))
        if self.init:
            parts.append(f"from-{Path(self.init).stem}")
        if self.recipe:
            parts.append(re.sub("[+/@]", "-", self.recipe.replace(":", "")))
        if self.teacher:
            parts.append(f"taught-by-{Path(self.teacher).stem}")
        return epath.Path("runs", "-".join([*parts, f"seed{self.seed}"] + ["bfloat16"] * bool(self.bfloat16)))


HOW_NOT_WHAT = {"workdir", "data_dir", "stream", "checkpoint_steps", "keep_last"}
"""Settings that may change when a run goes on: its result does not depend on them."""


def what(config: Config) -> dict[str, Any]:
    """The settings that a run's result depends on."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in HOW_NOT_WHAT}


def as_begun(config: Config) -> Config:
    """With the number format that its run began with, or now begins with, where the platform would choose it: a run
    does not change it when it goes on elsewhere. Raises InputError as `read` does."""
    if config.bfloat16 is not None:
        return config
    folder = config.folder()
    begun = read(folder).bfloat16 if (folder / FILE_NAME).exists() else config.computes_in_bfloat16()
    return dataclasses.replace(config, bfloat16=begun, workdir=str(folder))


def claim(config: Config, *, writes: bool = True) -> epath.Path:
    """Makes the workdir this run's, and returns it; of several processes one writes.

    Raises:
      InputError: if it belongs to a run of other settings.
    """
    folder = config.folder()
    if (folder / FILE_NAME).exists():
        ours, theirs = what(config), what(read(folder))
        for name in sorted(ours, key=lambda name: name != "model"):
            if ours[name] != theirs[name]:
                raise InputError(
                    f"{folder} holds a run of {name}={theirs[name]}, not {ours[name]}; "
                    f"choose another --workdir, or --{name}={theirs[name]}"
                )
        return folder
    if not writes:
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{FILE_NAME}.partial"
        partial.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        partial.replace(folder / FILE_NAME)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}; choose another --workdir") from None
    return folder


def read(workdir: str | Path | epath.Path) -> Config:
    """The configuration of the run in a workdir.

    Raises:
      InputError: if there is no run, or its configuration cannot be read.
    """
    folder = epath.Path(workdir)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the --workdir of a training run")
    file = folder / FILE_NAME
    if not file.exists():
        raise InputError(f"{folder}: has no {FILE_NAME}; expected the --workdir of a training run")
    try:
        return Config(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{file}: not a configuration of this version ({error}); train into another --workdir"
        ) from None
