"""The commands as people call them: what they print, what they leave, and how they refuse."""

import json
import re

import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax import checksums
from nncompress_jax.commands.initial import initial_variables
from nncompress_jax.importers import torch as importer
from nncompress_jax.training import checkpoint
from nncompress_jax.training.config import Config
from nncompress_jax.tree import named_leaves


def test_summary(command, pictures, tmp_path):
    code, out, _ = command(f"summary --model=vgg16ds --picture={tmp_path}/net.png")
    assert code == 0
    last = out.strip().splitlines()[-1].split()
    assert last == ["total", "1,698,378", "38,018,048", "6,857,000"]
    boxes, bars = pictures[f"{tmp_path}/net.png"].axes
    assert len(boxes.patches) == 26
    assert sum(bar.get_height() for bar in bars.patches) == 38_018_048


def test_train_again_only_tests(command, workdir, tiny_data):
    line = f"train --model=narrow_stride --dataset=tiny --data_dir={tiny_data} --epochs=1 --batch_size=16"
    code, out, _ = command(f"{line} --workdir={workdir}")
    assert code == 0
    assert f"{workdir}: test accuracy" in out
    code, _, err = command(f"{line.replace('_stride', '_deep')} --workdir={workdir}")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{workdir} holds a run of model=narrow_stride, not narrow_deep; choose another --workdir" in err


@pytest.mark.parametrize("flags", ["none", "minmax", "int8", "int8 --calibration_batches=2 --batch_size=8"])
def test_evaluate(command, workdir, pictures, flags):
    quantize = flags.split()[0]
    code, out, _ = command(f"evaluate --workdir={workdir} --quantize={flags}")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    counts = np.array([rows[name][2:] for name in ("night", "dusk", "dawn", "day")], int)
    assert counts.sum(1).tolist() == [6, 5, 5, 5]
    assert f"({counts.trace()} of 21)" in out
    (axes,) = pictures[f"{workdir}/confusion-{quantize}.png"].axes
    np.testing.assert_allclose(axes.images[0].get_array(), counts / counts.sum(1, keepdims=True))


def test_evaluate_a_file(command, tmp_path, tiny_data):
    torch = pytest.importorskip("torch", reason="torch is not installed: make torch")
    entries = importer.entries("vgg16ds_stride", num_classes=4)
    torch.save({key: torch.ones(shape) for key, shape in entries.items()}, tmp_path / "net.pth")
    line = f"evaluate --checkpoint={tmp_path}/net.pth --dataset=tiny --data_dir={tiny_data}"
    for flags in ("", " --model=vgg16ds_stride"):
        code, out, _ = command(line + flags)
        assert code == 0
        assert "accuracy 0.2857 (6 of 21)" in out  # equal logits: always the first class
    code, _, err = command(f"{line} --model=vgg16ds")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {tmp_path}/net.pth: not a state dict of vgg16ds: ")
    assert err.endswith("; it is of vgg16ds_stride\n")
    line = line.replace("net.pth", "net.safetensors")
    nnc.save_safetensors(tmp_path / "net.safetensors", importer.load(tmp_path / "net.pth"))
    assert command(f"{line} --model=vgg16ds_stride")[0] == 0
    code, _, err = command(line)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: --model is missing: the network that ")


