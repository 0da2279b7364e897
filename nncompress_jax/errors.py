"""The one exception for mistakes that a caller can mend, and its kinds."""

import importlib.util


class InputError(ValueError):
    """An expected mistake in what was given: a name, a file, a shape, an option.

    Its message is one line that names what was found, what was expected and what to do. The commands
    print that line and exit with code 2; every other exception is a defect of ours and keeps its traceback.
    """


class ArtifactError(InputError):
    """A file of a compressed network that is damaged, of another format, or of a newer version.

    Its message names the file and the section; nothing of the file is used.
    """


class NotInstalledError(InputError, ImportError):
    """A part of the package whose own packages are not installed."""


class UnfinishedError(Exception):
    """A run that ended before its end, through no fault of its own; the same command goes on where it stopped."""

    exit_code = 75


class StorageError(Exception):
    """What cannot be written, for want of room or permission; what was written before is whole."""

    exit_code = 74


def require(part: str, *packages: str, extra: str) -> None:
    """Says which extra to install, before an import fails.

    Args:
      part: what needs them, as its user calls it.
      packages: by the names that they are imported as.
      extra: of pyproject.toml, which brings them.

    Raises:
      NotInstalledError: when one of them is missing.

    Example:
      >>> require("nncompress_jax.magic", "numpy", "wand", extra="magic")
      Traceback (most recent call last):
      nncompress_jax.errors.NotInstalledError: nncompress_jax.magic needs wand: pip install 'nncompress-jax[magic]'
    """
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        raise NotInstalledError(f"{part} needs {', '.join(missing)}: pip install 'nncompress-jax[{extra}]'")
