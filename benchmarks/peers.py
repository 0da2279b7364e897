"""What is timed: this library, plain linen, torch and onnxruntime on the same networks, weights drawn at random.

Each contender is a function of (network, batch size) that makes everything ready and returns a function without
arguments that does the work once, and waits for the result.
"""

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nncompress_jax import models

Work = Callable[[], Any]
Contender = Callable[[str, int], Work]
SHAPE = (32, 32, 3)
MATRIX = 4096
"""Rows and columns of the product that measures a device's peak."""


LARGE_BYTES = 2**28
"""Of each array that measures its bandwidth."""


class MissingError(Exception):
    """What a contender needs is not there."""


def images(batch: int) -> np.ndarray:
    """[B, 32, 32, 3] float32, normal."""
    return np.random.default_rng(0).normal(size=(batch, *SHAPE)).astype(np.float32)


def _jax(
    network: str, batch: int, *, int8: bool = False, static: bool = False, fast: bool = True, dtype: Any = np.float32
) -> Work:
    """Inference; not `fast`: by the network's own convolutions and pooling. int8: `static` activations, or dynamic."""
    import jax

    import nncompress_jax as nnc

    model, inputs = nnc.models.create(network, dtype=dtype), jax.device_put(images(batch))
    variables = jax.jit(model.init)(jax.random.key(0), inputs[:1])
    ranges = nnc.quantize(ranges=nnc.calibration.abs_max if static else None)
    if int8:
        variables = nnc.compress(variables, ranges, apply=model.apply, batches=[inputs[:32]])
    apply = nnc.inject(model.apply, fast=True) if fast else model.apply
    program = jax.jit(apply).lower(variables, inputs).compile()
    return lambda: jax.block_until_ready(program(variables, inputs))


def _jax_training(network: str, batch: int, *, fast: bool = True, dtype: Any = np.float32) -> Work:
    """A step of training, on one batch; not `fast`: the same step with the network's own convolutions and pooling."""
    import jax
    import optax

    import nncompress_jax as nnc
    from nncompress_jax.training import mesh, objective, schedules, state, step

    model, place = nnc.models.create(network, dtype=dtype), mesh.data_mesh(jax.devices()[:1])
    variables = jax.jit(model.init)(jax.random.key(0), images(1))
    optimizer = schedules.optimizer(schedules.preset("fast"), optax.constant_schedule(0.01))
    labels = jax.device_put(np.arange(batch, dtype=np.int32) % 10)
    pixels = jax.device_put(np.random.default_rng(0).integers(0, 256, (batch, *SHAPE), np.uint8))

    def scaled(key: Any, pixels: Any) -> Any:
        return pixels.astype(np.float32) / 255

    class Plain(objective.Objective):
        def running(self, apply: Any) -> Any:
            return lambda *args, **kwargs: (apply(*args, **kwargs), {})  # as linen runs it

    def plain_step(taken: Any, pixels: Any, labels: Any, rows: Any, given: Any) -> Any:
        goal = Plain(objective.CLASSIFICATION.loss)
        return step.train_step(model.apply, optimizer, scaled, goal, taken, pixels[rows[0]], labels[rows[0]], given)

    own = step.compile_train_steps(model.apply, optimizer, scaled, place)
    program = own if fast else jax.jit(plain_step, donate_argnums=0)
    taken, rows = state.create(variables, optimizer, jax.random.key(0), place), np.arange(batch, dtype=np.int32)[None]

    def work() -> None:
        nonlocal taken
        taken, measured = program(taken, pixels, labels, rows, None)
        jax.block_until_ready((taken, measured))

    return work