def test_compare(command, workdir, pictures, tmp_path):
    flags = "--calibration_batches=2 --batch_size_of_test=16"
    code, out, _ = command(f"compare --workdirs {workdir} --out={tmp_path} {flags}")
    assert code == 0
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    quantizations = ["none", "int8, dynamic activations", "int8, static activations", "minmax, 8 bits"]
    assert [row["quantization"] for row in rows] == quantizations
    leaves = named_leaves(checkpoint.restore(workdir))
    parameters = sum(leaf.size for path, leaf in leaves if path.startswith("params/"))
    kernels = [leaf for path, leaf in leaves if path.endswith("kernel")]
    floats = 4 * sum(leaf.size for _, leaf in leaves)
    integers = floats - sum(3 * kernel.size - 4 * kernel.shape[-1] for kernel in kernels)
    assert {row["parameters"] for row in rows} == {parameters}
    assert {row["macs"] for row in rows} == {417_536}
    assert [row["bytes"] for row in rows] == [floats, integers, integers + 4 * len(kernels), floats]
    assert rows[0]["training_s"] > 0
    assert all(row["training_s"] is None for row in rows[1:])
    assert all(0 <= row["accuracy"] <= 1 and row["images_per_s"] > 0 for row in rows)
    assert f"{parameters:,}" in out
    assert (tmp_path / "table.csv").read_text().splitlines()[0] == ",".join(rows[0])
    assert (tmp_path / "table.md").read_text().count("\n| ") == 6
    (axes,) = pictures[f"{tmp_path}/accuracy_by_bytes.png"].axes
    points = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines]
    assert points == [(row["bytes"] / 1e6, row["accuracy"]) for row in rows]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --model=vgg17", "unknown model 'vgg17'; choose one of vgg11, vgg13, "),
        ("train --model=vgg16 --dataset=cifar11", "unknown data set 'cifar11': neither `digits`, "),
        ("train --model=vgg16 --dataset=coco_captions", "coco_captions: "),
        ("train --model=vgg16 --dataset=digits --batch_size=0", "batch_size=0: expected more than 0"),
        ("train --model=vgg16 --dataset=digits --epochs=-1", "epochs=-1: expected more than 0"),
        ("train --model=vgg16 --dataset=digits --preset=slow", "unknown preset 'slow'; choose one of seed, fast"),
        ("evaluate --workdir=nowhere", "nowhere: no such file or folder; expected the --workdir of a training run"),
        ("evaluate", "expected one of --workdir, --checkpoint and --file"),
        ("evaluate --workdir=W --checkpoint=C", "expected one of --workdir, --checkpoint and --file"),
        ("evaluate --workdir={workdir} --dataset=digits", "digits has 10 classes, the network 4; choose another"),
        (
            "evaluate --workdir={workdir} --quantize=int3",
            "unknown quantization 'int3'; choose one of none, int8, minmax",
        ),
        ("evaluate --workdir={workdir} --quantize=minmax --bits=99", "bits=99: expected 1 to 16"),
        ("evaluate --workdir={workdir} --quantize=int8 --bits=4", "--bits=4 is for --quantize=minmax; int8 has 8"),
        (
            "evaluate --workdir={workdir} --calibration_batches=2",
            "--calibration_batches is for --quantize=int8, not none",
        ),
        (
            "evaluate --workdir={workdir} --quantize=int8 --calibration_batches=2",
            "2 calibration batches of 100: expected at least one image, at most 64, the training images",
        ),
        ("compare --workdirs nowhere", "nowhere: no such folder"),
        ("summary --model=vgg16 --image_size=40", "images are [1, 40, 40, 3], expected [B, H, H, I] with H divisible"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command, workdir, tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(line.format(workdir=workdir))
    assert code == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_text_file_for_a_checkpoint(command, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: make torch")
    (tmp_path / "net.pth").write_text("weights, to come\n")
    code, _, err = command(f"evaluate --checkpoint={tmp_path}/net.pth --model=vgg16 --dataset=digits")
    assert (code, err.count("\n")) == (2, 1)
    assert "not a whole .pth file" in err


def test_help_says_what_each_flag_is(command):
    code, out, _ = command("train --help")
    assert code == 0
    out = " ".join(out.replace("│", "").split())
    for text in ("--model", "--data_dir", "--learning_rate", "vgg16ds (depthwise", "a run found there is resumed"):
        assert text in out


def test_train_on_compressed_weights(command, workdir, tiny_data, tmp_path):
    line = f"train --model=narrow_stride --dataset=tiny --data_dir={tiny_data} --epochs=1 --batch_size=16"
    code, out, _ = command(f"{line} --init={workdir} --recipe=fake_quantize:4 --workdir={tmp_path}/Q")
    assert code == 0
    stored, floats = re.search(r"([\d,]+) bytes as stored, ([\d,]+) as floats", out).groups()
    assert int(stored.replace(",", "")) < 0.3 * int(floats.replace(",", ""))
    code, out, _ = command(f"evaluate --workdir={tmp_path}/Q --data_dir={tiny_data}")
    assert code == 0
    assert f"{stored} bytes as stored" in out
    code, _, error = command(f"{line} --recipe=prune --workdir={tmp_path}/P")
    assert (code, error) == (2, "error: --recipe=prune needs --init, the weights that are compressed\n")


def test_prune_channels(command, workdir, tiny_data, tmp_path):
    data = f"--model=narrow_stride --dataset=tiny --data_dir={tiny_data}"
    some = "--criteria taylor --macs 0.5 --no_fine_tuning"
    code, out, _ = command(f"prune_channels {data} --inits {workdir} {some} --out={tmp_path}")
    assert code == 0
    none, cut = json.loads((tmp_path / "narrow_stride-tiny.json").read_text())["rows"]
    assert [none["criterion"], cut["criterion"]] == ["none", "taylor"]
    assert none["macs"] == 417_536
    assert cut["macs"] == pytest.approx(0.5 * none["macs"], rel=0.02)
    assert (cut["spread"], cut["fine_tuned"]) == (0, None)
    assert f"| taylor | {cut['macs']:,} |" in out
    measured = tmp_path / "measurements.jsonl"
    lines = measured.read_text().splitlines()
    assert len(lines) == 2
    code, again, _ = command(f"prune_channels {data} --inits {workdir} {some} --out={tmp_path}")
    assert (code, again.split()) == (0, out.split())
    assert measured.read_text().splitlines() == lines
    none, cut = (json.loads(line)["of"] for line in lines)
    assert cut == none | {"criterion": "taylor", "macs": 0.5}
    assert {"model", "dataset", "init", "seed", "epochs", "learning_rate", "fine_tuning"} < cut.keys()
    assert cut["init"] == checksums.of_description(checksums.of_leaves(checkpoint.restore(workdir)))


def test_channels_are_cut_by_a_recipe(workdir, tiny_data):
    config = Config(model="narrow_stride", dataset="tiny", data_dir=tiny_data, init=workdir, recipe="channels:0.5")
    kernel = initial_variables(config)["params"]["Conv_0"]["kernel"]
    assert kernel.shape == (3, 3, 3, 32)
    assert kernel.values.shape[-1] < 28


def test_sensitivity(command, workdir, tiny_data, pictures, tmp_path):
    data = f"--model=narrow_stride --dataset=tiny --data_dir={tiny_data}"
    line = f"sensitivity {data} --init={workdir} --rates 0.5 --images=16 --out={tmp_path}"
    code, out, _ = command(line)
    assert code == 0
    (name,) = (path.stem for path in tmp_path.glob("*.png"))
    rows = json.loads((tmp_path / f"{name}.json").read_text())["rows"]
    assert [(row["rate"], row["kept"]) for row in rows[:2]] == [(0, 32), (0.5, 16)]
    assert len(rows) == 8
    (axes,) = pictures[f"{tmp_path}/{name}.png"].axes
    shown = [point for line in axes.lines for point in line.get_xydata().tolist()]
    assert shown == [[row["rate"], row["accuracy"]] for row in rows]
    measured = (tmp_path / f"{name}.jsonl").read_text()
    (tmp_path / f"{name}.jsonl").write_text("".join(measured.splitlines(keepends=True)[:-1]))  # as if stopped
    code, again, _ = command(line)
    assert (code, again.split()) == (0, out.split())
    assert (tmp_path / f"{name}.jsonl").read_text() == measured
    code, _, _ = command(f"{line} --rates 0.25")
    lines = [json.loads(line)["of"] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
    assert [len(each["without"].get("channels", ())) for each in lines[:2]] == [0, 16]
    assert (code, len(lines)) == (0, 9)  # the whole network, and four groups at two rates
    code, _, _ = command(line.replace("--images=16", "--images=8"))
    assert len((tmp_path / f"{name}.jsonl").read_text().splitlines()) == 14
    code, _, err = command(f"sensitivity {data}")
    assert (code, err) == (2, "error: --init is missing: the trained network, a workdir or a .pth file\n")


def test_families(command, workdir, tiny_data, tmp_path):
    line = f"families --model=narrow_stride --dataset=tiny --data_dir={tiny_data} --inits {workdir} {workdir}"
    recipes = "none quantize:4 prune:0.5/cluster:2 prune:0.5+cluster:2"
    code, out, _ = command(f"{line} --recipes {recipes} --no_fine_tuning --out={tmp_path}")
    assert code == 0
    table = json.loads((tmp_path / "narrow_stride-tiny.json").read_text())
    none, quantized, in_steps, chained = table["rows"]
    assert in_steps["bytes"] == chained["bytes"] < none["bytes"]
    assert (none["share"], none["spread"], none["fine_tuned"]) == (1, 0, None)
    assert quantized["share"] == quantized["bytes"] / none["bytes"] < 0.3
    assert f"| quantize:4 | {quantized['bytes']:,} |" in out


def test_compress(command, workdir, tmp_path):
    """The run says which network and data set it was."""
    file = tmp_path / "model.nnc"
    code, out, _ = command(f"compress --init={workdir} --out={file}")
    assert code == 0
    assert f"{file}: {file.stat().st_size:,} bytes" in out
    info = nnc.load(file).info
    assert (info.model, info.dataset, info.recipe) == ("narrow_stride", "tiny", "quantize:8")
    assert f"test accuracy {info.accuracy:.4f} on tiny" in out
    assert info.class_names == ("night", "dusk", "dawn", "day")
