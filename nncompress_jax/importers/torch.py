"""The original project's checkpoints: a torch state dict of one of its networks -> variables."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nncompress_jax.errors import InputError, require
from nncompress_jax.models import NAMES
from nncompress_jax.models.vgg import CONFIGURATIONS
from nncompress_jax.types import Variables

Entries = dict[str, tuple[int, ...]]
"""Shapes by key, in the order in which torch writes them."""

STATISTICS = {"running_mean": "mean", "running_var": "var"}

WRAPPERS = {"module", "_orig_mod"}
"""Names under which DataParallel and compiled modules hold what they wrap."""


def load(path: str | Path, *, model: str | None = None) -> Variables:
    """Variables of a `.pth` file.

    Args:
      path: of what `torch.save` wrote, under whatever name: a state dict, or a checkpoint that holds one. Only tensors
        are read, no code.
      model: name of the network it must be of; by default any that fits.

    Returns:
      {"params", "batch_stats"} for `models.create` of that network.

    Raises:
      InputError: if torch is not installed, the file is not such a file, or it is of another network.
    """
    require(f"{path}: reading it", "torch", extra="torch")
    import torch

    file = Path(path).expanduser() if str(path).startswith("~") else Path(path)
    try:
        _check_size(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a .pth file") from None
    except Exception as error:  # whatever torch and its unpickler raise on a file that is something else
        reason = str(error).split("\n")[0][:80]
        raise InputError(f"{path}: not a whole .pth file ({reason}...); save a state dict by torch.save") from None
    state_dict = _state_dict(content)
    if state_dict is None:
        found = f" with {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise InputError(f"{path}: holds a {type(content).__name__}{found}, expected a state dict of tensors")
    try:
        arrays = {key: _array(key, entry) for key, entry in state_dict.items()}
        return convert(arrays, model=model)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def convert(state_dict: Mapping[str, Any], *, model: str | None = None) -> Variables:
    """Variables from the arrays of a state dict.

    Args:
      state_dict: arrays by torch's keys: kernels [O, I, H, W], dense kernels [O, I].
      model: name of the network it must be of; by default any that fits.

    Returns:
      {"params", "batch_stats"} in float32 and linen's layout, layers numbered in order.

    Raises:
      InputError: if keys or shapes are not those of the network.
    """
    found: Entries = {key: tuple(np.shape(entry)) for key, entry in state_dict.items()}
    size, ordered = _checked(found, model)
    params: dict[str, dict[str, Any]] = {}
    statistics: dict[str, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    for prefix in dict.fromkeys(key.rpartition(".")[0] for key in ordered):
        weight = np.asarray(state_dict[f"{prefix}.weight"], np.float32)
        kind = {1: "BatchNorm", 2: "Dense", 4: "Conv"}[weight.ndim]
        name = f"{kind}_{counts.setdefault(kind, 0)}"
        counts[kind] += 1
        bias = jnp.asarray(state_dict[f"{prefix}.bias"], jnp.float32)
        weight_name = "scale" if kind == "BatchNorm" else "kernel"
        params[name] = {weight_name: jnp.asarray(_linen_layout(weight, size)), "bias": bias}
        if kind == "BatchNorm":
            statistics[name] = {
                linen: jnp.asarray(state_dict[f"{prefix}.{torch}"], jnp.float32) for torch, linen in STATISTICS.items()
            }
    return {"params": params, "batch_stats": statistics}


def entries(model: str, *, num_classes: int = 10, image_channels: int = 3, image_size: int = 32) -> Entries:
    """What the original project's state dict of a network holds.

    Args:
      model: a name of `models.create`.
      num_classes: C.
      image_channels: I.
      image_size: H, divisible by 32.

    Example:
      >>> list(entries("vgg16ds").items())[7:9]
      [('features.3.weight', (64, 1, 3, 3)), ('features.3.bias', (64,))]
    """
    result: Entries = {}
    position, inputs = 0, image_channels

    def layer(kernel: tuple[int, ...]) -> None:
        nonlocal position
        features = kernel[:1]
        result[f"features.{position}.weight"] = kernel
        result[f"features.{position}.bias"] = features
        for name in ("weight", "bias", *STATISTICS):
            result[f"features.{position + 1}.{name}"] = features
        result[f"features.{position + 1}.num_batches_tracked"] = ()
        position += 3  # convolution, batch norm, ReLU

    for block in CONFIGURATIONS[NAMES[model]]:
        if not block.features:
            position += 1
            continue
        if block.separable:
            layer((inputs, 1, 3, 3))
        layer((block.features, inputs, *((1, 1) if block.separable else (3, 3))))
        inputs = block.features
    result["classifier.0.weight"] = (num_classes, inputs * (image_size // 32) ** 2)
    result["classifier.0.bias"] = (num_classes,)
    return result


def _checked(found: Entries, model: str | None) -> tuple[int, Entries]:
    """The pixels [H / 32, H / 32] before the dense layer, and the entries in torch's order; raises InputError unless
    they are a network's."""
    if model is not None and model not in NAMES:
        raise InputError(f"unknown model {model!r}; choose one of {', '.join(NAMES)}")
    dense = found.get("classifier.0.weight", ())
    first = found.get("features.0.weight", ())
    if len(dense) != 2 or len(first) != 4:
        raise InputError(
            f"found the keys {', '.join(list(found)[:3])}, ...; "
            "expected features.0.weight to classifier.0.bias of the original project"
        )
    size = max(math.isqrt(dense[1] // 512), 1)
    candidates = {
        name: entries(name, num_classes=dense[0], image_channels=first[1], image_size=32 * size)
        for name in ([model] if model else NAMES)
    }
    differing = {name: _differences(found, expected) for name, expected in candidates.items()}
    closest = min(differing, key=lambda name: len(differing[name]))
    if differing[closest]:
        raise InputError(
            f"not a state dict of {closest}: {differing[closest][0]} ({len(differing[closest])} entries differ)"
        )
    return size, candidates[closest]


def _differences(found: Entries, expected: Entries) -> list[str]:
    return [
        f"{key} is {found.get(key, 'missing')}, expected {expected.get(key, 'no such key')}"
        for key in dict.fromkeys([*expected, *found])
        if found.get(key) != expected.get(key)
    ]


def _linen_layout(weight: np.ndarray, size: int) -> np.ndarray:
    """[O, I, H, W] -> [H, W, I, O]; a dense [O, I H W] behind an image -> [H W I, O]."""
    if weight.ndim == 4:
        return weight.transpose(2, 3, 1, 0)
    if weight.ndim == 2:
        return weight.reshape(weight.shape[0], -1, size, size).transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
    return weight


def _check_size(file: Path) -> None:
    """Raises InputError where what torch zipped would unpack to more than it is."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as stored:
        unpacked = sum(entry.file_size for entry in stored.infolist())
    if unpacked > file.stat().st_size:
        raise InputError(f"it unpacks to {unpacked:,} bytes")


def _state_dict(content: Any) -> dict[str, Any] | None:
    """The tensors by their keys, unwrapped: from what training scripts save beside them (an epoch, an optimizer), and
    from modules that hold the network or a part of it (those of `WRAPPERS`, and any that holds all)."""

    def is_state_dict(candidate: Any) -> bool:
        if not isinstance(candidate, Mapping) or not candidate:
            return False
        return all(isinstance(key, str) and hasattr(entry, "numpy") for key, entry in candidate.items())

    if isinstance(content, Mapping) and not is_state_dict(content):
        inner = {key: entry for key, entry in content.items() if is_state_dict(entry)}
        content = inner.get("state_dict") or (next(iter(inner.values())) if len(inner) == 1 else None)
    if not is_state_dict(content):
        return None
    content = {".".join(part for part in key.split(".") if part not in WRAPPERS): content[key] for key in content}
    while all("." in key for key in content) and len({key.partition(".")[0] for key in content}) == 1:
        content = {key.partition(".")[2]: entry for key, entry in content.items()}
    return content


def _array(key: str, tensor: Any) -> np.ndarray:
    """Half precision as float32; NumPy has no bfloat16."""
    try:
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(f"{key} is {tuple(tensor.shape)}, of which only a part is stored")
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except InputError:
        raise
    except Exception as error:  # sparse, quantized and other tensors that are no plain array
        raise InputError(f"{key} is no plain tensor ({str(error).splitlines()[0][:80]})") from None
