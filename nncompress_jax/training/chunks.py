"""The steps of an epoch, in chunks that are one program each, on a data set that lives on the devices.

On an accelerator a chunk takes two seconds at most; on the CPU it is one step.
"""

import time
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from nncompress_jax.training.mesh import batches_by_example, replicated
from nncompress_jax.training.setup import Setup
from nncompress_jax.training.state import TrainState
from nncompress_jax.training.step import Metrics, compile_train_steps
from nncompress_jax.types import Array

LONGEST_CHUNK_S = 2.0

Run = Callable[[TrainState, Array], tuple[TrainState, Metrics]]
"""(state, rows [K, B]) -> the state after K steps, and their metrics [K]; the state that comes in is donated."""


class Chunks:
    """Compiled before the first step, so that no step's time is the compiler's.

    Args:
      setup: of the run.
      state: before a step; it is left as it is.
      steps: of a chunk; by default as many as the platform runs well.
    """

    def __init__(self, setup: Setup, state: TrainState, steps: int | None = None):
        train = setup.dataset.train
        self._batches, self._share = setup.batches, batches_by_example(setup.mesh)
        self._data = jax.device_put((train.images, train.labels), replicated(setup.mesh))
        self._program = compile_train_steps(setup.model.apply, setup.optimizer, setup.augment, setup.mesh)
        self._compiled: dict[tuple[int, ...], Run] = {}
        self.steps = steps or self._steps_in_time(state)
        for shape in {rows.shape for rows in self._rows(0)}:
            self._compiled[shape] = self._compile(state, shape)

    def of(self, epoch: int) -> Iterator[tuple[Run, Array]]:
        """The chunks of an epoch, counted from 0: what runs each, and its rows."""
        for rows in self._rows(epoch):
            yield self._compiled[rows.shape], jax.device_put(rows, self._share)

    def _rows(self, epoch: int) -> Iterator[Array]:
        full, size = self._batches.full, self._batches.size
        order = self._batches.order(epoch)
        batches = order[: full * size].reshape(full, size)
        whole = full // self.steps * self.steps
        yield from batches[:whole].reshape(-1, self.steps, size)
        yield from batches[whole:, None]
        if self._batches.last:
            yield order[full * size :][None, : self._batches.last]

    def _compile(self, state: TrainState, shape: tuple[int, ...]) -> Run:
        rows = jax.ShapeDtypeStruct(shape, jnp.int32)
        program = self._program.lower(state, *self._data, rows).compile()
        return lambda state, rows: program(state, *self._data, rows)

    def _steps_in_time(self, state: TrainState) -> int:
        if jax.default_backend() == "cpu" or not self._batches.full:
            return 1
        rows = jax.device_put(self._batches.order(0)[None, : self._batches.size], self._share)
        run = self._compiled[rows.shape] = self._compile(state, rows.shape)
        seconds = 0.0
        for _ in range(2):  # the first call may wait for what is done once
            copy = jax.block_until_ready(jax.tree.map(jnp.copy, state))
            begin = time.perf_counter()
            jax.block_until_ready(run(copy, rows))
            seconds = time.perf_counter() - begin
        return max(1, min(self._batches.full, int(LONGEST_CHUNK_S / seconds)))
