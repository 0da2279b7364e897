"""One table in four forms."""

import csv
import io
import json

import pytest

from nncompress_jax.errors import InputError
from nncompress_jax.table import Table

TABLE = Table(
    "sizes",
    {"model": "", "bytes": ",", "accuracy": ".4f"},
    [{"model": "a, b", "bytes": 1234567, "accuracy": 1 / 3}, {"model": "c", "bytes": 8, "accuracy": None}],
)


def test_csv_and_json_keep_full_precision(tmp_path):
    TABLE.write(tmp_path / "folder", "table")
    rows = json.loads((tmp_path / "folder" / "table.json").read_text())["rows"]
    assert rows[0]["accuracy"] == 1 / 3
    assert rows[1]["accuracy"] is None
    lines = list(csv.DictReader(io.StringIO((tmp_path / "folder" / "table.csv").read_text())))
    assert lines[0] == {"model": "a, b", "bytes": "1234567", "accuracy": str(1 / 3)}
    assert lines[1]["accuracy"] == ""


def test_for_people():
    assert TABLE.cells(TABLE.rows[0]) == ["a, b", "1,234,567", "0.3333"]
    assert TABLE.cells(TABLE.rows[1]) == ["c", "8", "-"]


def test_off_a_terminal_nothing_is_cut_short(capsys):
    wide = Table("wide", {f"column {i}": "," for i in range(30)}, [{f"column {i}": 10**9 + i for i in range(30)}])
    wide.print()
    lines = capsys.readouterr().out.splitlines()
    assert all(f"{10**9 + i:,}" in lines[-2] for i in range(30))
    columns = [line.rstrip().endswith(text) for line, text in ((lines[-4], "column 29"), (lines[-2], "1,000,000,029"))]
    assert columns == [True, True]


def test_from_json():
    read = Table.from_json(TABLE.json(), "a.json")
    assert (read.title, list(read.formats)) == (TABLE.title, list(TABLE.formats))
    assert [read.cells(row) for row in read.rows] == [["a, b", "1,234,567", "0.3333"], ["c", "8", "-"]]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"title": "a", "rows": []}', '{"title": "a", "rows": [3]}'])
def test_no_table(text):
    with pytest.raises(InputError, match="a.json: not a table; expected a .json file that a study wrote"):
        Table.from_json(text, "a.json")
