"""Progress bars on a terminal, for what takes more than two seconds."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

import rich
from rich.progress import Progress

T = TypeVar("T")

DELAY = 2.0
"""Seconds that pass before a bar is shown."""


@contextlib.contextmanager
def bar(description: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Shows a bar while the block runs, and takes it away; none where output is no terminal.

    Args:
      description: of what is done.
      total: how many parts it has; None: not known.

    Yields:
      What is to be called when a part is done.

    Example:
      >>> with bar("counting", total=2) as advance:
      ...     advance()
      ...     advance()
    """
    console = rich.get_console()
    if not (console.is_terminal or console.is_jupyter):
        yield lambda: None
        return
    progress = Progress(transient=True, console=console)
    task = progress.add_task(description, total=total)
    timer = threading.Timer(DELAY, progress.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda: progress.advance(task)
    finally:
        timer.cancel()
        timer.join()
        progress.stop()


def tracked(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """The items, with a bar of how many are done.

    Args:
      items: to go through.
      description: of what is done with them.
      total: how many there are, where they have no length.

    Example:
      >>> list(tracked([1, 2], "counting"))
      [1, 2]
    """
    count = len(items) if total is None and isinstance(items, Sized) else total
    with bar(description, count) as advance:
        for item in items:
            yield item
            advance()
