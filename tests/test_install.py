"""`pip install nncompress-jax` is enough to compress, run, save and load networks; other parts say what they need."""

import ast
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
BLOCK = f"import sys; sys.modules |= dict.fromkeys({sorted(TRAIN - CORE)})\n"


def run(program, *arguments):
    """In a process where nothing of [train] can be imported."""
    return subprocess.run([sys.executable, "-c", BLOCK + program, *arguments], capture_output=True, text=True)


def test_the_public_face_without_the_extra(tmp_path):
    program = """
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
"""
    done = run(program, str(tmp_path / "net.nnc"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("(1, 10)\n")


@pytest.mark.parametrize("verb", ["train", "inspect"])
def test_the_command_line_without_the_extra(verb):
    done = run(f"from nncompress_jax.commands.nncompress import main; sys.argv[1:] = ['{verb}']; main()")
    line = f"error: nncompress {verb} needs cv2, etils, tyro: pip install 'nncompress-jax[train]'\n"
    assert (done.returncode, done.stderr) == (2, line)


@pytest.mark.parametrize("part", ["training.loop", "data.sources", "report.plots"])
def test_a_part_without_its_extra(part):
    done = run(f"import nncompress_jax.{part}")
    assert done.returncode == 1
    assert re.search(
        r"NotInstalledError: nncompress_jax\.\S+ needs .*: pip install 'nncompress-jax\[train\]'$", done.stderr
    )


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
