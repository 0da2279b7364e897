"""Checkpoints that torch wrote: a network that others trained -> variables.

Known are the original project's, and those of kuangliu/pytorch-cifar, chenyaofo/pytorch-cifar-models,
akamaster/pytorch_resnet_cifar10 and torchvision, as `layouts` lists them. Files are told by the keys in them.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nncompress_jax.errors import InputError, require
from nncompress_jax.importers.state_dicts import Recognised, convert, entries, recognised
from nncompress_jax.types import Variables

__all__ = ["Recognised", "convert", "entries", "load", "read", "recognised", "unwrapped"]

WRAPPERS = {"module", "_orig_mod"}
"""Names under which DataParallel and compiled modules hold what they wrap."""

NETWORKS = ("model", "net", "network", "backbone")
"""Names under which training modules hold the network beside other things, such as losses."""


def load(path: str | Path, *, model: str | None = None) -> Variables:
    """Variables of a `.pth` file.

    Args:
      path: as `read` takes it.
      model: name of the network it must be of; by default any that fits.

    Returns:
      {"params", "batch_stats"} for `models.create` of that network.

    Raises:
      InputError: as `read` does, and for a state dict of another network.
    """
    state_dict = read(path)
    try:
        return convert(state_dict, model=model)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The state dict in a file.

    Args:
      path: of what `torch.save` wrote, under whatever name (.pth, .pt, .pth.tar, .ckpt): a state dict, or a checkpoint
        that holds one. Only tensors are read, no code.

    Returns:
      Arrays by torch's keys, without the names of modules that wrap the network.

    Raises:
      InputError: if torch is not installed, or the file is not such a file.
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
        return {key: _array(key, entry) for key, entry in state_dict.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check_size(file: Path) -> None:
    """Raises InputError where what torch zipped would unpack to more than it is."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as stored:
        unpacked = sum(entry.file_size for entry in stored.infolist())
    if unpacked > file.stat().st_size:
        raise InputError(f"it unpacks to {unpacked:,} bytes")


def unwrapped(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without the names of modules that hold the network or a part of it.

    Those are `WRAPPERS`, wherever they stand; what all keys begin with; and one of `NETWORKS`, which then stands for
    the network, and other keys for what is beside it.

    Example:
      >>> unwrapped({"model.module.conv1.weight": 1, "model.module.fc.bias": 2, "loss.weight": 3})
      {'conv1.weight': 1, 'fc.bias': 2}
    """
    content = {".".join(part for part in key.split(".") if part not in WRAPPERS): state_dict[key] for key in state_dict}
    while content:
        heads = {key.partition(".")[0] if "." in key else "" for key in content}
        named = [name for name in NETWORKS if name in heads]
        (head,) = named if len(named) == 1 else heads if len(heads) == 1 else ("",)
        if not head:
            break
        content = {key.removeprefix(f"{head}."): content[key] for key in content if key.startswith(f"{head}.")}
    return content


def _state_dict(content: Any) -> dict[str, Any] | None:
    """The tensors by their keys, unwrapped: from what training scripts save beside them, as an epoch, an optimizer."""

    def is_state_dict(candidate: Any) -> bool:
        if not isinstance(candidate, Mapping) or not candidate:
            return False
        return all(isinstance(key, str) and hasattr(entry, "numpy") for key, entry in candidate.items())

    if isinstance(content, Mapping) and not is_state_dict(content):
        inner = {key: entry for key, entry in content.items() if is_state_dict(entry)}
        content = inner.get("state_dict") or (next(iter(inner.values())) if len(inner) == 1 else None)
    return unwrapped(content) if is_state_dict(content) else None


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
