"""One run on several processes: how they find each other, and that they agree before they begin.

Every process runs the same command. JAX's runtime connects them; when one ends, the others do, too.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from nncompress_jax.errors import InputError, UnfinishedError

HEARTBEAT_TIMEOUT_S = 30
"""A process that is not heard of for so long is taken for dead."""
LEAVE_TOGETHER_S = 10
"""How long one that ends waits for others that may end for the same reason."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where a run runs. On a TPU slice nothing needs to be said: the processes find each other."""

    platform: Literal["cpu", "gpu", "tpu"] | None = None
    """What it must run on; by default what is there."""
    coordinator: str | None = None
    """host:port of the first process, where the others find it."""
    processes: int | None = None
    """How many there are."""
    process: int | None = None
    """Which of them this is, from 0."""


def start(cluster: Cluster) -> None:
    """Connects the processes; before anything else of JAX runs.

    Raises:
      InputError: where the platform is not there, not all is said that must be, or one has more devices than others.
      UnfinishedError: where the others do not come, or another process holds the devices.
    """
    if cluster.platform:
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(cluster.platform, cluster.platform))
    asked = [name for name in ("coordinator", "processes", "process") if getattr(cluster, name) is not None]
    if asked and len(asked) < 3:
        raise InputError(f"--{asked[0]} alone; expected --coordinator, --processes and --process")
    if asked:
        _connect(coordinator_address=cluster.coordinator, num_processes=cluster.processes, process_id=cluster.process)
    elif cluster.platform == "tpu" or (cluster.platform is None and importlib.util.find_spec("libtpu")):
        with contextlib.suppress(ValueError):  # not on a slice
            _connect()
    try:
        jax.devices()
    except RuntimeError as error:
        found = " ".join(str(error).split())
        if re.search("in use|lockfile|busy", found):
            raise UnfinishedError(f"the {cluster.platform or 'device'} is held by another process ({found})") from None
        raise InputError(f"--platform={cluster.platform}: no such device can be used here ({found})") from None
    devices = collections.Counter(device.process_index for device in jax.devices())
    compare("devices", [str(devices[process]) for process in range(jax.process_count())])


def _connect(**found: object) -> None:
    try:
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S, **found)  # type: ignore[arg-type]
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UnfinishedError(f"the processes do not find each other ({reason}); start all of them again") from error


def is_first() -> bool:
    """Whether this process is the one that writes and shows."""
    return jax.process_index() == 0


def code_version() -> str:
    """Of this package: its number, and a digest of its source files."""
    folder = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    version = importlib.metadata.version("nncompress-jax")
    return f"{version} {digest.hexdigest()[:12]}"


def agree(facts: Mapping[str, object]) -> None:
    """Checks that all processes say the same of each of these facts.

    Args:
      facts: values by name; what is compared, and shown, is their text. Every process gives the same names.

    Raises:
      InputError: on every process, if one differs; the message names it.
    """
    if jax.process_count() == 1:
        return
    hosts = _gather(socket.gethostname())
    for name, fact in facts.items():
        compare(name, _gather(str(fact)), hosts)


def said_by_first(text: str) -> str:
    """What the first process says, on every process; of a long text its beginning."""
    return text if jax.process_count() == 1 else _gather(text)[0]


def agree_on_file(file: epath.Path) -> None:
    """Checks that all processes see a file that one of them may just have written: that its folder is shared.

    Raises:
      InputError: as `agree` does.
    """
    if jax.process_count() == 1:
        return
    multihost_utils.sync_global_devices(f"{file.name} is written")
    seen = f"{file} of {file.stat().mtime}" if file.exists() else f"no {file}"
    agree({"shared folder": seen})


def compare(name: str, values: Sequence[str], hosts: Sequence[str] = ()) -> None:
    """Checks that the values are one.

    Args:
      name: of what is compared.
      values: by process.
      hosts: their names, where they are known.

    Raises:
      InputError: if one differs from most; the message names its process.

    Example:
      >>> compare("code", ["1.0", "1.0"])
    """
    usual, count = collections.Counter(values).most_common(1)[0]
    for process, value in enumerate(values):
        if value != usual:
            host = f" on {hosts[process]}" if hosts else ""
            others = f"{count} of {len(values)} processes"
            raise InputError(
                f"{name}: process {process}{host} has {value}, {others} have {usual}; make them the same on all hosts"
            )


def _gather(text: str) -> list[str]:
    """The text of every process; of a long one its beginning and a digest."""
    encoded, room = text.encode(), 200
    if len(encoded) > room:
        encoded = encoded[: room - 20] + f"... {hashlib.sha256(encoded).hexdigest()[:12]}".encode()
    padded = np.frombuffer(encoded.ljust(room), np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(padded))
    return [row.tobytes().rstrip().decode(errors="replace") for row in gathered]


@contextlib.contextmanager
def lost_ones_end_the_run() -> Iterator[None]:
    """What JAX's runtime raises when another process is gone becomes an UnfinishedError.

    Where it raises nothing, its own watch ends this process within `HEARTBEAT_TIMEOUT_S`.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:  # both are raised by collectives
        reason = " ".join(str(error).split())[:160]
        if jax.process_count() == 1 or not re.match("[A-Z_]+: ", reason):  # a status of the runtime
            raise
        raise UnfinishedError(
            f"process {jax.process_index()} lost another one ({reason}...); "
            "start all of them again, and they go on from the last checkpoint"
        ) from error


def leave(code: int) -> None:
    """Ends this process without those that it will not meet again; does nothing where it is the only one.

    A process that leaves the usual way first waits for all others, which is right at the end of a run alone. Where all
    end for one reason, as `agree` does, they meet here, and the first one leaves last: its end is what the runtime of
    the others dies of.
    """
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost  # a second, for those commands alone that need it

    with contextlib.suppress(Exception):  # whatever the runtime raises where one is dead or waits elsewhere
        multihost.get_barrier_sync_fn()(key="leave", timeout_ms=1000 * LEAVE_TOGETHER_S)
    if is_first():
        time.sleep(1)
    os._exit(code)
