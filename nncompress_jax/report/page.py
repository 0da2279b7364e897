"""One page of HTML on a compressed network, which needs nothing else."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nncompress_jax.files import replacing
from nncompress_jax.report.explain import Explanation, Weight, explain
from nncompress_jax.table import Table, natural
from nncompress_jax.tree import named_leaves, stored_bytes
from nncompress_jax.types import Apply
from nncompress_jax.weights.base import dense, is_compressed

BINS = 41
"""Of a histogram: odd, so that zero has one of its own."""

STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --back: #ffffff; --line: #c8c8c8; --soft: #f0f2f5; --before: #b9c0c9;
  --after: #1f6fb4; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e6; --back: #16181c; --line: #3d434b; --soft: #22262c;
  --before: #59616b; --after: #62aee8; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 2rem auto;
  max-width: 92rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; }
.card { background: var(--soft); border-radius: .5rem; padding: .6rem .9rem; min-width: 9rem; }
.card b { display: block; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { cursor: pointer; background: var(--back); } th::after { content: " \\2195"; opacity: .4; }
td.number { text-align: right; }
td.words { white-space: normal; min-width: 12rem; }
svg rect.before { fill: var(--before); } svg rect.after { fill: var(--after); }
.key span { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 1rem; vertical-align: -.1rem; }
@media print { body { margin: 0; max-width: none; } th::after { content: ""; } }
"""

SCRIPT = """
for (const head of document.querySelectorAll("th")) head.addEventListener("click", () => {
  const table = head.closest("table"), place = [...head.parentNode.children].indexOf(head);
  const up = head.dataset.up !== "yes";
  const value = row => row.children[place].dataset.value ?? row.children[place].textContent;
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)], numbers = [Number(x), Number(y)];
    return numbers.some(Number.isNaN) ? x.localeCompare(y, undefined, {numeric: true}) : numbers[0] - numbers[1];
  });
  table.tBodies[0].append(...(up ? rows : rows.reverse()));
  head.dataset.up = up ? "yes" : "no";
});
"""


def report(
    path: str | Path,
    apply: Apply,
    variables: Any,
    *inputs: Any,
    title: str = "A compressed network",
    facts: Mapping[str, Any] | None = None,
    tables: Sequence[Table] = (),
    **keywords: Any,
) -> None:
    """Writes a page on a network: what it takes, layer by layer, before compression and now.

    Bytes are those of the arrays in memory, multiply-accumulates those of one example. Each weight has a histogram of
    its values, and one of its integer codes, if it has codes. Tables are sorted by a click on a column. The page is one
    file without links to others, for screens of any width, light and dark, and for paper.

    Args:
      path: of the page, as report.html.
      apply: of (variables, *inputs), as `inject` takes it.
      variables: compressed or not.
      *inputs: apply's further arguments, as of `cost`.
      title: the heading.
      facts: what else is known, by name, as {"accuracy": "85.2 %", "recipe": "quantize:8"}.
      tables: that are shown below, as those of `nnc.auto` and `nnc.sensitivity`.
      **keywords: apply's keyword arguments.

    Example:
      >>> import tempfile, jax.numpy as jnp, nncompress_jax as nnc
      >>> weights = nnc.compress({"kernel": jnp.arange(64.0).reshape(8, 8)})
      >>> file = Path(tempfile.mkdtemp(), "report.html")
      >>> report(file, lambda w, x: x @ w["kernel"], weights, jnp.ones((2, 8)))
      >>> "int8 x int8 -&gt; int32" in file.read_text()
      True
    """
    floats = jax.tree.map(dense, variables, is_leaf=is_compressed)
    now = explain(apply, variables, *inputs, **keywords)
    before = {weight.path: weight for weight in explain(apply, floats, *inputs, **keywords).weights}
    leaves = {name: leaf for name, leaf in named_leaves(variables, is_compressed) if name in before}
    whole = {
        "bytes in memory": (stored_bytes(floats), stored_bytes(variables)),
        "multiply-accumulates": _macs(before, now),
    }
    cards = {name: _share(*pair) for name, pair in whole.items()}
    integers = sum(not place.why_float for place in now.places)
    cards["products on integers"] = f"{integers} of {len(now.places)}, on {now.platform}"
    cards |= {name: str(fact) for name, fact in (facts or {}).items()}
    parts = [f"<h1>{html.escape(title)}</h1>", _cards(cards), "<h2>Weights</h2>", KEY]
    parts.append(_weights(now, before, leaves, whole["bytes in memory"]))
    for table in tables:
        parts += [f"<h2>{html.escape(table.title)}</h2>", _table(table)]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(parts)}<script>{SCRIPT}</script></body></html>\n"
    )
    with replacing(path) as file:
        file.write(page.encode())


KEY = (
    '<p class="key"><span style="background:var(--before)"></span>before<span style="background:var(--after)"></span>'
    "now; values and codes: how often each occurs, zero in the middle; a column far above the others is cut</p>"
)

HEADS = (
    "weight",
    "type",
    "shape",
    "bits",
    "density",
    "rank",
    "bytes",
    "multiply-accumulates",
    "values",
    "codes",
    "runs on",
)


