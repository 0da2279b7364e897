"""Files that are whole at every moment: new content takes the place of the old at once."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nncompress_jax.errors import InputError

SUFFIX = ".partial"
LONGEST_PREFIX = 200
"""Bytes of a name that its partial file repeats; file systems take 255."""


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of what is there when the block ends, or leaves nothing new behind.

    The old file's mode, owner and attributes stay; through a symbolic link its target is replaced. What killed
    processes left unfinished beside it is removed.

    Args:
      path: of the file.

    Raises:
      InputError: where nothing can be written. What was there before is as it was.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with replacing(f"{folder}/a.txt") as file:
      ...         _ = file.write(b"whole")
      ...     Path(folder, "a.txt").read_text(), len(os.listdir(folder))
      ('whole', 1)
    """
    try:
        target = Path(os.path.realpath(path))
        old = _status(target)
        _remove_unfinished(target)
        file, partial = _create_partial(target, 0o600 if old else 0o666)
        try:
            with file:
                yield file
                file.flush()
                _keep_attributes(target, old, partial)
                os.fsync(file.fileno())
                os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); what was there before is as it was") from None


def _status(target: Path) -> os.stat_result | None:
    """Of the file that is to be replaced, None where there is none; devices and folders are no files to replace."""
    try:
        old = target.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(old.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "Is a directory" if stat.S_ISDIR(old.st_mode) else "Not a regular file")
    return old


def _prefix(target: Path) -> str:
    return "." + os.fsencode(target.name)[:LONGEST_PREFIX].decode(errors="ignore") + "."


def _create_partial(target: Path, mode: int) -> tuple[BinaryIO, Path]:
    """A new file beside the target, locked as long as it is open, which tells others that somebody is writing it."""
    while True:
        partial = target.with_name(f"{_prefix(target)}{secrets.token_hex(4)}{SUFFIX}")
        file = os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")
        with contextlib.suppress(OSError):  # file systems without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file, partial
        file.close()  # another process took it for an unfinished one before it was locked


def _remove_unfinished(target: Path) -> None:
    """Partial files of this target that no process holds: those that wrote them are gone."""
    pattern = re.compile(re.escape(_prefix(target)) + r"\w{8}" + re.escape(SUFFIX))
    with contextlib.suppress(OSError):  # a folder that cannot be listed
        for name in filter(pattern.fullmatch, os.listdir(target.parent)):
            with contextlib.suppress(OSError), target.with_name(name).open("rb") as file:  # held, or somebody else's
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                target.with_name(name).unlink()


def _keep_attributes(target: Path, old: os.stat_result | None, partial: Path) -> None:
    if old is not None:
        with contextlib.suppress(PermissionError):  # only an administrator gives files away
            os.chown(partial, old.st_uid, old.st_gid)
        shutil.copystat(target, partial)
        os.utime(partial)


def _sync_folder(folder: Path) -> None:
    """Makes the new name survive a power failure; not every folder can be opened and synced, and the file is there."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
