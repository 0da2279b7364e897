"""How a command starts, and how it ends when what it was given is wrong."""

import contextlib
import dataclasses
import errno
import io
import json
import logging
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import docstring_parser
import jax
import tyro

from nncompress_jax import models
from nncompress_jax.data import cache
from nncompress_jax.errors import InputError, StorageError, UnfinishedError
from nncompress_jax.models.own import imported
from nncompress_jax.training import processes

Options = TypeVar("Options")

GIVEN = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EROFS,
    errno.ELOOP,
}
"""Error numbers of a path that was given wrongly."""


DESCRIBED: set[Any] = set()
"""Options whose fields have their help."""


NAMES, WITH_WEIGHTS = ("model", "teacher_model", "models"), ("networks", "teachers")
"""Options that name networks: by themselves, and as MODEL=WEIGHTS."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Printed:
    """What options of verbs have in common."""

    json: bool = False
    """Prints what was found as JSON, for programs; the words go to standard error."""


def run(
    main: Callable[[Options], Any],
    options: type[Options],
    *,
    name: str | None = None,
    flags: Sequence[str] | None = None,
) -> None:
    """Calls main with the options of the command line.

    Compiled programs are kept in `$JAX_COMPILATION_CACHE_DIR`, by default in `compiled` in the folder of decoded
    images. A `~` at the beginning of an option is the home folder, as in a shell. On an `InputError`, and on a path
    that cannot be read or written, it prints one line and exits with code 2, on an `UnfinishedError` with 75, on a
    `StorageError` with 74, on Ctrl-C with 130.

    Args:
      main: the command; what it returns is what `--json` prints, where its options are `Printed`.
      options: a dataclass; its fields' docstrings are the help texts.
      name: of the command, in its help; by default the script's.
      flags: by default those that the script was called with.
    """
    for library in ("absl", "asyncio"):  # orbax logs what it raises, too, with pages of its threads
        logging.getLogger(library).setLevel(logging.CRITICAL)
    folder = cache.folder()
    if folder and not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    description = _with_lines(sys.modules[main.__module__].__doc__ or "")
    _describe(options)
    try:
        given = tyro.cli(options, prog=name, args=flags, description=description, use_underscores=True)
        as_json = isinstance(given, Printed) and given.json
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            found = main(_named(_expanded(given)))
        if as_json:
            print(json.dumps(found, indent=2))
        sys.stdout.flush()
    except BrokenPipeError:  # who read the output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None or error.errno not in GIVEN:
            raise
        _end(f"error: {error.filename}: {error.strerror}; expected a path that can be used", 2)
    except InputError as error:
        _end(f"error: {error}", 2)
    except (UnfinishedError, StorageError) as error:
        _end(f"stopped: {error}", error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", 130)


def help_text(module: Any, name: str) -> str:
    """What `--help` prints.

    Args:
      module: of a command, with its `main` and `Options`.
      name: of the command.
    """
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        run(module.main, module.Options, name=name, flags=["--help"])
    return out.getvalue().strip()


def _with_lines(text: str) -> str:
    """A description of which commands keep a line each: tyro joins those that begin with a letter."""
    return re.sub(r"^(nncompress|python) ", r"$ \1 ", text, flags=re.MULTILINE)


def _describe(options: Any) -> None:
    """Makes the docstring of each field its help, as one paragraph: tyro would end lines where the source does."""
    if not dataclasses.is_dataclass(options) or options in DESCRIBED:
        return
    DESCRIBED.add(options)
    kinds = typing.get_type_hints(options, include_extras=True)
    texts = {param.arg_name: param.description for param in docstring_parser.parse_from_object(options).params}
    for field in dataclasses.fields(options):
        kind = kinds[field.name]
        inner, *_ = typing.get_args(kind) if typing.get_origin(kind) is typing.Annotated else (kind,)
        _describe(inner)
        if text := texts.get(field.name):
            options.__annotations__[field.name] = typing.Annotated[kind, tyro.conf.arg(help=" ".join(text.split()))]


def _named(value: Any) -> Any:
    """The options; networks that they name as package.module:function are known by that name from now on."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if field.name in NAMES + WITH_WEIGHTS:
                for text in [inner] if isinstance(inner, str | None) else inner:
                    name, _, weights = (text or "").partition("=")
                    if ":" in name and (weights or field.name in NAMES):
                        models.OWN.setdefault(name, imported(name))
            _named(inner)
    return value


def _expanded(value: Any) -> Any:
    """Options with home folders in place of `~`; shells leave it in `--workdir=~/runs/x`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _expanded(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, tuple):
        return tuple(map(_expanded, value))
    if not isinstance(value, str | Path) or not str(value).startswith("~"):
        return value
    expanded = os.path.expanduser(value)
    if expanded.startswith("~"):
        raise InputError(f"{value}: no such home folder; give the whole path, or ./{value}")
    return type(value)(expanded)


def _end(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    processes.leave(code)
    sys.exit(code)
