"""The table of the fastest algorithms: what a look-up finds, and that all candidates compute the same."""

import functools
import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nncompress_jax.ops import algorithms, gradients, integer, kernels
from nncompress_jax.ops.windows import Window

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("kernels")


@pytest.fixture
def table(monkeypatch):
    entries = {
        "0.9": {"convolution float32": {"window": "native", "window, one 4x4, few channels": "patches"}},
        "0.10": {"convolution float32": {"window": "patches in blocks"}, "convolution int8": {"window": "shifts"}},
    }
    monkeypatch.setattr(kernels, "TABLE", entries)


def test_look_up(table):
    few = "window, one 4x4, few channels"
    assert kernels.fastest("convolution", "float32", few, "0.9.2") == "patches"
    assert kernels.fastest("convolution", "float32", "window, one 8x8, few channels", "0.9.2") == "native"
    assert kernels.fastest("convolution", "float32", few, "0.10.0.dev1") == "patches in blocks"
    assert kernels.fastest("convolution", "bfloat16", few, "0.10.1") == "patches in blocks"
    assert kernels.fastest("convolution", jnp.int8, few, "0.10.1") == "shifts"


@pytest.mark.parametrize(
    ("version", "name"), [("0.8.3", "native"), ("0.9.9", "native"), ("0.11.0", "patches in blocks")]
)
def test_a_version_that_was_not_measured(table, version, name):
    assert kernels.fastest("convolution", "float32", "window", version) == name


@pytest.mark.parametrize(
    ("images", "kernel", "groups", "name"),
    [
        ((32, 16, 16, 64), (3, 3, 1, 64), 64, "depthwise, batch of 16x16"),
        ((1, 224, 224, 3), (3, 3, 1, 3), 3, "depthwise, one 32x32"),
        ((1, 2, 2, 64), (3, 3, 64, 64), 1, "larger than the image"),
        ((1, 32, 3), (3, 3, 8), 1, "1 axes"),
        ((1, 9, 9, 64), (3, 3, 16, 64), 4, "groups"),
        ((5, 14, 14, 512), (1, 1, 512, 8), 1, "pointwise, batch of 16x16, to few channels"),
        ((4, 7, 7, 512), (3, 3, 512, 512), 1, "window, one 8x8, many channels"),
        ((0, 7, 7, 64), (3, 3, 64, 64), 1, "window, one 8x8, some channels"),
    ],
)
def test_classes(images, kernel, groups, name):
    ones = (1,) * (len(images) - 2)
    window = Window(ones, ((1, 1),) * len(ones), ones, ones, groups)
    images, kernel = (jax.ShapeDtypeStruct(shape, jnp.int8) for shape in (images, kernel))
    assert kernels.convolution_class(images, kernel, window) == name
    if ones == (1, 1):
        dilated = Window(ones, window.padding, (1, 2), ones)
        expected = "larger than the image" if name.startswith("larger") else "dilated image"
        assert groups > 1 or kernels.convolution_class(images, kernel, dilated) == expected


def test_what_was_measured(benchmark):
    """Every class of the benchmark has an entry for each version, each kind has one, and each names an algorithm."""
    wanted = {
        (f"{case.operation} {case.dtype}", case.shape_class) for case in benchmark.cases(tuple(benchmark.BATCHES))
    }
    wanted |= {(operation, shape_class.partition(",")[0]) for operation, shape_class in wanted}
    assert {"0.10", "0.12"} <= kernels.TABLE.keys()
    for entries in kernels.TABLE.values():
        assert {(operation, name) for operation, classes in entries.items() for name in classes} == wanted
        for operation, classes in entries.items():
            known = gradients.KERNEL_GRADIENTS if operation.startswith("kernel gradient") else algorithms.ALGORITHMS
            assert set(classes.values()) <= known.keys()
            depthwise = {name for name in classes if name.startswith("depthwise")}
            assert not {classes[name] for name in classes.keys() - depthwise} & {"shifts", "shifts in blocks"}


def test_all_candidates_compute_the_same(benchmark):
    """On a small operation of each form that the benchmark measures."""
    forms = dict.fromkeys(
        benchmark.dataclasses.replace(
            shapes,
            side=min(shapes.side, 6),
            inputs=min(shapes.inputs, 8),
            outputs=min(shapes.outputs, 8),
            groups=min(shapes.groups, 8),
        )
        for shapes in benchmark.CONVOLUTIONS
    )
    assert len(forms) > 8
    for shapes in forms:
        depthwise = shapes.groups == shapes.inputs
        names = benchmark.DEPTHWISE if depthwise else benchmark.DENSE
        codes = [benchmark.random(x) for x in shapes.operands(4, "int8")]
        wanted = algorithms.native(*codes, shapes.window, element_type=jnp.int32)
        for name in names:
            got = algorithms.ALGORITHMS[name](*codes, shapes.window, element_type=jnp.int32)
            np.testing.assert_array_equal(got, wanted, err_msg=f"{name} {shapes}")
        np.testing.assert_array_equal(integer.integer_convolution(*codes, shapes.window), wanted)
        floats = [benchmark.random(x) for x in shapes.operands(4, "float32")]
        outputs, pull = jax.vjp(functools.partial(algorithms.native, floats[0], window=shapes.window), floats[1])
        (gradient,) = pull(outputs)
        for name in names:
            _close(algorithms.ALGORITHMS[name](*floats, shapes.window), outputs, f"{name} {shapes}")
            if not (depthwise and name == "patches"):
                _close(gradients.KERNEL_GRADIENTS[name](*floats, outputs, shapes.window), gradient, f"{name} {shapes}")


def _close(got, wanted, message):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * float(jnp.abs(wanted).max()), err_msg=message)


def test_the_file_is_as_the_benchmark_writes_it():
    text = Path(kernels.__file__).with_name("kernels.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"
