"""What the pictures show: the marks on their axes, against the numbers that they are of."""

import matplotlib.colors
import numpy as np
import pytest

from nncompress_jax.report import plots
from nncompress_jax.tracing.costs import LayerCost


@pytest.fixture
def drawn(pictures, tmp_path):
    """Draws by a function of `plots`, with the path as its last argument; gives the figure that was saved there."""

    def draw(plot, *arguments):
        path = tmp_path / "new" / "picture.png"
        plot(*arguments, path)
        return pictures[str(path)]

    return draw


def words(texts):
    return [text.get_text() for text in texts]


@pytest.mark.parametrize("classes", [2, 30])
def test_confusion(drawn, classes):
    random = np.random.default_rng(0)
    counts = random.integers(1, 9, (classes, classes))
    counts[0] = [7] + [0] * (classes - 1)
    names = [f"class {i}" for i in range(classes)]
    (axes,) = drawn(plots.confusion, counts, names, "W on digits").axes
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), counts / counts.sum(1, keepdims=True))
    assert image.get_clim() == (0, 1)
    assert words(axes.get_xticklabels()) == words(axes.get_yticklabels()) == names
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("W on digits", "predicted", "true")
    shown = {text.get_position(): int(text.get_text()) for text in axes.texts}
    cells = {(column, row): counts[row, column] for row in range(classes) for column in range(classes)}
    assert shown == ({place: count for place, count in cells.items() if count} if classes < 20 else {})


def test_accuracy_by_bytes(drawn):
    points = [("m", "none", 0.5, 4e6), ("m", "int8", 0.25, 1e6), ("n", "none", 0.75, 2e6)]
    rows = [dict(zip(("model", "quantization", "accuracy", "bytes"), point, strict=True)) for point in points]
    (axes,) = drawn(plots.accuracy_by_bytes, rows, "digits").axes
    at = [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines]
    assert at == [(4, 0.5), (1, 0.25), (2, 0.75)]
    one, small, other = axes.lines
    assert one.get_color() == small.get_color() != other.get_color()  # of models
    assert one.get_marker() == other.get_marker() != small.get_marker()  # of quantizations
    assert words(axes.get_legend().get_texts()) == ["m, none", "m, int8", "n, none"]
    assert (axes.get_xscale(), axes.get_xlim()) == ("log", (0.5, 8))
    low, high = axes.get_ylim()
    assert low < 0.25
    assert 0.75 < high <= 1.01


def test_network(drawn):
    layers = [
        LayerCost("Conv_0", "convolution", (1, 8, 8, 4), 112, 6912, 448),
        LayerCost("BatchNorm_0", "elementwise", (1, 8, 8, 4), 8, 0, 64),
        LayerCost("Dense_0", "dot", (1, 10), 50, 40, 200),
    ]
    boxes, bars = drawn(plots.network, layers, "VGG").axes
    convolution, dot = boxes.patches  # what does not multiply is left out
    assert [convolution.get_width(), dot.get_width()] == [np.log2(5), np.log2(11)]  # channels
    assert [convolution.get_height(), dot.get_height()] == [np.sqrt(8), 1]  # sides of the images
    colours = [matplotlib.colors.to_hex(box.get_facecolor()) for box in (convolution, dot)]
    assert colours == [plots.COLOURS["convolution"], plots.COLOURS["dot"]]
    assert sorted(words(boxes.texts)) == ["10", "1x1", "4", "8x8"]
    assert words(boxes.get_legend().get_texts()) == ["convolution", "dot"]
    assert [bar.get_height() for bar in bars.patches] == [6912, 40]
    np.testing.assert_allclose([bar.get_x() for bar in bars.patches], [0, np.log2(5) + 2], atol=1e-9)
    np.testing.assert_allclose([box.get_x() for box in boxes.patches], [0, np.log2(5) + 2])
    assert (bars.get_yscale(), words(bars.get_xticklabels())) == ("log", ["Conv_0", "Dense_0"])
    assert boxes.get_title() == "VGG"


def test_steps(drawn):
    found = [
        ("params/a/kernel", 8, 2.0, 0.1, True),
        ("params/a/kernel", 8, 1.0, 0.4, False),
        ("b", 1024, 3.0, 1.0, True),
    ]
    rows = [dict(zip(("weight", "entries", "bits_per_entry", "loss", "chosen"), each, strict=True)) for each in found]
    figure = drawn(plots.steps, rows, "VGG at 3 %")
    (axes,) = figure.axes
    curves = [line.get_xydata().tolist() for line in axes.lines]
    assert curves == [[[2, 0.1], [1, 0.4]], [[2, 0.1]], [[3, 1]], [[3, 1]]]
    (legend,) = figure.legends
    assert words(legend.get_texts()) == ["a (8)", "b (1,024)"]
    assert (axes.get_yscale(), axes.get_title()) == ("log", "VGG at 3 %")


def test_sensitivity(drawn):
    measured = [("params/a/kernel", 8, 0, 0.9), ("params/a/kernel", 8, 0.5, 0.6), ("b", 4, 0, 0.9), ("b", 4, 0.5, 0.3)]
    rows = [dict(zip(("group", "channels", "rate", "accuracy"), each, strict=True)) for each in measured]
    figure = drawn(plots.sensitivity, rows, "VGG on digits")
    (axes,) = figure.axes
    curves = [line.get_xydata().tolist() for line in axes.lines]
    assert curves == [[[0, 0.9], [0.5, 0.6]], [[0, 0.9], [0.5, 0.3]]]
    (legend,) = figure.legends
    assert words(legend.get_texts()) == ["a (8)", "b (4)"]
    assert axes.get_ylim()[0] == 0
    assert axes.get_title() == "VGG on digits"
