"""State dicts of torch: which network one is of, and its variables."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nncompress_jax import models
from nncompress_jax.errors import InputError
from nncompress_jax.importers.channels import SAME, ordered
from nncompress_jax.importers.layouts import LAYOUTS, Layout, linen_names
from nncompress_jax.models.network import shapes
from nncompress_jax.types import Variables

Entries = dict[str, tuple[int, ...]]
"""Shapes by key, in the order in which torch writes them."""

PARTS = {
    "params": {"kernel": "weight", "scale": "weight", "bias": "bias"},
    "batch_stats": {"mean": "running_mean", "var": "running_var"},
}
"""By collection, linen's names of a layer's arrays and torch's; in torch's order."""

COUNT = "num_batches_tracked"
"""Of batch norm, a number that no network computes with; torch before 0.4.1 did not write it."""


@dataclasses.dataclass(frozen=True)
class Recognised:
    """What a state dict is of.

    Attributes:
      model: name of the network, for `models.create`.
      options: for `models.create`: the number of classes.
      image_shape: [H, W, I] of images that its variables take.
      layout: how it is written.
    """

    model: str
    options: Mapping[str, Any]
    image_shape: tuple[int, ...]
    layout: Layout

    @functools.cached_property
    def layers(self) -> Mapping[str, str]:
        """Names of linen's layers by the keys of torch's modules."""
        return linen_names(self.layout.modules(models.create(self.model)))

    @functools.cached_property
    def variables(self) -> Any:
        """Shapes and dtypes of the network's variables."""
        return shapes(models.create(self.model, **self.options), self.image_shape)

    def entries(self) -> Entries:
        """What a state dict of the network holds."""
        variables, result = self.variables, {}
        for key, layer in self.layers.items():
            for collection, names in PARTS.items():
                arrays = variables.get(collection, {}).get(layer, {})
                for name in (name for name in names if name in arrays):
                    result[f"{key}.{names[name]}"] = _torch_shape(arrays[name].shape)
            if layer in variables.get("batch_stats", {}):
                result[f"{key}.{COUNT}"] = ()
        return result


def entries(model: str, *, num_classes: int = 10, image_channels: int = 3, image_size: int | None = None) -> Entries:
    """What a state dict of a network holds, in the first of the layouts that it is known in.

    Args:
      model: a name of `models.create`.
      num_classes: C.
      image_channels: I.
      image_size: H; by default of the images that the network is published for.

    Raises:
      InputError: for a name that is not there, and for a network in no known layout.

    Example:
      >>> list(entries("vgg16ds").items())[7:9]
      [('features.3.weight', (64, 1, 3, 3)), ('features.3.bias', (64,))]
    """
    size = image_size or models.create(model).image_size(None)
    first = next(_known(model))
    return dataclasses.replace(
        first, options={"num_classes": num_classes}, image_shape=(size, size, image_channels)
    ).entries()


def recognised(state_dict: Mapping[str, Any], *, model: str | None = None) -> Recognised:
    """The network that a state dict is of, told by its keys and shapes.

    Args:
      state_dict: arrays by torch's keys.
      model: name of the network it must be of; by default any that fits.

    Raises:
      InputError: where it is of none, or of another than `model`.

    Example:
      >>> state_dict = {key: np.empty(shape) for key, shape in entries("resnet20_projection", num_classes=5).items()}
      >>> network = recognised(state_dict)
      >>> network.model, network.options, network.layout.source
      ('resnet20_projection', {'num_classes': 5}, 'chenyaofo/pytorch-cifar-models')
    """
    found: Entries = {key: tuple(np.shape(entry)) for key, entry in state_dict.items()}
    closest, differences = _closest(found, model)
    if closest and not differences:
        return closest
    other, unlike = _closest(found, None) if model else (None, [])
    instead = f"; it is of {other.model}" if other and not unlike else ""
    if closest is None or (model is None and 2 * len(differences) > len(found)):
        expected = "; or ".join(dict.fromkeys(_in_words(known) for known in _known(model)))
        raise InputError(f"found the keys {', '.join(list(found)[:3])}, ...; expected {expected}{instead}")
    raise InputError(
        f"not a state dict of {closest.model}: {differences[0]} ({len(differences)} entries differ){instead}"
    )


