"""Tables of docs/results.md are what the studies wrote: figures of results/measured/, and no others."""

import collections
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTIONS = dict(
    re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", (ROOT / "docs/results.md").read_text(), re.MULTILINE | re.DOTALL)
)
NAMES = {"VGG16-DS": "vgg16ds", "strides": "vgg16ds_stride", "VGG16": "vgg16"}


def measured(study):
    """Subjects and figures."""
    lines = (ROOT / f"results/measured/{study}.jsonl").read_text().splitlines()
    return [(each["of"], each["is"]) for each in map(json.loads, lines)]


def rows(section):
    """Cells of all tables of a section, in order."""
    lines = [line.strip("|").split("|") for line in SECTIONS[section].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines if not set(line[0].strip()) <= set("-: ")]


def percent(share):
    return f"{100 * share:.2f}"


def test_one_budget():
    """Pairs of a file's share and of its accuracy, by network."""
    known, whole = (
        collections.defaultdict(set),
        {of["network"]: found["bytes"] for of, found in measured("front") if of["method"] == "float"},
    )
    for of, found in measured("front"):
        known[of["network"]].add((percent(found["bytes"] / whole[of["network"]]), percent(found["accuracy"])))
    shown, network = collections.defaultdict(set), None
    for name, *cells in rows("One budget"):
        if heading := re.match(r"(VGG16-DS|strides|VGG16) \((\d\d\.\d\d)\)", name):
            network = NAMES[heading[1]]
            assert ("100.00", heading[2]) in known[network]
        shown[network] |= set(re.findall(r"(\d+\.\d\d) %: (\d+\.\d\d)", " ".join(cells)))
    assert {network: len(pairs) for network, pairs in shown.items()} == {
        "vgg16ds": 19,
        "vgg16ds_stride": 21,
        "vgg16": 18,
    }
    assert {network: pairs - known[network] for network, pairs in shown.items()} == {
        network: set() for network in shown
    }


def post_training():
    found = collections.defaultdict(lambda: [""] * 4)
    for of, figures in measured("post_training"):
        cells = found[of["network"], of["setting"]]
        place = 2 * (of["kind"] == "second_order")
        cells[place : place + 2] = percent(figures["accuracy"]), percent(figures["reestimated"])
    return found


def test_without_training():
    known, network, shown = post_training(), None, {}
    for name, *cells in rows("Without training"):
        network = NAMES.get(name, network)
        shown[network, name] = cells[:4]
    missing = {key for key in known if known[key][2] or key[1] == "float"} - shown.keys()
    assert missing == set()
    assert len(known) >= 10
    assert {key: shown[key] for key in known if key in shown} == {key: known[key] for key in known if key in shown}


def test_with_a_teacher():
    """Means over seeds, and their distances; of VGG16 as a teacher one seed."""
    found = collections.defaultdict(list)
    for of, figures in measured("distillation"):
        found[of["recipe"], of["teacher"]].append(100 * figures["accuracy"])
    for name, *cells in rows("With a teacher")[1:]:
        recipe = re.search(r"`(.*)`", name)[1]
        for cell, teacher in zip(cells, (None, "self", "vgg16.pth"), strict=True):
            values = found[recipe, teacher]
            mean, spread = sum(values) / len(values), max(values) - min(values)
            one = [text for text in (f"{mean - 1e-9:.2f}", f"{mean + 1e-9:.2f}") if cell == text]
            several = [
                text for text in (f"{mean - 1e-9:.2f}", f"{mean + 1e-9:.2f}") if cell == f"{text} ({spread:.2f})"
            ]
            assert one if len(values) == 1 else several, (recipe, teacher, cell, values)


def test_early_exits():
    """Of the second run; 0.5 to 0.9 for all exits, then thresholds for a drop, then the whole network."""
    found = {}
    for of, figures in measured("early_exits"):
        key = of["weights"], json.dumps(of.get("drops"))
        found[key] = found.get(key, []) + figures["rows"]
    accuracies = {percent(row["accuracy"]) for each in found.values() for row in each}
    shares = {round(row["share"], digits) for each in found.values() for row in each for digits in (2, 3)}
    table = {name: cells for name, *cells in rows("Early exits")}
    assert set(table["percent correct"]) <= accuracies
    assert set(table["8 bits: percent correct"]) <= accuracies
    assert {float(cell) for cell in table["operations of an image, share of the whole network"]} <= shares


@pytest.mark.parametrize(
    ("network", "least", "most", "held"),
    [("vgg16", 3.4, 4.2, 5), ("vgg16ds_stride", 4.0, 5.7, 5), ("vgg16ds", 6.1, 7.0, 4)],
)
def test_max_drop(network, least, most, held):
    draws = [found for of, found in measured("max_drop") if of["network"] == network]
    assert len(draws) == 5
    shares = [round(100 * found["share"], 1) for found in draws]
    assert (min(shares), max(shares), sum(found["held"] for found in draws)) == (least, most, held)
    assert re.search(rf"{least}\s+to\s+{most}\s+%", SECTIONS["One budget"])


def test_trained_on():
    """Accuracies and shares of the paragraphs behind the table: of training to a size, or of the table."""
    text = SECTIONS["One budget"].split("**Channels first")[1]
    known = {percent(value) for _, found in measured("rate") for value in found.values() if isinstance(value, float)}
    known |= {percent(found["accuracy"]) for _, found in measured("front")}
    shown = re.findall(r"(?<![\d.])(\d\d\.\d\d)(?= %)", text)
    assert len(shown) >= 9
    assert set(shown) <= known
    assert {"84.56", "83.76", "81.84", "77.68"} <= set(shown)
