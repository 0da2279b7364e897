"""One table, written for the terminal, Markdown, CSV and JSON."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table

from nncompress_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of values under named columns.

    Attributes:
      title: what it shows, of which data, so that the table can stand alone.
      formats: a format specification by column (`.4f`, `,`); its keys are the columns, in order.
      rows: values by column; None is shown as `-`.

    Example:
      >>> table = Table("sizes", {"model": "", "bytes": ","}, [{"model": "vgg16", "bytes": 58946856}])
      >>> print(table.markdown())
      | model | bytes |
      | --- | ---: |
      | vgg16 | 58,946,856 |
      <BLANKLINE>
    """

    title: str
    formats: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]

    def cells(self, row: Mapping[str, Any]) -> list[str]:
        """The row as it is shown."""
        return ["-" if row[name] is None else format(row[name], spec) for name, spec in self.formats.items()]

    def print(self) -> None:
        """On the terminal; words that are too long for it go on in the next line, numbers are whole."""
        if rich.console.Console().is_terminal:
            rich.console.Console().print(self._drawn())
        else:
            print(self)

    def __str__(self) -> str:
        table = self._drawn()
        # Off a terminal the width is a guess, and a number cut short is worse than a long line.
        width = rich.console.Console(width=1000).measure(table).maximum
        console = rich.console.Console(width=width, file=io.StringIO())
        with console.capture() as text:
            console.print(table)
        return text.get().rstrip("\n")

    def _drawn(self) -> rich.table.Table:
        table = rich.table.Table(title=self.title, box=rich.box.SIMPLE_HEAD, title_justify="left")
        for name, spec in self.formats.items():
            table.add_column(name, justify="right" if spec else "left", no_wrap=bool(spec), overflow="fold")
        for row in self.rows:
            table.add_row(*self.cells(row))
        return table

    def markdown(self) -> str:
        """A GitHub table."""
        rule = ["---:" if spec else "---" for spec in self.formats.values()]
        lines = [list(self.formats), rule, *(self.cells(row) for row in self.rows)]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def csv(self) -> str:
        """Values at full precision under a line of names."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.formats), lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def json(self) -> str:
        """{"title", "rows"}, values at full precision."""
        rows = [{name: row[name] for name in self.formats} for row in self.rows]
        return json.dumps({"title": self.title, "rows": rows}, indent=2) + "\n"

    @staticmethod
    def from_json(text: str, name: str) -> "Table":
        """What `json` wrote, from a file of that name; numbers are shown as they are most easily read.

        Raises:
          InputError: for anything else.

        Example:
          >>> print(Table.from_json(Table("sizes", {"bytes": ","}, [{"bytes": 4096}]).json(), "a.json").markdown())
          | bytes |
          | ---: |
          | 4,096 |
          <BLANKLINE>
        """
        try:
            found = json.loads(text)
            title, rows = str(found["title"]), [dict(row) for row in found["rows"]]
            kinds = {column: {type(row[column]) for row in rows} - {type(None)} for column in rows[0]}
        except (ValueError, KeyError, TypeError, IndexError):
            raise InputError(f"{name}: not a table; expected a .json file that a study wrote") from None
        formats = {column: "," if of == {int} else ".4g" if of <= {int, float} else "" for column, of in kinds.items()}
        return Table(title, formats, rows)

    def write(self, folder: str | Path, name: str) -> None:
        """`name.md`, `name.csv` and `name.json` in the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, text in (
            ("md", f"{self.title}\n\n{self.markdown()}"),
            ("csv", self.csv()),
            ("json", self.json()),
        ):
            (folder / f"{name}.{suffix}").write_text(text)


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A key to sort names by, in which numbers count as numbers.

    Example:
      >>> sorted(["Conv_10", "Conv_2"], key=natural)
      ['Conv_2', 'Conv_10']
    """
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
