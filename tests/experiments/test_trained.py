"""The scripts that train on: their tables, and that nothing is measured twice."""

import json
import shutil

import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.commands import results
from nncompress_jax.models.network import shapes


def test_distillation(command, workdir, tiny_data, tmp_path):
    """Gains are differences of the accuracies of runs that are there; a second call repeats none."""
    line = (
        f"distillation --model=narrow_stride --inits {workdir} --dataset=tiny --data_dir={tiny_data} --epochs=1 "
        f"--batch_size=16 --recipes fake_quantize:2 --seeds 0 1 --out={tmp_path}/out"
    )
    assert command(line)[0] == 0
    rows = json.loads((tmp_path / "out" / "narrow_stride-tiny.json").read_text())["rows"]
    lines = (tmp_path / "out" / "measurements.jsonl").read_text().splitlines()
    found = {}
    for measured in map(json.loads, lines):
        found.setdefault(measured["of"]["teacher"], []).append(measured["is"]["accuracy"])
    assert [row["teacher"] for row in rows] == ["none", "self"]
    assert rows[1]["accuracy"] == pytest.approx(np.mean(found["self"]))
    gains = np.subtract(found["self"], found[None])
    assert (rows[1]["gain"], rows[1]["lowest_gain"]) == pytest.approx((gains.mean(), gains.min()))
    assert command(line)[0] == 0
    assert (tmp_path / "out" / "measurements.jsonl").read_text().splitlines() == lines
    code, _, err = command(f"{line} --teachers self")
    assert (code, err) == (2, "error: --teachers self: expected none among them, to compare with\n")


def test_early_exits(command, pictures, tiny_data, tmp_path):
    """A row for each threshold beside the whole network; a network without exits is one row."""
    line = f"train --model=narrowest_exits --dataset=tiny --data_dir={tiny_data} --epochs=1 --batch_size=16"
    assert command(f"{line} --workdir={tmp_path}/run")[0] == 0
    assert command(f"{line.replace('_exits', '')} --workdir={tmp_path}/plain")[0] == 0
    line = (
        f"early_exits --networks narrowest_exits={tmp_path}/run narrowest={tmp_path}/plain --thresholds 0 0.3 2 "
        f"--batch_size=16 --timed=16 --rounds=1 --out={tmp_path}/out"
    )
    code, out, err = command(line)
    assert code == 0, err
    rows = json.loads((tmp_path / "out" / "early_exits-tiny.json").read_text())["rows"]
    assert [row["threshold"] for row in rows] == 2 * [None, 0, 0.3, 2, "drop 0.005"] + 2 * [None]
    for whole, first, between, last, found in (rows[:5], rows[5:10]):
        assert 0 < found["share"] <= 1
        assert (whole["leave"], first["leave"], last["leave"]) == ("0 0 100", "100 0 0", "0 0 100")
        assert first["share"] <= between["share"] <= last["share"] == whole["share"] == 1
        assert last["accuracy"] == whole["accuracy"]
        assert whole["speedup"] == 1
        assert first["speedup"] > 0
    network = nnc.models.create("narrowest_exits", num_classes=4)
    macs = nnc.exit_macs(network.apply, shapes(network, (32, 32, 3)), np.zeros((1, 32, 32, 3), np.float32))
    assert rows[1]["share"] == pytest.approx(macs[0] / macs[-1])
    (axes,) = pictures[f"{tmp_path}/out/early_exits-tiny.png"].axes
    curve, *_ = (line.get_xydata().tolist() for line in axes.lines)
    assert curve == sorted([row["share"], row["accuracy"]] for row in rows[1:4])
    lines = (tmp_path / "out" / "measurements.jsonl").read_text()
    code, again, _ = command(line)
    assert (code, again.split(), (tmp_path / "out" / "measurements.jsonl").read_text()) == (0, out.split(), lines)
    code, _, err = command(f"{line} --weights bits")
    assert (code, err) == (2, "error: weights bits: expected some of float, 8 bits\n")


