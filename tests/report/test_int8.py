"""The report of integer layers against the text of the lowered program itself."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

import nncompress_jax as nnc

IMAGES = jnp.zeros((2, 32, 32, 3))


def variables_of(network):
    shapes = jax.eval_shape(network.init, jax.random.key(0), IMAGES)
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)


def calls(text, name):
    """Times that a function of a lowered module runs, in all the functions that call it."""
    bodies = {
        found[1]: found[0] for found in re.finditer(r"func\.func (?:public|private) @(\w+)\(.*?\n  }", text, re.DOTALL)
    }

    def count(function):
        return sum(
            1 if re.fullmatch(rf"{name}(_\d+)?", called) else count(called)
            for called in re.findall(r"call @(\w+)\(", bodies[function])
        )

    return count("main")


@pytest.mark.parametrize(("name", "layers", "depthwise"), [("vgg16", 14, 0), ("vgg16ds", 26, 12)])
def test_every_layer_runs_on_integers(name, layers, depthwise):
    network = nnc.models.create(name)
    small = nnc.compress(variables_of(network))
    report = nnc.int8_report(network.apply, small, IMAGES)
    assert (len(report.rows), report.floats, report.platform) == (layers, (), "cpu")
    assert {row.types for row in report.rows} == {"int8 x int8 -> int32"}
    algorithms = {key: sum(row.algorithm == key for row in report.rows) for key in ("native", "patches", "shifts")}
    assert (sum(algorithms.values()), algorithms["shifts"]) == (layers, depthwise)
    assert report.rows[-1].algorithm == "native"
    assert [row.path for row in report.rows] == [
        *(f"params/Conv_{i}/kernel" for i in range(len(report.rows) - 1)),
        "params/Dense_0/kernel",
    ]

    text = jax.jit(nnc.inject(network.apply)).lower(small, IMAGES).as_text()
    products = re.findall(r"stablehlo\.(?:convolution|dot_general).* : \((.*)\) -> (\S+)", text)
    assert products
    for operands, result in products:
        assert re.fullmatch(r"tensor<\S+xi8>, tensor<\S+xi8>", operands), operands
        assert result.endswith("xi32>")
    assert {key: calls(text, key) for key in ("patches", "shifts")} == {
        key: algorithms[key] for key in ("patches", "shifts")
    }
    assert calls(text, "native") + calls(text, "native_dot") == algorithms["native"]
    for line in re.findall(r"func\.func private @shifts\S*\((.*)\) -> (.*) {", text):
        assert re.fullmatch(r"%arg0: tensor<\S+xi8>, %arg1: tensor<\S+xi8>", line[0]), line
        assert "xi32>" in line[1]


def large_floats(network, variables):
    """Float results, of more than a thousand entries for each image, of the steps of the compiled program."""
    text = jax.jit(nnc.inject(network.apply, fast=True)).lower(variables, IMAGES).compile().as_text()
    steps = re.findall(r" = f32\[([\d,]+)\]\S* (\w+)", text[text.index("\nENTRY") :])
    return [shape for shape, kind in steps if kind != "parameter" and math.prod(map(int, shape.split(","))) > 2000]


@pytest.mark.parametrize("name", ["vgg16", "vgg16ds_stride"])
def test_with_static_ranges_activations_travel_as_integers(name):
    network = nnc.models.create(name)
    variables = jax.tree.map(lambda leaf: leaf / 100, variables_of(network))  # ones would overflow
    static = nnc.quantize(ranges=nnc.calibration.abs_max)
    assert large_floats(network, nnc.compress(variables))
    assert not large_floats(network, nnc.compress(variables, static, apply=network.apply, batches=[IMAGES]))


class TestFloats:
    """What runs on floats says why."""

    variables = {"kernel": jnp.ones((4, 4)), "other": jnp.ones((64, 64))}  # noqa: RUF012

    def report(self, apply, method=None, variables=None):
        variables = variables or nnc.compress(self.variables, method or nnc.quantize(where="kernel"))
        return nnc.int8_report(apply, variables, jnp.ones((2, 4))).rows

    def test_not_compressed(self):
        (row,) = self.report(lambda v, x: x @ v["kernel"], variables=self.variables)
        assert (row.types, row.why_float) == ("float32 x float32 -> float32", "the weight is float32, not compressed")

    def test_weight_only(self):
        (row,) = self.report(lambda v, x: x @ v["kernel"], nnc.quantize(where="kernel", inputs=False))
        assert row.why_float == "the weight is quantized, its inputs are not"

    def test_an_operation_without_a_rule_on_the_way(self):
        (row,) = self.report(lambda v, x: x @ jnp.sort(v["kernel"]))
        assert row.why_float == "no rule for sort"

    def test_integers_enter(self):
        (row,) = self.report(lambda v, x: x.astype(jnp.int32) @ v["kernel"])
        assert row.why_float == "the inputs are int32"

    def test_inside_a_scan_and_a_branch(self):
        def apply(v, x):
            body = lambda x, _: (jax.lax.cond(x.sum() > 0, lambda: x @ jnp.sort(v["kernel"]), lambda: x), None)  # noqa: E731
            return jax.lax.scan(body, x, None, length=2)[0]

        (row,) = self.report(apply)
        assert (row.path, row.why_float) == ("kernel", "no rule for sort")

    def test_data_with_data_is_no_layer(self):
        rows = self.report(lambda v, x: (x @ v["kernel"]) @ x.T)
        assert [row.why_float for row in rows] == [""]


def test_printed(capsys):
    weights = nnc.compress({"kernel": jnp.ones((4, 4))})
    nnc.int8_report(lambda v, x: x @ v["kernel"], weights, jnp.ones((2, 4))).print()
    out = capsys.readouterr().out
    assert "1 of 1 layers on integers, on cpu" in out
    assert "int8 x int8 -> int32" in out
