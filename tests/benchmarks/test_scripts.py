"""Every benchmark runs, on the smallest network; what stands in its figures, not how large they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ("--networks", "vgg16ds_stride", "--rounds", "1", "--seconds", "0.01")


def run(script, *options, check=True):
    """In an environment of its own: one CPU device, as its users have."""
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, str(BENCHMARKS / script), *options]
    return subprocess.run(command, capture_output=True, text=True, env=kept, check=check, timeout=600)


def figures(tmp_path, script, *options):
    file = tmp_path / "figures.json"
    done = run(script, *options, "--json", str(file))
    written = json.loads(file.read_text())
    assert {"date", "processor", "devices", "versions"} < written.keys()
    return written, done.stdout


def test_cpu(tmp_path):
    tasks = ("--tasks", "inference", "pipeline", "--batches", "256", "--contenders", "ours", "torch")
    written, printed = figures(tmp_path, "cpu.py", *SMALL, *tasks)
    ours, torch = written["inference"]
    assert [row["contender"] for row in written["inference"]] == ["ours", "torch"]
    assert ours["ratio"] == 1
    assert ours["peak_mib"] > 10
    if torch["images_per_s"]:
        assert torch["ratio"] == pytest.approx(ours["images_per_s"] / torch["images_per_s"])
    else:
        assert "torch is not installed" in torch["not_measured"]
    assert written["matrix_peak_float32"] > 1e9
    (pipeline,) = written["pipeline"]
    assert pipeline["ratio"] == pipeline["real"] / pipeline["fixed"]
    assert "geometric mean" in printed


def test_profile(tmp_path):
    run("cpu.py", *SMALL, "--batches", "1", "--profile", str(tmp_path))
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_compile(tmp_path):
    written, _ = figures(tmp_path, "compile.py", *SMALL[:2], "--tasks", "inference", "--contenders", "linen")
    assert [row["contender"] for row in written["compile"]] == ["linen"]
    assert all(row["cold_s"] > 0 and row["warm_s"] > 0 for row in written["compile"])


def test_accelerator(tmp_path):
    small = ("--batches", "2", "--tasks", "inference", "int8", "--contenders", "ours bfloat16")
    written, _ = figures(tmp_path, "accelerator.py", *SMALL, *small)
    assert written["inference"][0]["contender"] == "ours bfloat16"
    assert written["inference"][0]["share_of_peak"] > 0
    assert written["int8"][0]["difference"] == 0  # the CPU beside itself


def test_weights(tmp_path):
    recipes = ("--recipes", "quantize:4", "--leaves", "4", "--layers", "2", "--rounds", "1")
    written, _ = figures(tmp_path, "weights.py", *recipes)
    assert written["overhead"][0]["arrays"] == 8
    assert all(row["temporary_mib"] < 2 * row["layer_mib"] for row in written["memory"])


def test_channels(tmp_path):
    written, _ = figures(tmp_path, "channels.py", *SMALL, "--batches", "2", "--macs", "0.3", "--round_to", "1")
    dense, _, kept, _, shrunken = written["inference"]
    assert (dense["ratio"], dense["weights"], kept["weights"], shrunken["weights"]) == (
        1,
        "dense",
        "ChannelPruned",
        "shrunken",
    )
    assert kept["macs"] == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("script", ["cpu.py", "compile.py", "accelerator.py"])
def test_an_unknown_task_is_one_line(script):
    done = run(script, "--tasks", "speed", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown task 'speed'; choose of")
    assert len(done.stderr.splitlines()) == 1


def test_artifact(tmp_path):
    written, _ = figures(tmp_path, "artifact.py", "--network", "vgg16ds_stride", "--rounds", "1", "--no_slow")
    rows = {(row["weights"], row["as"]): row["bytes"] for row in written["artifact"]}
    for recipe in ("quantize:8", "prune_global:0.9+cluster:4"):
        assert rows[recipe, "nnc.save, nnc.load"] < 1.03 * rows[recipe, "entropy"]
        assert rows[recipe, "nnc.save, nnc.load"] < rows[recipe, "numpy savez_compressed"]


def test_scale(tmp_path):
    small = ("--networks", "vgg16ds_stride", "--rounds", "1", "--batch_size", "8")
    written, _ = figures(tmp_path, "scale.py", *small)
    (row,) = written["training"]
    assert row["gradient MB"] < row["state MB"]
    assert 0 < row["save holds up s"] <= row["save s"]
