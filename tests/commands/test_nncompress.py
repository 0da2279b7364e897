"""The installed command: from a network to predictions, through one file."""

import json
import re

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from flax import linen as nn

import nncompress_jax as nnc
from nncompress_jax.models.exits import with_exits
from tests.prepared import labelled_images, write_prepared


@pytest.fixture(scope="module")
def variables():
    """Of a network that was not trained."""
    network = nnc.models.create("narrowest", num_classes=4)
    return jax.jit(network.init)(jax.random.key(0), jnp.ones((1, 32, 32, 3)))


def test_from_weights_to_predictions(nncompress, variables, tiny_data, tmp_path):
    file, weights = tmp_path / "model.nnc", tmp_path / "weights.safetensors"
    nnc.save_safetensors(weights, variables)
    data = f"--model=narrowest --dataset=tiny --data_dir={tiny_data}"
    code, out, _ = nncompress(f"compress --init={weights} {data} --recipe=prune:0.5+quantize:8 --out={file}")
    assert code == 0
    size = file.stat().st_size
    accuracy = float(re.search(r"test accuracy ([\d.]+) on tiny", out)[1])
    assert f"{file}: {size:,} bytes" in out
    code, out, _ = nncompress(f"inspect {file}")
    assert code == 0
    assert out.startswith(f"{file}: {size:,} bytes, ")
    assert re.search(r"params/Conv_\d+/kernel +Sparse of Quantized +\[3, 3, 16, 64\]", out)
    names = re.findall(r"^ +(\S+) ", out, re.MULTILINE)
    numbers = [int(name.split("_")[1]) for name in names if name.startswith("BatchNorm_")]
    assert numbers == [*range(len(numbers))]  # in their natural order, a row for each layer
    code, out, _ = nncompress(f"inspect {file} --all")
    assert code == 0
    assert re.search(r"batch_stats/BatchNorm_0/var +float32", out)
    assert "entropy_bytes" in out
    assert re.search(r"class_names +night, dusk, dawn, day", out)
    code, out, words = nncompress(f"inspect {file} --json")
    found = json.loads(out)
    assert (code, words.startswith(f"{file}: {size:,} bytes, ")) == (0, True)
    assert found["total"]["bytes"] == size > sum(row["bytes"] for row in found["weights"])
    assert found["class_names"] == ["night", "dusk", "dawn", "day"]
    _, out, _ = nncompress(f"verify {file} --json")
    assert json.loads(out) == {str(file): found["digest"]}
    code, out, _ = nncompress(f"report {file} --out={tmp_path}/report.html")
    assert (code, out) == (0, f"page: {tmp_path}/report.html\n")
    page = (tmp_path / "report.html").read_text()
    assert f"{size:,} bytes" in page
    assert f"{accuracy:.2%}"[:4] in page
    code, out, _ = nncompress(f"verify {file}")
    assert (code, out.split()[:3]) == (0, [f"{file}:", "whole,", "SHA-256"])
    for brightness, name in ((20, "dark"), (220, "bright")):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((40, 50, 3), brightness, np.uint8))
    code, out, _ = nncompress(f"predict {file} {tmp_path}/dark.png {tmp_path}/bright.png --top=4")
    assert code == 0
    shown = re.findall(r"(night|dusk|dawn|day) +([\d.]+)", out)
    assert len(shown) == 8
    apply, again, info = nnc.load(file)
    assert info.accuracy == pytest.approx(accuracy, abs=1e-4)
    image = jnp.full((1, 32, 32, 3), 20 / 255)
    expected = jax.nn.softmax(apply(again, (image - jnp.array(info.mean)) / jnp.array(info.deviation)))[0]
    assert {name: float(share) for name, share in shown[:4]} == {
        name: pytest.approx(float(share), abs=1e-4) for name, share in zip(info.class_names, expected, strict=True)
    }


@pytest.mark.parametrize(("model", "pixels"), [("narrowest", ""), ("narrowest", " --pixels"), ("narrowest_exits", "")])
def test_what_is_served_by_onnxruntime(nncompress, variables, tiny_data, tmp_path, model, pixels):
    variables = with_exits(nnc.models.create(model), variables)
    file, weights, served = tmp_path / "model.nnc", tmp_path / "weights.safetensors", tmp_path / "model.onnx"
    nnc.save_safetensors(weights, variables)
    data = f"--dataset=tiny --data_dir={tiny_data}"
    assert nncompress(f"compress --init={weights} --model={model} {data} --out={file}")[0] == 0
    code, out, err = nncompress(f"export {file} --to={served} {data}{pixels}")
    assert code == 0, err
    assert f"{served}: {served.stat().st_size:,} bytes" in out
    assert f"{5 if 'exits' in model else 3} products on integers, 0 on floats" in out
    accuracies = []
    for each in (file, served):
        code, out, err = nncompress(f"evaluate --file={each} {data}")
        assert code == 0, err
        accuracies.append(float(re.search(r"accuracy ([\d.]+) \(", out)[1]))
        assert f"{each.stat().st_size:,} bytes as stored" in out
    assert abs(accuracies[0] - accuracies[1]) < 0.1
    cv2.imwrite(str(tmp_path / "dark.png"), np.full((40, 50, 3), 20, np.uint8))
    shown = []
    for each in (file, served):
        code, out, err = nncompress(f"predict {each} {tmp_path}/dark.png --top=4")
        assert code == 0, err
        shown.append({name: float(share) for name, share in re.findall(r"(night|dusk|dawn|day) +([\d.]+)", out)})
    assert shown[0].keys() == shown[1].keys() == {"night", "dusk", "dawn", "day"}
    assert all(abs(shown[0][name] - shown[1][name]) < 0.02 for name in shown[0])


