"""Pictures of results and networks, as PNG files."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nncompress_jax.errors import require

require("nncompress_jax.report.plots", "matplotlib", extra="train")

import matplotlib
import matplotlib.patches
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nncompress_jax.tracing.costs import LayerCost

DEEPEST = 0.2
"""Of accuracy that is lost in a picture of a front."""

COLOURS = {
    "convolution": "#4477aa",
    "depthwise convolution": "#66ccee",
    "grouped convolution": "#228833",
    "dot": "#ee6677",
}


def confusion(matrix: np.ndarray, class_names: Sequence[str], title: str, path: str | Path) -> None:
    """Shares of each true class (rows) by predicted class.

    Args:
      matrix: [C, C] counts.
      class_names: C names.
      title: what was tested on what.
      path: of the picture.
    """
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = 2.5 + 0.5 * len(class_names)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="predicted", ylabel="true")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right")
    axes.set_yticks(range(len(class_names)), class_names)
    if len(class_names) <= 20:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    _save(figure, path)


def accuracy_by_bytes(rows: Sequence[dict], title: str, path: str | Path) -> None:
    """A point for each row of a comparison: accuracy against bytes.

    Args:
      rows: with `model`, `quantization`, `accuracy` (a fraction) and `bytes`.
      title: data set and recipe.
      path: of the picture.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="weights as stored [MB]", ylabel="test accuracy", xscale="log")
    markers = dict(zip(dict.fromkeys(r["quantization"] for r in rows), "osD^v", strict=False))
    colours = {name: f"C{i}" for i, name in enumerate(dict.fromkeys(r["model"] for r in rows))}
    for row in rows:
        model, quantization = row["model"], row["quantization"]
        label = f"{model}, {quantization}"
        axes.plot(
            row["bytes"] / 1e6,
            row["accuracy"],
            markers[quantization],
            color=colours[model],
            fillstyle="none",  # points that fall together stay visible
            mew=2,
            ms=9,
            label=label,
        )
    sizes = [row["bytes"] / 1e6 for row in rows]
    axes.set_xlim(min(sizes) / 2, max(sizes) * 2)
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.grid(alpha=0.3)
    axes.margins(y=0.3)
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.01))
    axes.legend()
    _save(figure, path)


def network(layers: Sequence[LayerCost], title: str, path: str | Path) -> None:
    """The layers that multiply, in order: a box as high as the image and as wide as the logarithm of the channels.

    Args:
      layers: of `costs.cost`, of one image.
      title: of the picture.
      path: of the picture.
    """
    drawn = [layer for layer in layers if layer.macs]
    sides = [layer.output_shape[1] if len(layer.output_shape) == 4 else 1 for layer in drawn]
    widths = [np.log2(layer.output_shape[-1] + 1) for layer in drawn]
    figure = Figure(figsize=(max(6, 0.55 * len(drawn) + 1.5), 5), layout="constrained")
    boxes, bars = figure.subplots(2, 1, height_ratios=(2, 1), sharex=True)
    left = 0.0
    centres = []
    for layer, side, width in zip(drawn, sides, widths, strict=True):
        height = np.sqrt(side)
        _box(boxes, left, height, width, layer)
        bars.bar(left + width / 2, layer.macs, width, color=COLOURS[layer.operation])
        boxes.text(left + width / 2, height / 2 + 0.15, f"{side}x{side}", ha="center", va="bottom", fontsize=7)
        centres.append(left + width / 2)
        left += width + 2
    boxes.set(title=title, xlim=(-2, left), ylim=(-np.sqrt(max(sides)) / 2 - 0.6, np.sqrt(max(sides)) / 2 + 0.8))
    boxes.axis("off")
    handles = [
        matplotlib.patches.Patch(color=COLOURS[kind], label=kind) for kind in dict.fromkeys(x.operation for x in drawn)
    ]
    boxes.legend(handles=handles, loc="upper right", frameon=False, fontsize=8)
    bars.set(yscale="log", ylabel="multiply-accumulates")
    bars.set_xticks(centres, [layer.path for layer in drawn], rotation=90, fontsize=7)
    bars.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _box(axes: Axes, left: float, height: float, width: float, layer: LayerCost) -> None:
    corner = (left, -height / 2)
    axes.add_patch(matplotlib.patches.Rectangle(corner, width, height, color=COLOURS[layer.operation]))
    axes.text(left + width / 2, -height / 2 - 0.15, str(layer.output_shape[-1]), ha="center", va="top", fontsize=7)


