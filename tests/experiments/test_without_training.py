"""The scripts that compress without training: their tables, and that nothing is measured twice."""

import json


def test_post_training(command, workdir, tiny_data, tmp_path):
    data = f"--dataset=tiny --data_dir={tiny_data} --networks narrow_stride={workdir} --out={tmp_path}"
    code, out, error = command(f"post_training {data} --settings 2:4")
    assert code == 0, error
    whole, half = json.loads((tmp_path / "post_training-tiny.json").read_text())["rows"]
    assert [whole["setting"], half["setting"]] == ["float", "2:4"]
    assert whole["second_order"] is None
    assert None not in half.values()
    assert 0 < half["gigabytes"] < 64
    measured = tmp_path / "measurements.jsonl"
    lines = measured.read_text().splitlines()
    assert [json.loads(line)["of"]["kind"] for line in lines] == ["plain", "plain", "second_order"]
    code, again, _ = command(f"post_training {data} --settings 2:4")
    assert (code, again.split()) == (0, out.split())
    assert measured.read_text().splitlines() == lines
    code, _, error = command(f"post_training {data} --settings 1:4")
    assert code == 2
    assert "settings 1:4: expected some of 4 bits, 3 bits" in error


def test_front(command, workdir, tiny_data, pictures, tmp_path):
    data = f"--dataset=tiny --data_dir={tiny_data} --networks narrow_stride={workdir} --out={tmp_path}"
    line = f"front {data} --ways one-step int8-xz"
    code, out, error = command(line)
    assert code == 0, error
    whole, *steps, int8 = json.loads((tmp_path / "front-tiny.json").read_text())["rows"]
    assert [whole["method"], int8["method"], whole["share"]] == ["float", "int8-xz", 1]
    sizes = [row["bytes"] for row in steps]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 7
    assert 0.2 < int8["share"] < 0.4
    (axes,) = pictures[f"{tmp_path}/front-tiny.png"].axes
    _, curve, dot = (line.get_xydata().tolist() for line in axes.lines)
    assert curve == [[row["share"], row["accuracy"]] for row in reversed(steps)]
    assert dot == [[int8["share"], int8["accuracy"]]]
    lines = (tmp_path / "measurements.jsonl").read_text()
    code, again, _ = command(line)
    assert (code, again.split(), (tmp_path / "measurements.jsonl").read_text()) == (0, out.split(), lines)
    code, _, error = command(line.replace("int8-xz", "zip"))
    assert code == 2
    assert "ways zip: expected some of auto, auto-all-channels, nearest-all-channels, half-macs, " in error


def test_max_drop(command, workdir, tiny_data, tmp_path):
    data = f"--dataset=tiny --data_dir={tiny_data} --networks narrow_stride={workdir} --out={tmp_path}"
    line = f"max_drop {data} --seeds=1 --batches=2 --examples=24 --max_drop=0.4 --macs=1"
    code, out, error = command(line)
    assert code == 0, error
    (row,) = json.loads((tmp_path / "max_drop-tiny-nearest.json").read_text())["rows"]
    assert row["drop"] <= row["at_most"] <= 0.4
    assert 0 < row["share"] < 0.5
    code, again, _ = command(line)
    assert (code, again.split()) == (0, out.split())
    code, _, error = command(line.replace("narrow_stride=", "narrow_stride:"))
    assert code == 2
    assert "expected MODEL=WEIGHTS, as vgg16=vgg16.pth" in error


def test_export(command, workdir, tiny_data, tmp_path):
    data = f"--dataset=tiny --data_dir={tiny_data} --networks narrow_stride={workdir} --out={tmp_path}"
    code, _, error = command(f"export {data} --batches=2")
    assert code == 0, error
    (row,) = json.loads((tmp_path / "export-tiny.json").read_text())["rows"]
    assert row["others"] == 0
    assert row["agree"] > 0.8
    assert 0.2 < row["share"] < 0.5  # of a small network
    assert abs(row["exported"] - row["int8"]) <= 1 - row["agree"]


def test_data_free(command, workdir, tiny_data, tmp_path):
    data = f"--dataset=tiny --data_dir={tiny_data} --networks narrow_stride={workdir} --out={tmp_path}"
    line = f"data_free {data} --real=64 --count=8 --steps=2"
    code, out, error = command(line)
    assert code == 0, error
    (row,) = json.loads((tmp_path / "data_free-tiny.json").read_text())["rows"]
    assert [*row] == ["network", "float", "real", "synthetic", "noise", "minutes"]
    assert abs(row["real"] - row["float"]) <= 2 / 21
    assert row["minutes"] > 0
    measured = tmp_path / "measurements.jsonl"
    lines = measured.read_text()
    code, again, _ = command(line)
    assert (code, again.split(), measured.read_text()) == (0, out.split(), lines)
    subjects = [json.loads(line)["of"] for line in lines.splitlines()]
    assert [each["kind"] for each in subjects] == ["float", "real", "synthetic", "noise"]
    assert {"init", "count", "steps", "batch_size", "smoothness", "shift", "seed"} < subjects[2].keys()
    code, _, error = command(f"{line} --steps=0")
    assert code == 2
    assert "steps=0: expected a whole number of at least 1" in error