def test_a_network_that_is_not_ours(nncompress, tiny_data, tmp_path):
    """Its program is in the file."""
    module = nn.Sequential([nn.Conv(8, (3, 3), (2, 2)), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(4)])
    images = jnp.ones((2, 32, 32, 3))
    small = nnc.compress(module.init(jax.random.key(0), images))
    about = {"mean": [0.5] * 3, "deviation": [0.2] * 3, "class_names": "abcd", "dataset": "tiny"}
    file, served = tmp_path / "model.nnc", tmp_path / "model.onnx"
    nnc.save(file, small, apply=module.apply, example=images, **about)
    code, out, err = nncompress(f"inspect {file}")
    assert code == 0, err
    assert re.search(r"program +\d+ operations on float32\[batch, 32, 32, 3\]", out)
    code, out, err = nncompress(f"export {file} --to={served} --data_dir={tiny_data}")
    assert code == 0, err
    assert "2 products on integers, 0 on floats" in out
    cv2.imwrite(str(tmp_path / "dark.png"), np.full((40, 50, 3), 20, np.uint8))
    shown = []
    for each in (file, served):
        code, out, err = nncompress(f"evaluate --file={each} --data_dir={tiny_data}")
        assert code == 0, err
        code, out, err = nncompress(f"predict {each} {tmp_path}/dark.png --top=4")
        assert code == 0, err
        shown.append({name: float(share) for name, share in re.findall(r"\b([abcd]) +([\d.]+)", out)})
    assert shown[0] == pytest.approx(shown[1], abs=0.02)
    assert len(shown[0]) == 4


def test_without_ranges_integers_are_multiplied_as_floats(nncompress, variables, tmp_path):
    file, served = tmp_path / "model.nnc", tmp_path / "model.onnx"
    nnc.save(file, nnc.compress(variables), model="narrowest", options={"num_classes": 4}, image_shape=(32, 32, 3))
    with pytest.warns(UserWarning, match=r"Conv_0, .*: integers in the file, multiplied as floats: in transposed"):
        code, out, err = nncompress(f"export {file} --to={served} --calibration_batches=0")
    assert code == 0, err
    assert "0 products on integers, 3 on floats" in out