def test_rate(command, workdir, tiny_data, tmp_path):
    """The file is there, as large and as accurate as the table says; a second call repeats nothing."""
    line = (
        f"rate --model=narrow_stride --init={workdir} --dataset=tiny --data_dir={tiny_data} --epochs=4 --batch_size=16 "
        f"--learning_rate=0.001 --shares 0.15 --starts plain --out={tmp_path}/out"
    )
    code, out, err = command(line)
    assert code == 0, err
    (row,) = json.loads((tmp_path / "out" / "rate-narrow_stride-tiny.json").read_text())["rows"]
    assert row["start"] == "plain"
    name = "narrow_stride-tiny-plain-0.15-seed0.nnc"
    assert abs((tmp_path / "out" / name).stat().st_size - row["trained_bytes"]) < 600
    assert row["gain"] == pytest.approx(row["trained_accuracy"] - row["accuracy"])
    file = f"evaluate --file={tmp_path}/out/{name} --dataset=tiny --data_dir={tiny_data}"
    assert f"accuracy {row['trained_accuracy']:.4f}" in command(file)[1]
    lines = (tmp_path / "out" / "measurements.jsonl").read_text()
    code, again, _ = command(line)
    assert (code, again.split()) == (0, out.split()[-len(again.split()) :])
    assert (tmp_path / "out" / "measurements.jsonl").read_text() == lines
    code, _, err = command(f"{line} --starts best")
    assert (code, err) == (2, "error: starts best: expected some of auto, plain\n")
    code, _, err = command(line.replace("0.15", "0.0001"))
    assert code == 2
    assert "share 0.0001: " in err


def test_rate_of_fewer_channels_is_kept(command, workdir, tiny_data, pictures, tmp_path, monkeypatch):
    """Files and table are found again by the script that tests them; what does not fit is named."""
    monkeypatch.setattr(results, "SECONDS", 0.01)
    folder = tmp_path / "results"
    line = (
        f"rate --model=narrow_stride --init={workdir} --dataset=tiny --data_dir={tiny_data} --epochs=1 --batch_size=16 "
        f"--learning_rate=0.001 --shares 0.1 --starts plain --macs=0.5 --channels=0.5 --teacher=self --keep={folder} "
        f"--out={tmp_path}/out"
    )
    code, _, err = command(line)
    assert code == 0, err
    (row,) = json.loads((folder / "table.json").read_text())["rows"]
    assert row["file"] == "narrow_stride-tiny-plain-macs0.5-channels0.5-taught-0.1-seed0.nnc"
    assert row["macs"] < 0.5006  # of whole channels 0.50057 is the nearest to a half; those that are unused go, too
    assert row["bytes"] == (folder / row["file"]).stat().st_size
    assert f"| {row['file']} | narrow_stride | tiny |" in (folder / "README.md").read_text()
    by_size, by_macs, by_speed = pictures[f"{folder}/results.png"].axes
    assert min(row["jax"], row["onnx"], row["images_per_s"], row["minutes"]) > 0
    lost = row["float"] - row["accuracy"]
    assert by_size.lines[0].get_xydata().tolist() == [[pytest.approx(1 / row["share"]), pytest.approx(lost)]]
    assert by_speed.lines[0].get_xydata().tolist() == [[pytest.approx(row["onnx"]), pytest.approx(lost)]]
    assert by_macs.lines[0].get_xydata().tolist() == [[pytest.approx(row["macs"]), pytest.approx(lost)]]
    test = f"results --folder={folder} --data_dir={tiny_data}"
    code, _, err = command(f"{test} --speeds")
    assert code == 0, err
    (again,) = json.loads((folder / "table.json").read_text())["rows"]
    assert {name for name, value in again.items() if value != row[name]} <= {"jax", "onnx", "images_per_s"}
    code, out, err = command(test)
    assert code == 0, err
    assert out.count(f"{row['accuracy']:.2%}") >= 2
    code, _, err = command(f"{test} --datasets digits")
    assert (code, "no network of these data sets" in err) == (2, True)
    table = (folder / "table.json").read_text()
    (folder / "table.json").write_text(table.replace(f'"bytes": {row["bytes"]}', '"bytes": 7'))
    shutil.copy(folder / row["file"], folder / "other.nnc")
    code, _, err = command(test)
    assert code == 2
    for words in (
        "other.nnc has no row",
        f"has bytes {row['bytes']}, its row 7",
        "README.md is not what table.json says",
    ):
        assert words in err
    assert err.count("\n") == 1
    (folder / row["file"]).unlink()
    assert f"{row['file']} is missing" in command(test)[2]
