"""The end that comes before the end: a machine that is taken away sends SIGTERM first."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import TracebackType

import jax

from nncompress_jax.errors import UnfinishedError

GRACE_S = 6.0
"""So long a step, a compilation or a batch of a test may go on after the signal; then the last checkpoint has to do."""


class InterruptionError(Exception):
    """The run is asked to save and end."""


def alone() -> None:
    """Nobody else can come to the workdir."""


class Interruption:
    """Within it SIGTERM asks the run to save and end, at the end of its step.

    Several processes agree through JAX's runtime on the step at which all of them end. A single one watches for the
    signal in a thread of its own, since Python handles signals only between two of its instructions, and a compilation
    is one.

    Args:
      reached: whether all processes have come to the step at which they end, by number of the call; of orbax'
        `CheckpointManager.reached_preemption`.
      check_lock: raises where the workdir was lost to another command.
    """

    def __init__(self, reached: Callable[[int], bool], check_lock: Callable[[], None] = alone):
        self._reached, self._check_lock, self._calls = reached, check_lock, 0
        self._asked, self._noticed = threading.Event(), threading.Event()
        self._alone = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()

    def is_asked(self) -> bool:
        """Whether the run is to end now; called after each step, as often on every process."""
        self._calls += 1
        self._check_lock()
        if self._asked.is_set() or (jax.process_count() > 1 and self._reached(self._calls)):
            self._noticed.set()
            return True
        return False

    def check(self) -> None:
        """Raises InterruptionError if the run is to end; called as `is_asked` is."""
        if self.is_asked():
            raise InterruptionError

    def __enter__(self) -> "Interruption":
        if self._alone:
            self._mine, self._signals = socket.socketpair()
            self._signals.setblocking(False)
            self._before = signal.signal(signal.SIGTERM, lambda *_: None)
            self._wakeup_before = signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._noticed.set()
        if self._alone:
            signal.set_wakeup_fd(self._wakeup_before)
            signal.signal(signal.SIGTERM, self._before)
            self._signals.close()

    def _watch(self) -> None:
        while received := self._mine.recv(1):
            if received[0] == signal.SIGTERM:
                self._asked.set()
                if not self._noticed.wait(GRACE_S):
                    why = f"its step did not end within {GRACE_S:g} s"
                    line = f"stopped: {why}; the same command goes on from the last checkpoint"
                    print(line, file=sys.stderr, flush=True)
                    os._exit(UnfinishedError.exit_code)
        self._mine.close()
