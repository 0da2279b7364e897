"""The installed command: from a network to predictions, through one file."""

import json
import re

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.commands import nncompress as installed


@pytest.fixture
def nncompress(called):
    """Runs it, as `called`."""
    return lambda line: called(installed.main, "nncompress", *line.split())


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
    code, out, _ = nncompress(f"inspect {file} --json={tmp_path}/rows.json")
    assert code == 0
    assert re.search(r"params/Conv_\d+/kernel +Sparse of Quantized +\[3, 3, 16, 64\]", out)
    assert re.search(r"class_names +night, dusk, dawn, day", out)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert rows[-1]["bytes"] == size > sum(row["bytes"] for row in rows[:-1])
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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("explode", "unknown verb 'explode'; choose one of train, evaluate, compress"),
        ("verify no.nnc", "no.nnc: No such file or directory; expected a file of nnc.save"),
        ("predict {folder}/m.nnc no.png", "no.png: no picture that can be read"),
        ("predict {folder}/o.nnc no.png", "names no network of square pictures"),
        ("compress --init=vgg16.pth --out=a.nnc", "--model is missing: the network that vgg16.pth is of"),
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
    code, _, err = nncompress(line.format(folder=tmp_path, data=tiny_data))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_it_helps(nncompress):
    code, out, _ = nncompress("")
    assert code == 0
    assert all(f"  {verb} " in out for verb in installed.VERBS)
    code, out, _ = nncompress("inspect --help")
    assert code == 0
    assert "usage: nncompress inspect" in out