def convert(state_dict: Mapping[str, Any], *, model: str | None = None) -> Variables:
    """Variables from the arrays of a state dict.

    Args:
      state_dict: arrays by torch's keys: kernels [O, I, H, W], dense kernels [O, I].
      model: name of the network it must be of; by default any that fits.

    Returns:
      {"params", "batch_stats"} in float32 and linen's layout, layers numbered in order; without batch norm no
      "batch_stats".

    Raises:
      InputError: if keys or shapes are not those of the network.

    Example:
      >>> state_dict = {key: np.ones(shape) for key, shape in entries("vgg11").items()}
      >>> convert(state_dict)["params"]["Conv_0"]["kernel"].shape
      (3, 3, 3, 64)
    """
    network = recognised(state_dict, model=model)
    expected, orders = network.variables, network.layout.orders(models.create(network.model))
    result: dict[str, dict[str, dict[str, Any]]] = {collection: {} for collection in expected}
    channels = 0
    for key, layer in network.layers.items():
        for collection, layers in expected.items():
            for name in layers.get(layer, ()):
                array = np.asarray(state_dict[f"{key}.{PARTS[collection][name]}"], np.float32)
                if name == "kernel":
                    array, channels = _linen_layout(array, channels), len(array)
                array = ordered(array, orders.get(layer, (SAME, SAME)))
                result[collection].setdefault(layer, {})[name] = jnp.asarray(array)
    return result


def _known(model: str | None) -> Iterator[Recognised]:
    """All networks in all layouts that fit them; Raises InputError for a name that has none."""
    if model is not None and model not in models.NAMES:
        raise InputError(f"unknown model {model!r}; choose one of {', '.join(models.NAMES)}")
    count = 0
    for name in [model] if model else models.NAMES:
        network = models.create(name)
        for layout in LAYOUTS:
            if layout.fits(network) and not network.exits:
                count += 1
                size = network.image_size(None)
                yield Recognised(name, {}, (size, size, 3), layout)
    if not count:
        raise InputError(f"no project is known whose weights in torch are of {model}; leave the name of the model out")


def _closest(found: Entries, model: str | None) -> tuple[Recognised | None, list[str]]:
    """The network whose entries differ least, and how they do; None: nothing has its first and last layer."""
    modules = {key.rpartition(".")[0] for key in found}
    sized = [(len(modules ^ known.layers.keys()), _sized(known, found)) for known in _known(model)]
    ranked = [(distance, network) for distance, network in sized if network]
    least = min((distance for distance, _ in ranked), default=0)
    differing = [(_differences(found, network.entries()), network) for distance, network in ranked if distance == least]
    differences, closest = min(differing, key=lambda pair: len(pair[0]), default=([], None))
    return closest, differences


def _sized(known: Recognised, found: Entries) -> Recognised | None:
    """With the classes and the shape of images that kernels tell; None: where they are missing."""
    keys = list(known.layers)
    dense = next(key for key in keys if known.layers[key] == "Dense_0")
    first, behind_maps, last = (found.get(f"{key}.weight", ()) for key in (keys[0], dense, keys[-1]))
    if (len(first), len(behind_maps), len(last)) != (4, 2, 2) or 0 in (first[1], behind_maps[1], last[0]):
        return None
    kernel = jax.ShapeDtypeStruct(behind_maps[::-1], jnp.float32)
    size = models.create(known.model).image_size({"params": {"Dense_0": {"kernel": kernel}}})
    size = max(size, known.image_shape[0])
    return dataclasses.replace(known, options={"num_classes": last[0]}, image_shape=(size, size, first[1]))


def _differences(found: Entries, expected: Entries) -> list[str]:
    return [
        f"{key} is {found.get(key, 'missing')}, expected {expected.get(key, 'no such key')}"
        for key in dict.fromkeys([*expected, *found])
        if found.get(key) != expected.get(key) and not (key.endswith(COUNT) and key not in found)
    ]


def _in_words(known: Recognised) -> str:
    first, *_, last = known.layers
    return f"{first}.weight to {last}.bias of {known.layout.source}"


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[H, W, I, O] -> [O, I, H, W]; [I, O] -> [O, I]."""
    return (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _linen_layout(weight: np.ndarray, channels: int) -> np.ndarray:
    """[O, I, H, W] -> [H, W, I, O]; a dense [O, I H W] behind a layer of I channels -> [H W I, O]."""
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    size = math.isqrt(weight.shape[1] // channels)
    return weight.reshape(len(weight), channels, size, size).transpose(2, 3, 1, 0).reshape(-1, len(weight))