def _macs(before: Mapping[str, Weight], now: Explanation) -> tuple[int, int]:
    return sum(map(_of_places, before.values())), sum(map(_of_places, now.weights))


def _of_places(weight: Weight) -> int:
    return sum(place.macs for place in weight.places)


def _share(before: int, now: int) -> str:
    return f"{now:,} of {before:,} ({now / max(before, 1):.1%})"


def _cards(cards: Mapping[str, str]) -> str:
    shown = [f'<div class="card">{html.escape(name)}<b>{html.escape(text)}</b></div>' for name, text in cards.items()]
    return f'<div class="cards">{"".join(shown)}</div>'


def _weights(now: Explanation, before: Mapping[str, Weight], leaves: Mapping[str, Any], whole: tuple[int, int]) -> str:
    """A row for each weight that multiplies data, and one for all else: biases, scales, statistics."""
    shown = sorted((weight for weight in now.weights if weight.path in before), key=lambda each: natural(each.path))
    most_bytes = max((weight.stored_bytes for weight in before.values()), default=1)
    most_macs = max(map(_of_places, before.values()), default=1)
    rows = []
    for weight in shown:
        old, leaf = before[weight.path], leaves[weight.path]
        values, codes = np.asarray(dense(leaf)), _codes(leaf)
        macs = _of_places(old), _of_places(weight)
        types = ", ".join(dict.fromkeys(place.types for place in weight.places))
        reason = "" if weight.runs in ("compressed", "dense") else f", {weight.runs}"
        rows.append(
            [
                _cell(weight.path),
                _cell(weight.type),
                _cell(" x ".join(map(str, weight.kept))),
                _cell(f"{weight.bits:.2f}", weight.bits),
                _cell("" if weight.density is None else f"{weight.density:.3f}", weight.density or 1),
                _cell(weight.rank or ""),
                _cell(_bars(old.stored_bytes, weight.stored_bytes, most_bytes), weight.stored_bytes, is_html=True),
                _cell(_bars(*macs, most_macs), macs[1], is_html=True),
                _cell(_histogram(values), int(np.count_nonzero(values)), is_html=True),
                _cell("") if codes is None else _cell(_histogram(codes), len(np.unique(codes)), is_html=True),
                _cell(types + reason, words=True),
            ]
        )
    others = whole[0] - sum(weight.stored_bytes for weight in before.values())
    left = whole[1] - sum(weight.stored_bytes for weight in shown)
    bars = _cell(_bars(others, left, most_bytes), left, is_html=True)
    rows.append([_cell("all else"), *[_cell("")] * 5, bars, *[_cell("")] * 4])
    return _rows(HEADS, rows)


def _codes(leaf: Any) -> np.ndarray | None:
    """Integers that a weight, or the first that it holds, is stored in."""
    if not is_compressed(leaf):
        return None
    codes = getattr(leaf, "codes", None)
    inner = leaf.held()
    return np.asarray(dense(codes)) if codes is not None else _codes(inner[0]) if inner else None


def _table(table: Table) -> str:
    rows = [
        [
            _cell(text, row[name] if spec else None)
            for (name, spec), text in zip(table.formats.items(), cells, strict=True)
        ]
        for row, cells in ((row, table.cells(row)) for row in table.rows)
    ]
    return _rows(tuple(table.formats), rows)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, without columns in which nothing stands."""
    used = [place for place in range(len(heads)) if not all(row[place].endswith('"></td>') for row in rows)]
    heads, rows = [heads[place] for place in used], [[row[place] for place in used] for row in rows]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str, value: float | None = None, *, is_html: bool = False, words: bool = False) -> str:
    kind = "words" if words else "" if value is None else "number"
    sorts = "" if value is None else f' data-value="{value}"'
    return f'<td class="{kind}"{sorts}>{text if is_html else html.escape(text)}</td>'


def _bars(before: int, now: int, most: int) -> str:
    widths = [round(110 * amount / max(most, 1), 1) for amount in (before, now)]
    return (
        f'{now:,} <svg width="112" height="16" role="img" aria-label="{now:,} of {before:,}">'
        f'<rect class="before" width="{widths[0]}" height="6"/>'
        f'<rect class="after" y="8" width="{widths[1]}" height="6"/></svg>'
    )


def _histogram(values: np.ndarray) -> str:
    """Of the values, from the largest magnitude below zero to that above."""
    most = float(np.abs(values).max(initial=0)) or 1.0
    counts, _ = np.histogram(np.ravel(values).astype(np.float64), BINS, (-most, most))
    highest = max(1.0, min(float(counts.max()), 3 * float(np.sort(counts)[-2])))
    heights = [round(24 * min(count / highest, 1.0), 1) for count in counts.tolist()]
    columns = "".join(
        f'<rect class="after" x="{3 * place}" y="{24 - height:.1f}" width="2.5" height="{height}"/>'
        for place, height in enumerate(heights)
        if height
    )
    return f'<svg width="{3 * BINS}" height="24" role="img" aria-label="from {-most:.3g} to {most:.3g}">{columns}</svg>'
