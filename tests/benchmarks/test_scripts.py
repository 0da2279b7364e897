"""Every benchmark runs, on a small network; what stands in its figures, not how large they are.

Here, and the processes of contenders as threads; two as their users run them.
"""

import importlib
import json
import multiprocessing.dummy
import multiprocessing.pool
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import jax
import pytest

import nncompress_jax as nnc
from nncompress_jax.commands import cli

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ("--networks", "narrow_stride", "--rounds", "1", "--seconds", "0.01")
LARGER = ("--networks", "vgg16ds_stride", *SMALL[2:])  # one of the package
THREADS = types.SimpleNamespace(
    Pipe=multiprocessing.dummy.Pipe, Process=threading.Thread, Pool=multiprocessing.pool.ThreadPool
)


def as_process(script, *options):
    command = [sys.executable, str(BENCHMARKS / script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)


def written(file):
    figures = json.loads(file.read_text())
    assert {"date", "processor", "devices", "versions"} < figures.keys()
    return figures


@pytest.fixture
def run(monkeypatch, called):
    """Runs a script by its name, as `called`; `weights_SIZE=512` gives `SIZE` of the module `weights` that value."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind: THREADS)
    cores = os.sched_getaffinity(0)

    def call(script, *options, **small):
        for name, value in {"peers_MATRIX": 512, "peers_LARGE_BYTES": 2**20, **small}.items():
            module, _, attribute = name.partition("_")
            monkeypatch.setattr(importlib.import_module(module), attribute, value)
        module = importlib.import_module(script.removesuffix(".py"))
        return called(lambda: cli.run(module.main, module.Options), script, *options)

    yield call
    os.sched_setaffinity(0, cores)


@pytest.fixture
def figures(run, tmp_path):
    """What a script wrote, and what it printed."""

    def call(script, *options, **small):
        file = tmp_path / "figures.json"
        code, out, err = run(script, *options, "--json", str(file), **small)
        assert code == 0, err
        return written(file), out

    return call


@pytest.mark.system
def test_as_processes(tmp_path):
    file = tmp_path / "figures.json"
    tasks = ("--tasks", "inference", "--batches", "2", "--contenders", "ours", "torch")
    assert "geometric mean" in as_process("cpu.py", *LARGER, *tasks, "--json", str(file)).stdout
    (ours, _), peak = written(file)["inference"], written(file)["matrix_peak_float32"]
    assert ours["peak_mib"] > 10
    assert peak > 1e9


@pytest.mark.system
def test_compile(tmp_path):
    file = tmp_path / "figures.json"
    as_process("compile.py", *LARGER[:2], "--tasks", "inference", "--contenders", "linen", "--json", str(file))
    rows = written(file)["compile"]
    assert [row["contender"] for row in rows] == ["linen"]
    assert all(row["cold_s"] > 0 and row["warm_s"] > 0 for row in rows)


def test_cpu(figures):
    tasks = ("--tasks", "inference", "pipeline", "--batches", "64", "--contenders", "ours", "torch")
    measured, printed = figures("cpu.py", *SMALL, *tasks)
    ours, torch = measured["inference"]
    assert [row["contender"] for row in measured["inference"]] == ["ours", "torch"]
    assert ours["ratio"] == 1
    assert ours["peak_mib"] > 10
    if torch["images_per_s"]:
        assert torch["ratio"] == pytest.approx(ours["images_per_s"] / torch["images_per_s"])
    else:
        assert "torch is not installed" in torch["not_measured"]
    assert measured["matrix_peak_float32"] > 0
    (pipeline,) = measured["pipeline"]
    assert pipeline["ratio"] == pipeline["real"] / pipeline["fixed"]
    assert "geometric mean" in printed


def test_profile(run, tmp_path):
    run("cpu.py", *SMALL, "--batches", "1", "--profile", str(tmp_path))
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_accelerator(figures):
    small = ("--batches", "2", "--tasks", "inference", "int8", "--contenders", "ours bfloat16")
    measured, _ = figures("accelerator.py", *SMALL, *small)
    assert measured["inference"][0]["contender"] == "ours bfloat16"
    assert measured["inference"][0]["share_of_peak"] > 0
    assert measured["int8"][0]["difference"] == 0  # the CPU beside itself


def test_weights(figures):
    recipes = ("--recipes", "quantize:4", "--leaves", "4", "--layers", "2", "--rounds", "1")
    measured, _ = figures("weights.py", *recipes, weights_SIZE=512)
    assert measured["overhead"][0]["arrays"] == 8
    assert all(row["temporary_mib"] < 2 * row["layer_mib"] for row in measured["memory"])


def test_channels(figures):
    few = ("--networks", "short", "--batches", "2", "--macs", "0.3", "--round_to", "1")
    measured, _ = figures("channels.py", *few, *SMALL[2:])
    dense, _, kept, _, shrunken = measured["inference"]
    assert (dense["ratio"], dense["weights"], kept["weights"], shrunken["weights"]) == (
        1,
        "dense",
        "ChannelPruned",
        "shrunken",
    )
    assert kept["macs"] == pytest.approx(0.3, rel=0.02)


def test_kernels(figures, tmp_path):
    """It writes what it measured, and leaves the rest of the table."""
    table, minor = tmp_path / "kernels.json", ".".join(jax.__version__.split(".")[:2])
    table.write_text(json.dumps({"0.1": {}, minor: {"kernel gradient float32": {"1 axes": "native"}}}))
    quick = ("--operations", "kernel gradient", "--kinds", "groups", "--passes", "1", "--rounds", "1", "--write")
    measured, printed = figures("kernels.py", *quick, "--seconds", "0.001", kernels_FILE=table)
    (row,) = measured["kernels"]
    assert row["fastest"] in ("native", "patches", "patches in blocks")
    classes = {"1 axes": "native", "groups": row["fastest"]}
    assert json.loads(table.read_text()) == {"0.1": {}, minor: {"kernel gradient float32": classes}}
    assert "128 of 16x16, 64 to 64" in printed


@pytest.mark.parametrize("script", ["cpu.py", "compile.py", "accelerator.py"])
def test_an_unknown_task_is_one_line(run, script):
    code, _, err = run(script, "--tasks", "speed")
    assert code == 2
    assert err.startswith("error: unknown task 'speed'; choose of")
    assert len(err.splitlines()) == 1


def test_artifact(figures):
    measured, _ = figures("artifact.py", "--network", "short", "--rounds", "1", "--no_slow")
    rows = {(row["weights"], row["as"]): row["bytes"] for row in measured["artifact"]}
    for recipe in ("quantize:8", "prune_global:0.9+cluster:4"):
        assert rows[recipe, "nnc.save, nnc.load"] < 1.03 * rows[recipe, "entropy"]
        assert rows[recipe, "nnc.save, nnc.load"] < rows[recipe, "numpy savez_compressed"]


def test_steps(figures):
    measured, _ = figures("steps.py", "--networks", "narrow_stride", "--rates", "1", "0.25")
    for row in measured["steps"]:
        assert 0.99 * row["entropy"] < row["codes"] < row["entropy"] + 2000
        assert row["more"] == row["by_channel"] / row["codes"] - 1
        assert row["codes"] + row["others"] == pytest.approx(row["file"], abs=400)
        assert row["contexts"] > 0.95 * row["codes"]
        assert row["folded"] < row["bfloat16"] < row["file"]
    assert measured["steps"][1]["codes"] < measured["steps"][0]["codes"]


def test_scale(figures):
    small = ("--networks", "narrow_stride", "--rounds", "1", "--batch_size", "8")
    measured, _ = figures("scale.py", *small)
    (row,) = measured["training"]
    assert row["gradient MB"] < row["state MB"]
    assert 0 < row["save holds up s"] <= row["save s"]


def test_layers(figures):
    """Operations of all layers are those of the network, and shares of the time those of one whole."""
    small = ("--networks", "narrow_stride", "--batch", "2")
    measured, printed = figures("layers.py", *small, layers_SECONDS=0.0001, layers_ROUNDS=1)
    found = measured["networks"]["narrow_stride"]["rows"]
    products = [row for row in found if row["weight"]]
    operations = [row["times"] * row["forward"] * row["forward_ms"] * 1e6 for row in products]
    model = nnc.models.create("narrow_stride")
    images = jax.numpy.ones((2, 32, 32, 3))
    macs = nnc.cost(model.apply, model.init(jax.random.key(0), images), images).macs
    assert sum(operations) == pytest.approx(2 * 2 * macs)
    assert sum(row["share"] for row in found) == pytest.approx(1)
    assert {row["part"] for row in found} >= {"batch norm, relu", "augmentation"}
    assert "narrow_stride, batch 2: parts" in printed
