"""The steps of an epoch, in chunks that are one program each.

A data set in memory lives on the devices; there a chunk takes two seconds at most on an accelerator, and is one step on
the CPU. Where it is streamed, a chunk is one step, whose batch was read while the one before it ran.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from nncompress_jax.data.split import Batch, InMemory
from nncompress_jax.data.stream import batches
from nncompress_jax.training.mesh import own_share, place, replicated, shared
from nncompress_jax.training.setup import Setup
from nncompress_jax.training.state import TrainState
from nncompress_jax.training.step import Metrics, compile_train_step, compile_train_steps

LONGEST_CHUNK_S = 2.0


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some steps, ready to run.

    Attributes:
      steps: K.
      batch_size: images of each step.
      run: the state -> the state after K steps, and their metrics [K]; the state that comes in is donated.
    """

    steps: int
    batch_size: int
    run: Callable[[TrainState], tuple[TrainState, Metrics]]


class Chunks(Protocol):
    """Programs that were compiled before the first step, so that no step's time is the compiler's."""

    def after(self, step: int) -> Generator[Chunk]:
        """What is left of the epoch that begins, or goes on, after that many steps of the run."""


def compile_chunks(setup: Setup, state: TrainState) -> Chunks:
    """Of a run.

    Args:
      setup: of the run.
      state: before a step; it is left as it is.
    """
    return (Resident if isinstance(setup.dataset.train, InMemory) else Streamed)(setup, state)


class Resident:
    """On a data set that lives on the devices.

    Args:
      setup: of the run.
      state: before a step; it is left as it is.
      steps: of a chunk; by default as many as the platform runs well.
    """

    def __init__(self, setup: Setup, state: TrainState, steps: int | None = None):
        self._batches, self._mesh = setup.batches, setup.mesh
        train = setup.dataset.train
        assert isinstance(train, InMemory)
        data = (train.images, train.labels, setup.objective.given)
        *self._data, self._given = place(data, replicated(setup.mesh))
        self._program = compile_train_steps(
            setup.model.apply, setup.optimizer, setup.augment, setup.mesh, setup.objective
        )
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        self.steps = steps or self._steps_in_time(state)
        for rows in self._rows(0):
            self._compile(rows.shape)

    def after(self, step: int) -> Generator[Chunk]:
        """As `Chunks.after`."""
        for rows in self._rows(step):
            own = rows[:, own_share(rows.shape[1], self._mesh)]
            program = self._compile(rows.shape)
            yield Chunk(rows.shape[0], rows.shape[1], functools.partial(self._run, program, rows.shape[1], own))

    def _run(self, program: Any, count: int, own: np.ndarray, state: TrainState) -> tuple[TrainState, Metrics]:
        return program(state, *self._data, place(own, shared(self._mesh, count, axis=1)), self._given)

    def _rows(self, step: int) -> Generator[np.ndarray]:
        """[K, B], to the end of the epoch."""
        epoch, first = divmod(step, len(self._batches))
        full, size, order = self._batches.full, self._batches.size, np.asarray(self._batches.order(epoch))
        left = order[first * size : full * size].reshape(-1, size)
        in_chunks = len(left) // self.steps * self.steps
        yield from left[:in_chunks].reshape(-1, self.steps, size)
        yield from left[in_chunks:, None]
        if self._batches.last:
            yield self._batches.rows(order, full)[None]

    def _compile(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._compiled:
            rows = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=shared(self._mesh, shape[1], axis=1))
            self._compiled[shape] = self._program.lower(self._state, *self._data, rows, self._given).compile()
        return self._compiled[shape]

    def _steps_in_time(self, state: TrainState) -> int:
        if jax.default_backend() == "cpu" or not self._batches.full:
            return 1
        rows = np.asarray(self._batches.order(0))[None, : self._batches.size]
        program, own = self._compile(rows.shape), rows[:, own_share(rows.shape[1], self._mesh)]
        seconds = 0.0
        for _ in range(2):  # the first call may wait for what is done once
            copy = jax.block_until_ready(jax.tree.map(jnp.copy, state))
            begin = time.perf_counter()
            jax.block_until_ready(self._run(program, rows.shape[1], own, copy))
            seconds = time.perf_counter() - begin
        steps = max(1, min(self._batches.full, int(LONGEST_CHUNK_S / seconds)))
        return int(multihost_utils.broadcast_one_to_all(np.int32(steps)))


class Streamed:
    """On batches that are read as training goes on; each process reads its share. Args as of `compile_chunks`."""

    def __init__(self, setup: Setup, state: TrainState):
        self._setup = setup
        program = compile_train_step(setup.model.apply, setup.optimizer, setup.augment, setup.mesh, setup.objective)
        self._given = place(setup.objective.given, replicated(setup.mesh))
        rows = np.arange(setup.batches.count)
        self._compiled = {}
        for size in {len(setup.batches.rows(rows, number)) for number in (0, len(setup.batches) - 1)}:
            share = shared(setup.mesh, size)
            images = jax.ShapeDtypeStruct((size, *setup.image_shape), jnp.uint8, sharding=share)
            labels = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=share)
            self._compiled[size] = program.lower(state, images, labels, self._given).compile()

    def after(self, step: int) -> Generator[Chunk]:
        """As `Chunks.after`."""
        setup = self._setup
        epoch, first = divmod(step, len(setup.batches))
        order = np.asarray(setup.batches.order(epoch))

        def rows_of(number: int) -> np.ndarray:
            rows = setup.batches.rows(order, number)
            return rows[own_share(len(rows), setup.mesh)]

        with contextlib.closing(batches(setup.dataset.train, rows_of, len(setup.batches), start=first)) as read:
            for number, own in enumerate(read, first):
                count = len(setup.batches.rows(order, number))
                yield Chunk(1, count, functools.partial(self._run, count, own))

    def _run(self, count: int, own: Batch, state: TrainState) -> tuple[TrainState, Metrics]:
        state, metrics = self._compiled[count](state, *place(own, shared(self._setup.mesh, count)), self._given)
        return state, jax.tree.map(lambda x: x[None], metrics)
