"""Networks of other people, by `--model=package.module:function`, from training to a file that needs no such code."""

import dataclasses
import json
import re
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.commands import cli
from nncompress_jax.training import checkpoint
from nncompress_jax.weights.base import is_compressed


def types(variables):
    return {type(leaf).__name__ for leaf in jax.tree.leaves(variables, is_leaf=is_compressed) if is_compressed(leaf)}


@pytest.mark.parametrize("name", ["linen", "in_nnx"])
def test_from_training_to_predictions(name, nncompress, tiny_data, tmp_path):
    model = f"--model=tests.commands.own:{name}"
    data = f"--dataset=tiny --data_dir={tiny_data}"
    line = f"train {model} {data} --epochs=2 --batch_size=16 --learning_rate=0.05"
    code, out, err = nncompress(f"{line} --workdir={tmp_path}/run")
    assert code == 0, err
    trained = float(re.findall(r"test accuracy ([\d.]+)", out)[-1])
    code, out, _ = nncompress(f"evaluate {model} --workdir={tmp_path}/run")
    assert code == 0
    assert float(re.search(r"\naccuracy ([\d.]+)", out)[1]) == pytest.approx(trained, abs=1e-3)

    tuned = f"{line} --init={tmp_path}/run --recipe=channels:0.5+fake_quantize:8 --workdir={tmp_path}/tuned"
    code, _, err = nncompress(tuned)
    assert code == 0, err
    assert types(checkpoint.restore(tmp_path / "tuned")) == {"ChannelPruned"}

    file = tmp_path / "model.nnc"
    code, out, err = nncompress(f"compress {model} --init={tmp_path}/tuned --recipe=None --out={file}")
    assert code == 0, err
    accuracy = float(re.search(r"test accuracy ([\d.]+)", out)[1])
    cv2.imwrite(str(tmp_path / "dark.png"), np.full((40, 50, 3), 20, np.uint8))
    code = (
        "import sys\nfrom nncompress_jax.commands.nncompress import main\n"
        "class Refused:\n    def find_spec(self, name, *_):\n        assert not name.startswith('tests')\n"
        "sys.meta_path.insert(0, Refused())\nsys.argv = ['nncompress', *{}]\nmain()"
    )
    for command, expected in (
        (f"evaluate --file={file} {data}", f"accuracy {accuracy:.4f}"),
        (f"predict {file} {tmp_path}/dark.png", "night|dusk|dawn|day"),
        (f"inspect {file}", "ChannelPruned|Kept"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(command.split())],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert re.search(expected, done.stdout), done.stdout


@pytest.mark.parametrize("model", ["tests.commands.own:linen", "tests.commands.own:in_nnx", "narrowest_exits"])
def test_compare(model, nncompress, tiny_data, tmp_path, monkeypatch):
    """A row for each way to quantize it; once more from its workdir, with the same figures."""
    monkeypatch.chdir(tmp_path)
    data = f"--data_dir={tiny_data} --models {model} --calibration_batches=2 --batch_size_of_test=16"
    code, _, err = nncompress(f"compare {data} --dataset=tiny --epochs=1 --batch_size=16 --out=once")
    assert code == 0, err
    (workdir,) = (tmp_path / "runs").iterdir()
    code, _, err = nncompress(f"compare {data} --workdirs {workdir} --out=again")
    assert code == 0, err
    once, again = (json.loads((tmp_path / out / "table.json").read_text())["rows"] for out in ("once", "again"))
    assert [row["quantization"] for row in once] == [
        *("none", "int8, dynamic activations", "int8, static activations", "minmax, 8 bits")
    ]
    for row, other in zip(once, again, strict=True):
        assert {**row, "images_per_s": 0} == {**other, "images_per_s": 0}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--model=tests.commands.nowhere:net", "cannot be imported .ModuleNotFoundError"),
        ("--model=tests.commands.own:nothing", "cannot be imported .AttributeError"),
        ("--model=tests.commands.own:NUMBER", "is a int; expected a function that returns a network"),
        ("--model=tests.commands.own:no_network", "gives a dict: expected a module of linen or NNX"),
    ],
)
def test_refusals(flags, message, nncompress, tiny_data, tmp_path):
    code, _, err = nncompress(
        f"train {flags} --dataset=tiny --data_dir={tiny_data} --batch_size=16 --workdir={tmp_path}/run"
    )
    assert (code, err.count("\n")) == (2, 1)
    assert re.search(message, err)
    assert not (tmp_path / "run" / "config.json").exists()


def test_code_is_never_imported_for_a_file(nncompress, tiny_data, tmp_path, monkeypatch):
    """A workdir that names a function is not believed, unless the command line names it, too."""
    data = f"--dataset=tiny --data_dir={tiny_data} --epochs=1 --batch_size=16"
    assert nncompress(f"train --model=tests.commands.own:linen {data} --workdir={tmp_path}/run")[0] == 0
    monkeypatch.setattr(nnc.models, "OWN", {})
    for line in (f"evaluate --workdir={tmp_path}/run", f"compress --init={tmp_path}/run --out={tmp_path}/model.nnc"):
        code, _, err = nncompress(line)
        assert (code, err.count("\n")) == (2, 1)
        assert "tests.commands.own:linen: code of a network is imported from the command line alone" in err
        assert "--model=tests.commands.own:linen" in err


def test_networks_beside_their_weights(monkeypatch):
    """MODEL=WEIGHTS, as experiments take several; a remote folder is no function."""
    monkeypatch.setattr(nnc.models, "OWN", {})
    seen = []

    @dataclasses.dataclass
    class Options:
        networks: tuple[str, ...] = ()
        teachers: tuple[str, ...] = ()

    flags = ["--networks", "tests.commands.own:linen=runs/a", "vgg16=gs://b", "--teachers", "none", "gs://c"]
    cli.run(lambda options: seen.append(options), Options, flags=flags)
    assert seen[0].networks == ("tests.commands.own:linen=runs/a", "vgg16=gs://b")
    assert list(nnc.models.OWN) == ["tests.commands.own:linen"]
