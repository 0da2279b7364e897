"""Says what this machine has: versions, devices, caches, and data sets that are prepared.

nncompress doctor
nncompress doctor --data_dir=/data
"""

import dataclasses
import importlib.metadata
import os
import platform
from pathlib import Path

import jax

from nncompress_jax.commands import cli
from nncompress_jax.data import cache

PACKAGES = (
    *("nncompress-jax", "jax", "jaxlib", "flax", "optax", "aqtp", "quax", "equinox", "orbax-checkpoint"),
    *("tensorflow-datasets", "tensorflow", "torch", "onnx", "onnxruntime", "safetensors"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(cli.Printed):
    """Where to look."""

    data_dir: Path | None = None
    """Folder of prepared data sets; by default that of tensorflow-datasets."""


def main(options: Options) -> dict[str, str]:
    """Prints a line for each."""
    compiled = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    data_dir = options.data_dir or Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")
    sets = sorted({file.parent.relative_to(data_dir).parts[0] for file in data_dir.glob("*/**/dataset_info.json")})
    found = {"python": f"{platform.python_version()}, {platform.platform()}, {os.cpu_count()} CPU cores"}
    found |= {package: _version(package) for package in PACKAGES}
    found["devices"] = ", ".join(map(_described, jax.devices()))
    found |= {"decoded images": _folder(cache.folder()), "compiled programs": _folder(Path(compiled or ""))}
    found["data sets"] = f"{', '.join(sets) or 'none'} in {data_dir}; digits, which needs none"
    for name, text in found.items():
        print(f"{name:20} {text}")
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _described(device: jax.Device) -> str:
    return f"{device.platform}:{device.id} ({device.device_kind})"


def _folder(folder: Path | None) -> str:
    if folder is None or not folder.is_dir():
        return f"{folder or 'none'}, nothing there yet"
    files = [file for file in folder.iterdir() if file.is_file()]
    return f"{folder}, {len(files):,} files, {sum(file.stat().st_size for file in files) / 1e6:,.0f} MB"
