"""How a command starts, and how it ends when what it was given is wrong."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import tyro

from nncompress_jax.data import cache
from nncompress_jax.errors import InputError, StorageError, UnfinishedError
from nncompress_jax.training import processes

Options = TypeVar("Options")


def run(
    main: Callable[[Options], None],
    options: type[Options],
    *,
    name: str | None = None,
    flags: Sequence[str] | None = None,
) -> None:
    """Calls main with the options of the command line.

    Compiled programs are kept in `$JAX_COMPILATION_CACHE_DIR`, by default in `compiled` in the folder of decoded
    images. On an `InputError` it prints one line and exits with code 2, on an `UnfinishedError` with 75, on a
    `StorageError` with 74, on Ctrl-C with 130.

    Args:
      main: the command.
      options: a dataclass; its fields' docstrings are the help texts.
      name: of the command, in its help; by default the script's.
      flags: by default those that the script was called with.
    """
    for library in ("absl", "asyncio"):  # orbax logs what it raises, too, with pages of its threads
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache.folder() / "compiled"))
    try:
        description = sys.modules[main.__module__].__doc__
        main(tyro.cli(options, prog=name, args=flags, description=description, use_underscores=True))
    except InputError as error:
        _end(f"error: {error}", 2)
    except (UnfinishedError, StorageError) as error:
        _end(f"stopped: {error}", error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", 130)


def _end(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    processes.leave(code)
    sys.exit(code)
