"""A compressed network from its file; nothing that the file says is believed before it is checked."""

import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import jax
import numpy as np

from nncompress_jax.artifact import container, sections, tree
from nncompress_jax.artifact.info import Info
from nncompress_jax.artifact.network import network_apply
from nncompress_jax.artifact.sections import Section
from nncompress_jax.errors import ArtifactError, InputError
from nncompress_jax.leaves import on_device
from nncompress_jax.programs.reading import Program, program_from_dict
from nncompress_jax.programs.running import apply_of, leaves_of
from nncompress_jax.tracing.injection import inject
from nncompress_jax.tree import named_leaves
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import is_compressed
from nncompress_jax.weights.structures import in_structure

PROGRAMS = ("program", "train")
"""In a header."""


class Loaded(NamedTuple):
    """A network as it was saved.

    Attributes:
      apply: of (variables, inputs), injected; it stands ready for `jax.jit`.
      variables: arrays and compressed weights, on the default device.
      info: what the file says of the network.
    """

    apply: Apply
    variables: Any
    info: Info


@dataclasses.dataclass
class Opened:
    """A file whose header is read and checked.

    Attributes:
      info: what it says of the network; the digest is there once all arrays are read.
      node: what it says of the variables.
      programs: by name, "program" and "train".
      sections: for each array, the path of its first leaf and part, and where it is.
      repeated: those arrays, by their places in `sections`, that stand at several places; None until they are read.
      file: behind the header.
      digest: of what is read so far.
    """

    info: Info
    node: Any
    programs: dict[str, Program]
    sections: list[tuple[str, Section]]
    repeated: dict[int, np.ndarray | None]
    file: BinaryIO
    digest: Any

    def arrays(self) -> Iterator[np.ndarray]:
        """One after the other; Raises ArtifactError at the first that is damaged, or if the whole is."""
        for place, (path, section) in enumerate(self.sections):
            payload = self.file.read(section.size_bytes)
            padding = self.file.read(len(container.padding(section.size_bytes)))
            self.digest.update(payload)
            self.digest.update(padding)
            try:
                array = sections.decode(section, payload)
            except ArtifactError as error:
                raise ArtifactError(f"section {place}, {path}: {error}") from None
            del payload
            if place == len(self.sections) - 1:
                self._check_end()
            yield array
            del array  # before the next is made
        if not self.sections:
            self._check_end()

    def taking(self, arrays: Iterator[np.ndarray]) -> Callable[[dict[str, Any]], np.ndarray]:
        """What stands for an array -> the array, of `arrays` or one that was there before."""
        numbered = enumerate(arrays)

        def take(content: dict[str, Any]) -> np.ndarray:
            if "same" in content:
                return cast(np.ndarray, self.repeated[content["same"]])
            place, array = next(numbered)
            if place in self.repeated:
                self.repeated[place] = array
            return array

        return take

    def _check_end(self) -> None:
        if self.file.read() != self.digest.digest():
            raise ArtifactError("the digest of the whole is another")
        self.info = self.info.with_digest(self.digest.hexdigest())


def memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextlib.contextmanager
def opened(path: str | Path, *, max_bytes: int | None = None) -> Iterator[Opened]:
    """A file, its header read; errors from here on name it.

    Args:
      path: of the file.
      max_bytes: that its arrays may have; by default the memory of this machine.

    Raises:
      InputError: where there is none. ArtifactError: where it is refused.
    """
    try:
        with open(path, "rb") as file:
            yield _head(file, max_bytes or memory())
    except ArtifactError as error:
        raise ArtifactError(f"{path}: damaged: {error}") from None
    except RecursionError:
        raise ArtifactError(f"{path}: damaged: a header that is nested too deep") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of nnc.save") from None