def torch_network(network: str) -> Any:
    """The same layers in torch."""
    torch = _module("torch")
    layers, channels = [], SHAPE[-1]

    def convolution(outputs: int, size: int, stride: int, groups: int) -> None:
        layers.append(torch.nn.Conv2d(channels, outputs, size, stride, size // 2, groups=groups))
        layers.extend([torch.nn.BatchNorm2d(outputs), torch.nn.ReLU(inplace=True)])

    for block in models.create(network).blocks:
        if not block.features:
            layers.append(torch.nn.MaxPool2d(2, 2))
            continue
        if block.separable:
            convolution(channels, 3, block.stride, channels)
        size, stride = (1, 1) if block.separable else (3, block.stride)
        convolution(block.features, size, stride, 1)
        channels = block.features
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(channels, 10))


def _torch(network: str, batch: int, *, half: bool = False, compiled: bool = False, training: bool = False) -> Work:
    """`half`: bfloat16, channels last."""
    torch = _module("torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch_network(network).to(device).train(training)
    inputs = torch.from_numpy(images(batch).transpose(0, 3, 1, 2).copy()).to(device)
    labels = torch.arange(batch, device=device) % 10
    if half:
        model, inputs = model.to(memory_format=torch.channels_last), inputs.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    called = torch.compile(model) if compiled else model
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def work() -> None:
        with torch.set_grad_enabled(training), torch.autocast(device, torch.bfloat16, enabled=half):
            loss = torch.nn.functional.cross_entropy(called(inputs), labels)
        if training:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        wait()

    return work


def _onnx(network: str, batch: int, *, int8: bool = False) -> Work:
    """int8: onnxruntime's own static quantizer."""
    torch, runtime = _module("torch"), _module("onnxruntime")
    _module("onnx")
    feed = images(batch).transpose(0, 3, 1, 2).copy()
    with tempfile.TemporaryDirectory() as folder:
        file, small = str(Path(folder, "float.onnx")), str(Path(folder, "int8.onnx"))
        torch.onnx.export(
            torch_network(network).eval(), (torch.from_numpy(feed),), file, input_names=["images"], dynamo=False
        )
        if int8:
            from onnxruntime import quantization

            class Reader(quantization.CalibrationDataReader):
                def __init__(self) -> None:
                    self.batches = iter([{"images": feed}])

                def get_next(self) -> Any:
                    return next(self.batches, None)

            quantization.quantize_static(file, small, Reader(), per_channel=True)
        session = runtime.InferenceSession(small if int8 else file, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": feed})


def _exported(network: str, batch: int, *, int8: bool = True, macs: float | None = None) -> Work:
    """Our network in onnxruntime, from the file that `nnc.export_onnx` writes; `macs`: the share that stays of them."""
    import jax

    import nncompress_jax as nnc

    runtime = _module("onnxruntime")
    model, feed = nnc.models.create(network), images(batch)
    variables = jax.jit(model.init)(jax.random.key(0), feed[:1])
    methods = [nnc.prune_channels(macs=macs, round_to=16)] if macs else []
    methods += [nnc.quantize(ranges=nnc.calibration.abs_max)] if int8 else []
    variables = nnc.compress(variables, nnc.chain(*methods), apply=model.apply, batches=[feed[:32]])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.onnx")
        nnc.export_onnx(file, model.apply, variables, feed[:2], batches=[feed[:32]])
        session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"input": feed})


def _matrix_peak(network: str, batch: int, dtype: Any = np.float32) -> Work:
    import jax

    matrix = jax.device_put(np.ones((MATRIX, MATRIX), dtype))
    program = jax.jit(lambda x: x @ x)
    return lambda: program(matrix).block_until_ready()


def _bandwidth(network: str, batch: int) -> Work:
    import jax

    arrays = [jax.device_put(np.ones(LARGE_BYTES // 4, np.float32)) for _ in range(2)]
    program = jax.jit(lambda x, y: x + y, donate_argnums=0)

    def work() -> None:
        arrays[0] = program(*arrays)
        arrays[0].block_until_ready()

    return work


def _module(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise MissingError(f"{name} is not installed")
    return importlib.import_module(name)


def _bfloat16() -> Any:
    import jax.numpy as jnp

    return jnp.bfloat16


INFERENCE: dict[str, Contender] = {
    "ours": _jax,
    "ours int8": lambda network, batch: _jax(network, batch, int8=True),
    "ours int8 static": lambda network, batch: _jax(network, batch, int8=True, static=True),
    "ours bfloat16": lambda network, batch: _jax(network, batch, dtype=_bfloat16()),
    "linen": lambda network, batch: _jax(network, batch, fast=False),
    "torch": _torch,
    "torch bfloat16": lambda network, batch: _torch(network, batch, half=True),
    "torch compiled": lambda network, batch: _torch(network, batch, compiled=True),
    "torch bfloat16 compiled": lambda network, batch: _torch(network, batch, half=True, compiled=True),
    "ours exported": _exported,
    "ours exported, 0.3 of the MACs": lambda network, batch: _exported(network, batch, macs=0.3),
    "ours exported as floats": lambda network, batch: _exported(network, batch, int8=False),
    "onnxruntime": _onnx,
    "onnxruntime int8": lambda network, batch: _onnx(network, batch, int8=True),
}
TRAINING: dict[str, Contender] = {
    "ours": _jax_training,
    "ours bfloat16": lambda network, batch: _jax_training(network, batch, dtype=_bfloat16()),
    "linen": lambda network, batch: _jax_training(network, batch, fast=False),
    "torch": lambda network, batch: _torch(network, batch, training=True),
    "torch bfloat16": lambda network, batch: _torch(network, batch, half=True, training=True),
    "torch compiled": lambda network, batch: _torch(network, batch, compiled=True, training=True),
    "torch bfloat16 compiled": lambda network, batch: _torch(network, batch, half=True, compiled=True, training=True),
}
PEAK: dict[str, Contender] = {
    "bandwidth": _bandwidth,
    "float32": _matrix_peak,
    "bfloat16": lambda network, batch: _matrix_peak(network, batch, _bfloat16()),
}
TASKS = {"inference": INFERENCE, "training": TRAINING, "peak": PEAK}
