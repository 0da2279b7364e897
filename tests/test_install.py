"""`pip install nncompress-jax` is enough to compress, run, save and load networks; other parts say what they need."""

import ast
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nncompress_jax as nnc

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nncompress_jax"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PARTS = {
    "training": "training/__init__.py",
    "data": "data/__init__.py",
    "commands": "commands/nncompress.py",
    "report/plots.py": "report/plots.py",
}
"""Parts of the package that need [train], and the file of each that says so."""


def imported_as(requirements):
    """Names that the packages of these requirements are imported as."""
    names = {normal(re.match(r"[\w-]+", line)[0]) for line in requirements}
    found = importlib.metadata.packages_distributions()
    return {name for name, packages in found.items() if names & {normal(package) for package in packages}}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


CORE, TRAIN = imported_as(PROJECT["dependencies"]), imported_as(EXTRAS["train"])
BLOCKED = dict.fromkeys(sorted(TRAIN - CORE))
PROGRAM = f"""
import sys
sys.modules |= {BLOCKED}  # none can be imported
import jax, jax.numpy as jnp, nncompress_jax as nnc
network, images = nnc.models.create("vgg16ds_stride"), jnp.ones((1, 32, 32, 3))
variables = jax.eval_shape(network.init, jax.random.key(0), images)
variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), variables)
small = nnc.compress(variables)
nnc.int8_report(network.apply, small, images).print()
nnc.save(sys.argv[1], small, model="vgg16ds_stride", image_shape=(32, 32, 3))
again = nnc.load(sys.argv[1]).variables
assert jax.tree.structure(again) == jax.tree.structure(small)
print(jax.jit(nnc.inject(network.apply))(again, images).shape)
from nncompress_jax.commands.nncompress import main
sys.argv[1:] = ["train", "--model=vgg16"]
main()
"""


def test_the_public_face_without_the_extra(tmp_path):
    """And the command line says what it lacks, in one line."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "net.nnc")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("(1, 10)\n"), done.stderr
    line = "error: nncompress train needs docstring_parser, etils, tyro: pip install 'nncompress-jax[train]'\n"
    assert (done.returncode, done.stderr) == (2, line)


@pytest.mark.parametrize("part", ["training", "data", "report.plots"])
def test_a_part_without_its_extra(part, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(f"nncompress_jax.{part}")]:
        monkeypatch.delitem(sys.modules, name)
    for name, nothing in BLOCKED.items():
        monkeypatch.setitem(sys.modules, name, nothing)
    with pytest.raises(ImportError, match=r"^nncompress_jax\.\S+ needs .*: pip install 'nncompress-jax\[train\]'$"):
        importlib.import_module(f"nncompress_jax.{part}")


def needed(file):
    """Packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"nncompress_jax"}


def required(file):
    """Packages that a file asks for by `require`."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    calls = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "require"]
    return {argument.value for call in calls for argument in call.args[1:]}


def test_every_import_is_declared():
    for file in sorted(PACKAGE.rglob("*.py")):
        trains = any(file.is_relative_to(PACKAGE / part) for part in PARTS)
        assert needed(file) <= CORE | (TRAIN if trains else required(file)), file


@pytest.mark.parametrize("part", PARTS)
def test_a_part_asks_for_what_it_imports(part):
    files = sorted((PACKAGE / part).glob("*.py")) or [PACKAGE / part]
    assert required(PACKAGE / PARTS[part]) == set().union(*map(needed, files)) - CORE


def test_version_and_types():
    assert nnc.__version__ == importlib.metadata.version("nncompress-jax") == PROJECT["version"]
    assert (PACKAGE / "py.typed").exists()