def test_a_budget(nncompress, variables, tiny_data, tmp_path):
    file, weights = tmp_path / "model.nnc", tmp_path / "weights.safetensors"
    nnc.save_safetensors(
        weights, jax.tree.map(lambda leaf: leaf + 0.01 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), variables)
    )
    data = f"--model=narrowest --dataset=tiny --data_dir={tiny_data}"
    code, out, err = nncompress(f"compress --init={weights} {data} --auto=bytes:0.2 --out={file}")
    assert code == 0, err
    whole = int(re.search(r"of ([\d,]+) as floats", out)[1].replace(",", ""))
    assert 0.15 * whole < file.stat().st_size <= 0.2 * whole
    assert re.search(r"params/Conv_\d+/kernel +[\d,]+ ", out)
    assert nnc.load(file)[2].recipe == "auto(bytes:0.2)"
    assert file.with_suffix(".search.jsonl").exists()
    line = f"compress --init={weights} {data} --out={file} --auto="
    for budget, words in {
        "size:3": "--auto=size:3: expected bytes:0.03, macs:0.5 or max_drop:0.005, joined by +",
        "bytes:few": "--auto=bytes:few: expected bytes:0.03",
        "max_drop:0.1": "calibration has seen all 64 training images; lower --calibration_batches",
        "bytes:1e-6": "bytes=1e-06: with the coarsest steps and 0.04 of the multiply-accumulates a file has",
    }.items():
        code, _, err = nncompress(line + budget)
        assert code == 2
        assert words in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("explode", "unknown verb 'explode'; choose one of compress, export, inspect"),
        ("verify no.nnc", "no.nnc: No such file or directory; expected a file of nnc.save"),
        ("predict {folder}/m.nnc no.png", "error: no.png: No such file or directory; expected a path that can be used"),
        ("predict {folder}/m.nnc {folder}", "Is a directory; expected a path that can be used"),
        ("predict {folder}/m.nnc {folder}/m.nnc", "m.nnc: no picture that can be read"),
        ("predict {folder}/m.nnc {folder}/half.jpg", "half.jpg: it is cut short: the JPEG file has no end; expected"),
        ("predict {folder}/z.nnc {folder}/half.jpg", "names no network of square pictures with mean and deviation"),
        ("inspect {folder}/none.nnc --json", "none.nnc: No such file or directory; expected a file of nnc.save"),
        ("inspect ~nobody-of-that-name/m.nnc", "~nobody-of-that-name/m.nnc: no such home folder; give the whole path"),
        (
            "compress --init={folder}/m.nnc --model=narrowest --out=a.nnc",
            "m.nnc: a compressed network; expected the weights",
        ),
        ("predict {folder}/o.nnc no.png", "names no network of square pictures"),
        ("predict {folder}/o.onnx no.png", "o.onnx: no ONNX file that onnxruntime can run"),
        ("export {folder}/o.nnc --to=o.onnx", "o.nnc: names no shape of images; use nnc.export_onnx"),
        ("export {folder}/m.nnc --to=m.onnx", "m.nnc: names no data set; give --dataset, or --calibration_batches=0"),
        ("evaluate --file={folder}/m.nnc --quantize=int8", "--quantize=int8 is for --workdir and --checkpoint; a file"),
        ("compress --init={folder}/w.safetensors --out=a.nnc", "--model is missing: the network that"),
        (
            "compress --init=vgg16.pth --out=a.nnc",
            "vgg16.pth: no such file or folder; expected the --workdir of a training run, or a",
        ),
        (
            "compress --init={folder}/w.safetensors --model=narrowest --dataset=tiny --data_dir={data} "
            "--out={folder}/none/a.nnc",
            "cannot be written",
        ),
    ],
)
def test_it_refuses(nncompress, variables, tiny_data, tmp_path, line, message):
    nnc.save_safetensors(tmp_path / "w.safetensors", variables)
    described = {"image_shape": (32, 32, 3), "mean": [0.5] * 3, "deviation": [0.2] * 3}
    nnc.save(tmp_path / "m.nnc", variables, model="narrowest", options={"num_classes": 4}, **described)
    nnc.save(tmp_path / "o.nnc", {"a": np.ones(3)})
    (tmp_path / "o.onnx").write_bytes((tmp_path / "o.nnc").read_bytes()[4:])
    nnc.save(tmp_path / "z.nnc", variables, model="narrowest", **described | {"deviation": [0.2, 0.0, 0.2]})
    jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    code, _, err = nncompress(line.format(folder=tmp_path, data=tiny_data))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_files_are_known_by_what_is_in_them_and_homes_are_found(
    nncompress, variables, tiny_data, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    nnc.save_safetensors(tmp_path / "weights.pth", variables)
    data = f"--model=narrowest --dataset=tiny --data_dir={tiny_data}"
    code, _, err = nncompress(f"compress --init=~/weights.pth {data} --out=~/model.nnc")
    assert (code, err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.nnc", "weights.pth"]


def test_transparent_pictures_are_put_on_white(nncompress, variables, tmp_path):
    described = {"image_shape": (32, 32, 3), "mean": [0.5] * 3, "deviation": [0.2] * 3}
    nnc.save(tmp_path / "m.nnc", variables, model="narrowest", options={"num_classes": 4}, **described)
    cv2.imwrite(str(tmp_path / "clear.png"), np.zeros((40, 50, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "white.png"), np.full((40, 50, 3), 255, np.uint8))
    _, clear, err = nncompress(f"predict {tmp_path}/m.nnc {tmp_path}/clear.png")
    assert err == f"{tmp_path}/clear.png: transparent; put on white\n"
    _, white, err = nncompress(f"predict {tmp_path}/m.nnc {tmp_path}/white.png")
    assert err == ""
    assert clear.replace("clear", "white") == white


def test_a_train_split_alone(nncompress, tmp_path):
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": tfds.features.ClassLabel(num_classes=4)}
    write_prepared(tmp_path, "alone", features, {"train": labelled_images(40)})
    data = f"--dataset=alone --data_dir={tmp_path}"
    line = f"train --model=narrowest {data} --epochs=1 --batch_size=16 --workdir={tmp_path}/W"
    code, _, err = nncompress(line)
    assert (code, err.count("\n")) == (2, 1)
    flags = re.search(r"only train; (.*) divides it", err)[1].replace("'", "")
    code, out, err = nncompress(f"{line} {flags}")
    assert (code, err) == (0, "")
    accuracy = re.search(r"test accuracy ([\d.]+) on alone", out)[1]
    code, out, _ = nncompress(f"evaluate --workdir={tmp_path}/W")
    assert code == 0
    assert re.search(f"accuracy {accuracy} \\(\\d of 4\\)", out)
    code, out, _ = nncompress(f"evaluate --workdir={tmp_path}/W --train_split=train[20:] --test_split=train[:20]")
    assert code == 0
    assert re.search(r"\(\d+ of 20\)", out)