def load(
    path: str | Path,
    *,
    apply: Apply | None = None,
    like: Any = None,
    max_bytes: int | None = None,
    train: bool = False,
) -> Loaded:
    """Reads a network from one file.

    Args:
      path: that `nnc.save` wrote.
      apply: the network's, a function of (variables, inputs), where the file holds no program and names none of the
        library's networks.
      like: variables in whose structure the leaves come back: for trees that are not of dicts, lists and tuples. Its
        arrays and numbers, compressed or not, are not used; other leaves, such as functions, come back as they are.
        Without it, such variables come back as a dict by path, which the file's own program takes.
      max_bytes: that the arrays may have in memory, and a result within the file's program for two examples; by default
        as much as this machine has.
      train: gives the program of training mode as apply: of (variables, *inputs, key).

    Returns:
      (apply, variables, info). Leaves are the same bits as those that were saved; what was one array at several places
      is one again.

    Raises:
      ArtifactError: for a file that is damaged, of a newer format, or larger than `max_bytes`.
      InputError: where there is no file, it is of another structure than `like`, or has no program of training mode.

    Example: see `nnc.save`.
    """
    programs: dict[str, Apply] = {}
    with opened(path, max_bytes=max_bytes) as file:
        arrays = file.arrays()
        place, take = _placing(file), file.taking(arrays)
        variables = tree.from_dict(file.node, take, lambda _, leaf: jax.tree.map(place, leaf))
        of_programs = {name: [place(take(each)) for each in found.arrays] for name, found in file.programs.items()}
        for _ in arrays:
            raise ArtifactError("arrays that no leaf has")
        info, node = file.info, file.node
        if apply is None:
            leaves = leaves_of(variables) if tree.is_plain(node) else list(variables.items())
            for name, program in file.programs.items():
                programs[name] = apply_of(program, leaves, of_programs[name], max_bytes=max_bytes or memory())
    if train and "train" not in programs:
        raise InputError(f"{path}: no program of training mode; save it with train=, or pass apply=")
    apply = apply or programs.get("train" if train else "program")
    if like is not None:
        variables = _like(variables, node, like)
    elif not tree.is_plain(node) and not programs:
        raise ArtifactError(
            f"{path}: holds variables of another structure than dicts, lists and tuples; pass like=variables"
        )
    if apply is None and info.model is not None:
        try:
            apply = network_apply(info, variables)
        except InputError as error:
            raise ArtifactError(f"{path}: damaged: {error}") from None
    return Loaded(inject(apply) if apply else _missing(path, info), variables, info)


def _head(file: BinaryIO, max_bytes: int) -> Opened:
    size = os.fstat(file.fileno()).st_size
    start, header = container.read_header(file, size)
    node = header.pop("variables")
    programs = {name: program_from_dict(header.pop(name)) for name in PROGRAMS if name in header}
    info = Info.from_dict(header)
    described: list[tuple[str, Section]] = []
    repeated: dict[int, np.ndarray | None] = {}
    of_programs = ((name, each) for name, program in programs.items() for each in program.arrays)
    for path, each in itertools.chain(tree.arrays(node), of_programs):
        if "same" not in each:
            described.append((path, Section.from_dict(each)))
        elif type(each["same"]) is int and 0 <= each["same"] < len(described) and len(each) == 1:
            repeated[each["same"]] = None
        else:
            raise ArtifactError(f"{path} is described as {str(each)[:60]}, expected the place of an array before it")
    needed = sum(section.decoded_bytes for _, section in described)
    if needed > max_bytes:
        raise ArtifactError(
            f"declares {needed:,} bytes of arrays, more than the {max_bytes:,} that may be; see max_bytes="
        )
    stored = [section.size_bytes for _, section in described]
    end = len(start) + sum(count + len(container.padding(count)) for count in stored) + container.DIGEST_BYTES
    if end != size:
        raise ArtifactError(f"sections up to byte {end} of {size}")
    return Opened(info, node, programs, described, repeated, file, hashlib.sha256(start))


def _placing(file: Opened) -> Callable[[Any], Any]:
    """Puts arrays of a file on the device, each once."""
    placed: dict[int, Any] = {}

    def place(leaf: Any) -> Any:
        if not any(leaf is array for array in file.repeated.values()):
            return on_device(leaf)
        if id(leaf) not in placed:
            placed[id(leaf)] = on_device(leaf)
        return placed[id(leaf)]

    return place


def _like(variables: Any, node: Any, like: Any) -> Any:
    return in_structure(dict(named_leaves(variables, is_compressed)) if tree.is_plain(node) else variables, like)


def _missing(path: str | Path, info: Info) -> Apply:
    inputs = f"images [B, {', '.join(map(str, info.image_shape))}]" if info.image_shape else "inputs"

    def apply(*_: Any, **__: Any) -> Any:
        raise InputError(
            f"{path} names no network of this library; call nnc.load(path, apply=f), f(variables, {inputs})"
        )

    return apply