def _save(figure: Figure, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def steps(rows: Sequence[Mapping[str, Any]], title: str, path: str | Path) -> None:
    """Loss against bits, a curve for each weight, with a dot at the step that it got.

    Where all dots have the same slope, no byte does more good at another weight.

    Args:
      rows: of the `candidates` of `nnc.auto` and `nnc.front`; of `nnc.sensitivity`, without dots.
      title: network and budget.
      path: of the picture.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="bits per entry, in the file", ylabel="loss of the step, predicted")
    for weight, own, colour in _curves(rows, "weight"):
        points = np.array([(row["bits_per_entry"], row["loss"]) for row in own])
        label = f"{_short(weight)} ({own[0]['entries']:,})"
        axes.plot(*points.T, "-", color=colour, label=label, linewidth=1)
        axes.plot(*points[[row.get("chosen", False) for row in own]].T, "o", color=colour)
    axes.set_yscale("log")
    figure.legend(loc="outside right upper", fontsize=7, title="weight (entries)")
    _save(figure, path)


def front(rows: Sequence[Mapping[str, Any]], title: str, path: str | Path) -> None:
    """Accuracy against the bytes of the file, as a share of float; an axis for each network, a curve for each method.

    What loses more than `DEEPEST` is below the picture; two points of a method are not joined.

    Args:
      rows: with `network`, `method`, `share` and `accuracy`; those whose method is "float" are a dashed line.
      title: data set.
      path: of the picture.
    """
    networks, methods = (list(dict.fromkeys(row[name] for row in rows)) for name in ("network", "method"))
    methods = [method for method in methods if method != "float"]
    figure = Figure(figsize=(1.5 + 3.5 * len(networks), 4), layout="constrained")
    figure.suptitle(title)
    for axes, network in zip(np.ravel(figure.subplots(1, len(networks), sharey=True)), networks, strict=True):
        own = [row for row in rows if row["network"] == network]
        for row in (row for row in own if row["method"] == "float"):
            axes.axhline(row["accuracy"], color="grey", linestyle="--", linewidth=1, label="float")
        for place, method in enumerate(methods):
            points = sorted((row["share"], row["accuracy"]) for row in own if row["method"] == method)
            style = "o-" if len(points) > 2 else "o"
            axes.plot(*np.reshape(points, (-1, 2)).T, style, color=f"C{place}", label=method, ms=4)
        axes.set(title=network, xscale="log", xlabel="file, share of float")
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=None))
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.grid(alpha=0.3)
    best = max(row["accuracy"] for row in rows)
    lowest = min(row["accuracy"] for row in rows)
    figure.axes[0].set(ylabel="test accuracy", ylim=(max(lowest, best - DEEPEST) - 0.01, best + 0.01))
    figure.axes[0].yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    _save(figure, path)


def early_exits(rows: Sequence[Mapping[str, Any]], title: str, path: str | Path) -> None:
    """Accuracy against the mean multiply-accumulates of an image, a curve over thresholds for each network.

    Args:
      rows: with `network`, `weights`, `threshold`, `share` and `accuracy`; those without a threshold are whole
        networks, and drawn as dashed lines; those whose threshold is in words stand beside the curve.
      title: data set.
      path: of the picture.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="multiply-accumulates of an image, share of the whole network")
    kinds = list(dict.fromkeys((row["network"], row["weights"]) for row in rows))
    for place, kind in enumerate(kinds):
        own = [row for row in rows if (row["network"], row["weights"]) == kind]
        points = sorted((row["share"], row["accuracy"]) for row in own if not isinstance(row["threshold"], str | None))
        found = [(row["share"], row["accuracy"]) for row in own if isinstance(row["threshold"], str)]
        if points:
            axes.plot(*np.transpose(points), "o-", color=f"C{place}", ms=4, label=", ".join(kind))
        if found:
            label = f"{', '.join(kind)}, a threshold for each exit"
            axes.plot(*np.transpose(found), "*", color=f"C{place}", ms=12, label=label)
        for row in (row for row in own if row["threshold"] is None):
            label = f"{', '.join(kind)}, whole"
            axes.axhline(row["accuracy"], color=f"C{place}", linestyle="--", linewidth=1, label=label)
    for formatted in (axes.xaxis, axes.yaxis):
        formatted.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.set(xlim=(0, 1.02), ylabel="test accuracy")
    axes.legend(fontsize=8)
    _save(figure, path)


