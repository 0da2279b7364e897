"""How a command starts, and how it ends when what it was given is wrong."""

import logging
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from nncompress_jax.errors import InputError

Options = TypeVar("Options")


def run(main: Callable[[Options], None], options: type[Options]) -> None:
    """Calls main with the options of the command line; exits with code 2 and one line on an `InputError`.

    Args:
      main: the command.
      options: a dataclass; its fields' docstrings are the help texts.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        main(tyro.cli(options, description=sys.modules[main.__module__].__doc__, use_underscores=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
