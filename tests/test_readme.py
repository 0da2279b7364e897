"""What the README shows works as it stands there."""

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
VERBS = re.findall(r"^nncompress (\w+)(.*?)(?:#.*)?$", README, re.MULTILINE)
COMMANDS = re.findall(r"^python (experiments/\S+\.py)(.*?)(?:#.*)?$", README, re.MULTILINE)


def test_it_shows_something():
    assert len(PROGRAMS) >= 2
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs(program, capsys):
    exec(program, {"__name__": "readme"})
    expected, out = re.findall(r"print\(.*\)  # (.*)", program), capsys.readouterr().out
    assert [line for line in expected if line not in out] == []


@pytest.mark.parametrize(("script", "flags"), COMMANDS)
def test_commands_have_these_flags(script, flags, monkeypatch):
    """Training itself takes minutes: the commands' tests do it on little data."""
    spec = importlib.util.spec_from_file_location("readme", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "readme", module)  # where tyro finds the source, and the help in it
    spec.loader.exec_module(module)
    tyro.cli(module.Options, args=shlex.split(flags), use_underscores=True)


@pytest.mark.parametrize(("verb", "flags"), VERBS)
def test_verbs_have_these_flags(verb, flags):
    module = importlib.import_module(f"nncompress_jax.commands.{verb}")
    tyro.cli(module.Options, args=shlex.split(flags), use_underscores=True)


def test_make_targets():
    targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = re.findall(r"(?:^    |`)make ([\w-]+)", README, re.MULTILINE)
    assert set(shown) == {"demo", "test", "test-all", "verify", "torch"}
    assert set(shown) <= {name for line in targets for name in line.split()}
