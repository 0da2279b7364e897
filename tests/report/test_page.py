"""The page of a network: what stands in it, and that nothing else is needed to show it."""

import re
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.table import Table
from tests.methods.drawn import draw

X = draw(4, 16)


class Page(HTMLParser):
    """Cells of tables as texts, bars by their widths, and which tags there are."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.bars, self.tags, self.inside = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        given = dict(attributes)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True
        if tag == "rect" and given.get("height") == "6":
            self.bars.append((given["class"], float(given["width"])))

    def handle_endtag(self, tag):
        self.inside &= tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1] += data


def apply(weights, x):
    return jax.nn.relu(x @ weights["W_2"]) @ weights["W_10"] + weights["bias"]


@pytest.fixture
def page(tmp_path):
    weights = {"W_2": draw(16, 32), "W_10": draw(32, 8), "bias": draw(8)}
    small = nnc.compress(weights, nnc.quantize(bits=4, where="W_2"))
    small = small | {"W_10": jnp.where(jnp.abs(weights["W_10"]) > 1, weights["W_10"], 0)}
    found = Table("Found <here>", {"weight": "", "step": ".2f"}, [{"weight": "a & b", "step": 0.5}])
    nnc.report(tmp_path / "a.html", apply, small, X, title="W < V", facts={"accuracy": "85 %"}, tables=[found])
    return (tmp_path / "a.html").read_text()


def test_weights(page):
    heads, first, second, rest = Page(page).tables[0]
    assert heads == ["weight", "type", "shape", "bits", "bytes", "multiply-accumulates", "values", "codes", "runs on"]
    assert (first[0], second[0], rest[0]) == ("W_2", "W_10", "all else")  # in their natural order
    assert (first[1], second[1]) == ("Quantized", "dense")
    assert (first[4].strip(), second[4].strip(), rest[4].strip()) == ("384", "1,024", "32")
    assert (first[5].strip(), second[5].strip()) == ("512", "256")
    assert (first[8], second[8]) == ("int8 x int8 -> int32", "float32 x float32 -> float32")


def test_codes_have_histograms_of_their_own(page):
    rows = re.findall(r"<tr><td.*?</tr>", page)
    counted = [re.findall(r'data-value="(\d+)"><svg', row) for row in rows[:2]]
    assert [len(each) for each in counted] == [2, 1]  # of values and codes; W_10 has no codes
    assert 8 <= int(counted[0][1]) <= 15  # different codes of 4 bits


def test_bars_are_of_one_scale(page):
    bars = Page(page).bars
    widths = np.array([width for _, width in bars]).reshape(-1, 2)
    assert [kind for kind, _ in bars] == ["before", "after"] * 5
    bytes_before, bytes_now = [2048, 1024, 32], [384, 1024, 32]
    np.testing.assert_allclose(widths[[0, 2, 4]], np.transpose([bytes_before, bytes_now]) / 2048 * 110, atol=0.06)
    np.testing.assert_allclose(widths[[1, 3]], [[110, 110], [55, 55]], atol=0.06)


def test_summary_and_tables(page):
    assert "<h1>W &lt; V</h1>" in page
    for words in ("1,440 of 3,104 (46.4%)", "768 of 768 (100.0%)", "1 of 2, on cpu", "85 %", "Found &lt;here&gt;"):
        assert words in page
    assert Page(page).tables[1] == [["weight", "step"], ["a & b", "0.50"]]


def test_it_needs_nothing_else(page):
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    tags = Page(page).tags
    assert tags.count("html") == tags.count("style") == tags.count("script") == 1
    assert len(page) < 20_000


def test_nothing_is_left_where_it_cannot_be_written(tmp_path):
    with pytest.raises(nnc.InputError, match="cannot be written"):
        nnc.report(tmp_path / "none" / "a.html", apply, {"W_2": draw(16, 32), "W_10": draw(32, 8), "bias": draw(8)}, X)
