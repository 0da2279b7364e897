"""ARCHITECTURE.md is true: the rooms that it lists are there, and each imports only those that it may."""

import ast
import re
from pathlib import Path

import pytest

import nncompress_jax

PACKAGE = Path(nncompress_jax.__file__).parent
TEXT = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
ROWS = re.findall(r"^\| `(\w+)/?` \| (.*?) \|(.*?)\|$", TEXT, re.M)
ROOMS = {room: set(re.findall(r"`(\w+)`", allowed)) for room, _, allowed in ROWS}
"""By room, those that it may import; in the order of the table."""

GROUND = set(re.findall(r"`(\w+)\.py`", {room: text for room, text, _ in ROWS}["ground"]))
MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(PACKAGE.rglob("*.py"))
    if file != PACKAGE / "__init__.py"
}


def room_of(module: str) -> str:
    first = module.split(".")[0]
    return "ground" if first in GROUND else first


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their package"
            if node.module and node.module.split(".")[0] == "nncompress_jax":
                parent = node.module.removeprefix("nncompress_jax").lstrip(".")
                children = {f"{parent}.{alias.name}".lstrip(".") for alias in node.names}
                names |= children & MODULES.keys() or {parent or "nncompress_jax"}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.split(".")[0] == "nncompress_jax"}
    return names


def test_the_table_lists_the_rooms_that_are_there():
    assert set(ROOMS) == {room_of(module) for module in MODULES}
    assert {module for module in MODULES if room_of(module) == "ground"} == GROUND


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_it_may(room):
    found: dict[str, set[str]] = {}
    for module in MODULES:
        if room_of(module) == room:
            for other in imported(module):
                found.setdefault(room_of(other), set()).add(f"{module} -> {other}")
    found.pop(room, None)
    allowed = ROOMS[room] | ({"nncompress_jax"} if room == "commands" else set())  # it speaks through the public face
    assert {other: sorted(arrows) for other, arrows in found.items() if other not in allowed} == {}
    assert ROOMS[room] - found.keys() <= {"ground"}, "the table allows what nothing needs"


@pytest.mark.parametrize("room", ROOMS)
def test_no_import_goes_down(room):
    order = list(ROOMS)
    assert ROOMS[room] <= set(order[: order.index(room)])


def test_no_import_goes_round_within_a_room():
    arrows = {module: {other for other in imported(module) if room_of(other) == room_of(module)} for module in MODULES}
    while free := {module for module, others in arrows.items() if not others & arrows.keys()}:
        arrows = {module: others for module, others in arrows.items() if module not in free}
    assert arrows == {}


def test_files_are_short():
    lengths = {module: len(file.read_text().splitlines()) for module, file in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > 300} == {}


def test_rooms_say_what_belongs_in_them():
    silent = [module for module, file in MODULES.items() if not ast.get_docstring(ast.parse(file.read_text()))]
    assert silent == []
