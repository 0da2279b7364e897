"""One run at a time in a workdir: its lock says who holds it, and goes stale when that one ends without a word."""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from nncompress_jax.errors import InputError, UnfinishedError

FILE_NAME = "lock.json"
RENEWED_EVERY_S = 15.0
LEASE_S = 60.0
"""A lock of another machine that is not renewed for so long is stale. Its clock is not trusted: it is watched."""


@contextlib.contextmanager
def held(workdir: epath.Path) -> Iterator["Lock"]:
    """Within it the workdir is this process's alone.

    On one machine the system's lock on the file tells at once whether its owner lives. Where the owner is on another
    machine, or the folder is in a bucket, the lock is a lease that its owner renews.

    Raises:
      InputError: where another command holds it, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            locked = "://" not in str(workdir) and _system_lock(workdir / FILE_NAME, stack)
            _await_stale(workdir, locked=locked)
            lock = Lock(workdir)
        except OSError as error:
            raise InputError(f"{workdir}: cannot be written: {error.strerror}; choose another --workdir") from None
        stack.enter_context(lock.renewed())
        yield lock


class Lock:
    """Of a workdir, while it is held.

    Args:
      workdir: of the run; the lock is written there.
    """

    def __init__(self, workdir: epath.Path):
        self._file, self._lost = workdir / FILE_NAME, threading.Event()
        self._owner = {"host": socket.gethostname(), "process": os.getpid(), "token": uuid.uuid4().hex}
        self._owner |= {"since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        self._write()

    def check(self) -> None:
        """Raises UnfinishedError where another command has taken the workdir, since this one was not heard of."""
        if self._lost.is_set():
            raise UnfinishedError(
                f"{self._file.parent}: {_in_words(_read(self._file))} has taken it; this run has ended"
            )

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews the lock in a thread of its own; in the end the lock is gone."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(RENEWED_EVERY_S):
                with contextlib.suppress(OSError):  # of a network; the next time may do
                    if _read(self._file).get("token") != self._owner["token"]:
                        self._lost.set()
                        return
                    self._write()

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with contextlib.suppress(OSError):
                if not self._lost.is_set():
                    self._file.unlink()

    def _write(self) -> None:
        """In place: the file keeps the system's lock."""
        self._file.write_text(json.dumps(self._owner | {"renewed": time.time()}) + "\n")


def _system_lock(file: epath.Path, stack: contextlib.ExitStack) -> bool:
    """Holds the system's lock on the file until the stack ends; False where the file system knows none.

    Raises:
      InputError: where a process of this machine holds it.
    """
    while True:
        opened = stack.enter_context(open(file, "a"))  # noqa: SIM115, the stack closes it
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(_refusal(file.parent, _read(file))) from None
        except OSError:
            return False
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(opened.fileno()), os.stat(file)):
                return True  # else its owner removed it in between


def _await_stale(workdir: epath.Path, *, locked: bool) -> None:
    """Returns when no other command holds the lock; raises InputError if one does."""
    found = _read(workdir / FILE_NAME)
    ours = found.get("host") == socket.gethostname()
    if not found or (ours and (locked or not _lives(found.get("process")))):
        return
    print(f"{workdir}: {_in_words(found)} held it; waiting for {LEASE_S:g} s to see whether it still does", flush=True)
    for _ in range(10):
        time.sleep(LEASE_S / 10)
        now = _read(workdir / FILE_NAME)
        if not now:
            return
        if now != found:
            raise InputError(_refusal(workdir, now))


def _lives(process: Any) -> bool:
    """Whether a process of this machine does."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, TypeError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _read(file: epath.Path) -> dict[str, Any]:
    """Whose the lock is; empty where there is none, or what is there says nothing."""
    try:
        found = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _refusal(workdir: Any, owner: dict[str, Any]) -> str:
    return f"{workdir}: {_in_words(owner)} trains there; wait for it, end it, or choose another --workdir"


def _in_words(owner: dict[str, Any]) -> str:
    if "host" not in owner:
        return "another command"
    return f"process {owner.get('process')} on {owner['host']} (since {owner.get('since')})"
