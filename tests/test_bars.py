"""Progress bars: on a terminal, and only where something takes long."""

import io

import pytest
import rich
from rich.console import Console

from nncompress_jax import bars


@pytest.fixture
def terminal(monkeypatch):
    """What stands on it."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(rich, "get_console", lambda: console)
    return console.file


def slowly(items, terminal, words):
    """The items; between them it waits until a bar is shown."""
    for item in bars.tracked(items, words):
        for _ in range(500):
            if words in terminal.getvalue():
                break
            bars.threading.Event().wait(0.01)
        yield item


def test_what_takes_long_shows_how_far_it_is(terminal, monkeypatch):
    monkeypatch.setattr(bars, "DELAY", 0.01)
    assert list(slowly(["a", "b"], terminal, "packing")) == ["a", "b"]
    assert "packing" in terminal.getvalue()
    assert "100%" in terminal.getvalue()


def test_what_is_done_at_once_shows_nothing(terminal):
    assert list(bars.tracked(range(3), "packing")) == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_off_a_terminal_there_is_none(capsys, monkeypatch):
    monkeypatch.setattr(bars, "DELAY", 0.0)
    for _ in bars.tracked(range(3), "packing"):
        bars.threading.Event().wait(0.02)
    assert capsys.readouterr() == ("", "")


def test_one_within_another(terminal, monkeypatch):
    monkeypatch.setattr(bars, "DELAY", 0.01)
    for _ in slowly(range(2), terminal, "outer"):
        assert list(slowly(range(2), terminal, "inner")) == [0, 1]


def test_an_error_takes_it_away(terminal, monkeypatch):
    monkeypatch.setattr(bars, "DELAY", 0.01)
    with pytest.raises(KeyError), bars.bar("packing"):
        raise KeyError
    assert not any(
        thread.name.startswith("Timer") or "Timer" in type(thread).__name__ for thread in bars.threading.enumerate()
    )
