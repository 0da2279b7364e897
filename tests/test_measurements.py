"""Figures in a file: none measured twice, none taken for another's."""

import json

import pytest

from nncompress_jax.measurements import Measurements


@pytest.fixture
def counting():
    """A measurement that says how often it ran."""
    runs = []

    def measure():
        runs.append(1)
        return {"accuracy": len(runs)}

    return measure


def test_another_process_finds_them(tmp_path, counting):
    file = tmp_path / "new" / "measurements.jsonl"
    subject = {"weights": 7, "macs": 0.5, "gone": [1, 2]}
    assert Measurements(str(file)).of(subject, counting) == {"accuracy": 1}
    assert Measurements(file).of(dict(reversed(subject.items())), counting) == {"accuracy": 1}
    assert Measurements(file).of(subject | {"weights": 8}, counting) == {"accuracy": 2}
    assert Measurements(file).of(subject | {"weights": 8}, counting) == {"accuracy": 2}
    assert [json.loads(line)["is"]["accuracy"] for line in file.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("length", [0, 1, 20, -2, -1])
def test_a_line_cut_short_is_measured_again_and_the_others_stay(tmp_path, counting, length):
    file = tmp_path / "measurements.jsonl"
    Measurements(file).of({"macs": 0.5}, counting)
    first = file.read_bytes()
    Measurements(file).of({"macs": 0.3}, counting)
    whole = file.read_bytes()
    file.write_bytes(first + whole[len(first) :][:length])
    known = Measurements(file).of({"macs": 0.3}, counting)["accuracy"]
    assert known == (2 if length == -1 else 3)  # without the line's end alone, nothing is missing
    assert Measurements(file).of({"macs": 0.7}, counting) == {"accuracy": known + 1}
    again = Measurements(file)
    assert [again.of({"macs": macs}, counting)["accuracy"] for macs in (0.5, 0.3, 0.7)] == [1, known, known + 1]