def _curves(rows: Sequence[Mapping[str, Any]], column: str) -> Iterator[tuple[str, list[Mapping[str, Any]], Any]]:
    """Each value of a column with its rows and a colour, which say by their order where it stands."""
    names = list(dict.fromkeys(row[column] for row in rows))
    for name, colour in zip(names, matplotlib.colormaps["viridis"](np.linspace(0, 0.95, len(names))), strict=True):
        yield name, [row for row in rows if row[column] == name], colour


def _short(path: str) -> str:
    return path.removeprefix("params/").removesuffix("/kernel")


def sensitivity(rows: Sequence[Mapping[str, Any]], title: str, path: str | Path) -> None:
    """Accuracy against the share of channels that is cut, a curve for each group.

    Args:
      rows: of `nnc.sensitivity`.
      title: network and data set.
      path: of the picture.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="share of the group's channels cut", ylabel="accuracy")
    for group, own, colour in _curves(rows, "group"):
        label = f"{_short(group)} ({own[0]['channels']})"
        axes.plot([row["rate"] for row in own], [row["accuracy"] for row in own], "o-", color=colour, label=label)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", fontsize=8, title="from front to back")
    _save(figure, path)


def results(rows: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """What files lose of accuracy, against how much smaller they are, the operations that are left, and speed.

    Args:
      rows: with `network`, `dataset`, `float`, `accuracy`, `share` of the bytes and of the `macs`, and `onnx`, how many
        times as fast as floats, if it is known.
      published: of others, with `name`, `smaller` (times) and `lost`; they stand in the first picture alone.
      path: of the picture.
    """
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    by_size, by_macs, by_speed = figure.subplots(1, 3, sharey=True)
    for place, kind in enumerate(dict.fromkeys((row["network"], row["dataset"]) for row in rows)):
        own = [row for row in rows if (row["network"], row["dataset"]) == kind]
        marks: dict[str, Any] = {"color": f"C{place}", "ms": 6, "label": ", ".join(kind)}
        for axes, horizontal in (
            (by_size, lambda row: 1 / row["share"]),
            (by_macs, lambda row: row["macs"]),
            (by_speed, lambda row: row.get("onnx") or math.nan),
        ):
            axes.plot([horizontal(row) for row in own], [row["float"] - row["accuracy"] for row in own], "o", **marks)
    for place, other in enumerate(published):
        by_size.plot(other["smaller"], other["lost"], "x", color="grey")
        at, beside = (other["smaller"], other["lost"]), (4, -11 if place % 2 else 4)
        by_size.annotate(other["name"], at, beside, textcoords="offset points", size=8)
    by_size.margins(x=0.32)
    by_size.set(xscale="log", xlabel="times smaller than floats", ylabel="accuracy that is lost")
    by_size.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    by_size.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    by_size.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    by_macs.set(xlabel="multiply-accumulates that are left", xlim=(0, 1.05))
    by_macs.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    by_speed.set(xlabel="times as fast as floats, in ONNX Runtime")
    by_speed.set_xlim(left=0)
    by_size.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=1))
    for axes in (by_size, by_macs, by_speed):
        axes.axhline(0, color="grey", linewidth=1)
        axes.grid(alpha=0.3)
    by_size.invert_yaxis()
    handles, labels = by_size.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    _save(figure, path)
