"""The order of the rooms: a file imports only files that stand above it here."""

import ast
from pathlib import Path

import pytest

import nncompress_jax

ROOT = Path(nncompress_jax.__file__).parent
ORDER = [
    "errors",
    "types",
    "tree",
    "ops",
    "ops.windows",
    "ops.pooling",
    "ops.algorithms",
    "ops.conv",
    "ops.fast",
    "ops.integer",
    "ops.quantizer",
    "ops.int8",
    "ops.ste",
    "ops.packing",
    "program",
    "marks",
    "contraction",
    "marked",
    "weights",
    "weights.base",
    "weights.channels",
    "weights.kept",
    "weights.kept_elementwise",
    "weights.kept_products",
    "weights.kept_shapes",
    "weights.packed",
    "weights.quantized",
    "weights.low_rank",
    "weights.fake_quantized",
    "weights.binary",
    "weights.clustered",
    "weights.sparse",
    "weights.parts",
    "weights.structure",
    "weights.validity",
    "interpreter",
    "injection",
    "costs",
    "report",
    "report.table",
    "labels",
    "products",
    "flow",
    "couplings",
    "methods",
    "methods.minmax",
    "methods.calibration",
    "methods.selection",
    "methods.quantize",
    "methods.fake_quantize",
    "methods.binarize",
    "methods.settle",
    "methods.cluster",
    "methods.prune",
    "methods.factorize",
    "methods.criteria",
    "methods.filters",
    "methods.shrink",
    "recipes",
    "models.vgg",
    "models",
    "data",
    "data.cache",
    "data.split",
    "data.stream",
    "data.prepared",
    "data.sources",
    "data.augment",
    "data.batches",
    "training",
    "training.processes",
    "training.interruption",
    "training.mesh",
    "training.schedules",
    "training.state",
    "training.step",
    "training.evaluation",
    "training.config",
    "training.setup",
    "training.chunks",
    "training.progress",
    "training.metrics",
    "training.checksums",
    "training.checkpoint",
    "training.loop",
    "importers",
    "importers.torch",
    "importers.safetensors",
    "artifact",
    "artifact.bounds",
    "artifact.frequencies",
    "artifact.entropy",
    "artifact.huffman",
    "artifact.symbols",
    "artifact.sections",
    "artifact.frame",
    "artifact.info",
    "artifact.tree",
    "artifact.network",
    "artifact.writer",
    "artifact.reader",
    "artifact.contents",
    "initial",
    "report.explain",
    "report.int8",
    "report.measurements",
    "report.sweep",
    "report.plots",
    "commands",
    "commands.door",
    "commands.train",
    "commands.evaluate",
    "commands.compare",
    "commands.compress",
    "commands.inspect",
    "commands.verify",
    "commands.predict",
    "commands.nncompress",
]
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(ROOT.rglob("*.py"))
    if file != ROOT / "__init__.py"
}


def imported(file: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nncompress_jax"):
            parent = node.module.removeprefix("nncompress_jax").lstrip(".")
            children = {f"{parent}.{alias.name}".lstrip(".") for alias in node.names}
            names |= children & MODULES.keys() or {parent}
            assert node.level == 0
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("nncompress_jax")}
    return names


def test_every_file_has_its_place():
    assert sorted(MODULES) == sorted(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_up(module):
    above = {*ORDER[: ORDER.index(module)]}
    if module.startswith("commands."):
        above.add("nncompress_jax")  # commands speak through the public face, which imports none of them
    assert imported(MODULES[module]) <= above


@pytest.mark.parametrize(("room", "other"), [("methods", "training"), ("training", "methods"), ("models", "training")])
def test_rooms_that_do_not_know_each_other(room, other):
    for module in ORDER:
        if module.split(".")[0] == room:
            assert not any(name.split(".")[0] == other for name in imported(MODULES[module]))


def test_files_are_short():
    lengths = {module: len(file.read_text().splitlines()) for module, file in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > 300} == {}
