"""What was measured already."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Measurements:
    """Figures in a file, each beside what they are of: nothing is measured twice, and nothing passes for another.

    Args:
      file: a line for each measurement, written at once; one that a crash cut short is measured again. None: nowhere.

    Example:
      >>> measurements = Measurements(None)
      >>> measurements.of({"network": "vgg16", "macs": 0.5}, lambda: {"accuracy": 0.25})
      {'accuracy': 0.25}
      >>> measurements.of({"macs": 0.5, "network": "vgg16"}, lambda: {"accuracy": 0.75})
      {'accuracy': 0.25}
    """

    def __init__(self, file: str | Path | None) -> None:
        self._file = file = Path(file) if file is not None else None
        lines = file.read_text().splitlines() if file is not None and file.exists() else []
        self._known = dict(known for line in lines if (known := _parsed(line)))

    def of(self, subject: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The figures of a subject, measured if they are not known.

        Args:
          subject: all that the figures depend on; what JSON can say.
          measure: gives them, by name.
        """
        key = _key(subject)
        if key not in self._known:
            self._known[key] = dict(measure())
            self._append(json.dumps({"of": subject, "is": self._known[key]}))
        return self._known[key]

    def __contains__(self, subject: Mapping[str, Any]) -> bool:
        """Whether figures of it are known."""
        return _key(subject) in self._known

    def _append(self, line: str) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a+b") as file:
                end = file.seek(0, 2)
                file.seek(max(end - 1, 0))
                file.write(b"\n" * (file.read(1) not in (b"", b"\n")) + line.encode() + b"\n")


def _parsed(line: str) -> tuple[str, dict[str, Any]] | None:
    try:
        measured = json.loads(line)
        return _key(measured["of"]), measured["is"]
    except (ValueError, TypeError, KeyError):
        return None


def _key(subject: Mapping[str, Any]) -> str:
    return json.dumps(subject, sort_keys=True)
