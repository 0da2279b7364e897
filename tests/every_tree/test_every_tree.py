"""Every public function on every kind of tree: the right result, or one clear line. There is no third outcome."""

import contextlib
import inspect
import os

import jax
import pytest

import nncompress_jax as nnc
from tests.every_tree.kinds import KINDS
from tests.every_tree.rows import ROWS

WITHOUT_A_TREE = {
    *("ArtifactError", "Cost", "Exported", "Info", "InputError", "LayerCost", "Loaded", "__version__"),
    *(
        "calibration.Histogram",
        "calibration.DynamicRange",
        "exit_thresholds",
        "models.create",
        "models.named",
        "models.Network",
        "models.OwnNetwork",
        "stochastic_rounding",  # an optimizer
        "stored_size",
    ),
    *(f"losses.{name}" for name in nnc.losses.__all__),  # of outputs
}

OF_WEIGHTS = ("criteria.obd", "criteria.fisher")
CHANNELS = (
    "prune_channels",
    "remove_unused_channels",
    "shrink",
    "sensitivity",
    *(row for row in ROWS if row.startswith("criteria.") and row not in OF_WEIGHTS),
)
FILES = ("save, program", "save", "load", "save_safetensors", "load_safetensors")
PLAIN = ("decompress", "coupling", "cost", "exit_macs", "export_stablehlo")
"""What needs no numbers."""

ANY_FILE = "which no file can hold; save equinox.filter(variables, equinox.is_array_like)"
ONE_FILE = "use nnc.save, or put jax.random.key_data in their places"
NODE = "a node of the variables casts or checks its fields when it is made, and takes no compressed weights there"
UNCUT = "no group of channels can be cut; nnc.coupling(apply, variables, example).print() says why"
HELD = ("calibration.input_scales", "early_exit", "observe", "equalize", "export_onnx", *FILES)
"""What takes trees that are not compressed and needs their numbers."""

REFUSED = [
    # (kinds, rows, words); the last that names both holds
    (KINDS, ["models.fitting"], "BatchNorm_0: in one of the network and the variables, expected in both"),
    (["NNX state", "NNX module", "random keys"], FILES[3:], ONE_FILE),
    (["Equinox", "functions", "texts", "objects"], FILES, ANY_FILE),
    (["one array", "stacked"], CHANNELS, UNCUT),
    (["one array", "stacked"], ["equalize"], "no channels between two layers can be equalized; leave equalize out"),
    (["one array", "stacked"], ["correct_biases"], "no layer has a bias that could be corrected; leave correct_biases"),
    (["one array"], FILES[3:], "an array without a name; save {'name': array}"),
    (["Equinox"], ["criteria.reconstruction"], "layers/0/weight[0]: enters no layer that can be reconstructed"),
    (["dataclasses that cast"], CHANNELS, NODE),
    (
        ["dataclasses that cast weights"],
        ROWS.keys() - {*PLAIN, *HELD, "models.fitting"} | {"load"},
        NODE,
    ),
    (["NaN"], ROWS.keys() - {*PLAIN, *HELD, "models.fitting"} | {"load"}, "NaN or infinite values; restore an earlier"),
    (["NaN"], ["equalize"], "NaN or infinite values; restore an earlier"),
    (["NaN"], ["calibration.input_scales"], "the inputs of params/Dense_1/kernel hold NaN or infinite values"),
    (
        ["shapes alone"],
        ROWS.keys() - {*PLAIN, *HELD, "models.fitting"} | {"load"},
        "shapes without numbers; give arrays",
    ),
    (["shapes alone"], {*HELD} - {"load"}, "params/Dense_0/bias: a shape without numbers, expected an array"),
    (["donated"], ROWS.keys() - {*PLAIN, *HELD, "models.fitting"} | {"load"}, "donated to a program; copy what trees"),
    (["donated"], {*HELD} - {"load"}, "params/Dense_0/bias: its array was donated to a program; copy what other trees"),
    (
        KINDS.keys() - {"NaN", "donated", "shapes alone", "one array", "stacked"},
        ["criteria.batch_norm_scale"],
        "no normalization scales these channels; choose another criterion",
    ),
    (["shapes alone"], OF_WEIGHTS, "params/Dense_0/bias: a shape without numbers, expected an array"),
    (["donated"], OF_WEIGHTS, "params/Dense_0/bias: its array was donated to a program; copy what other trees"),
    (
        KINDS,
        ["batch_norm.fold", "batch_norm.reestimate", "reestimate", "synthetic_images"],
        "the program holds no batch normalization",
    ),
]
WORDS = {(kind, row): words for kinds, rows, words in REFUSED for kind in kinds for row in rows}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", ROWS)
def test_every_tree(row, kind, tmp_path):
    words = WORDS.get((kind, row))
    with jax.enable_x64(True) if kind == "float64, enabled" else contextlib.nullcontext():
        if words is None:
            return ROWS[row](KINDS[kind](), tmp_path)
        with pytest.raises(nnc.InputError) as error:
            ROWS[row](KINDS[kind](), tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []
    return None


def test_no_public_name_is_left_out():
    names = set()
    for name in nnc.__all__:
        value = getattr(nnc, name)
        if not inspect.ismodule(value):
            names.add(name)
            continue
        inside = {other: each for other, each in vars(value).items() if not other.startswith("_")}
        functions = {other for other, each in inside.items() if inspect.isroutine(each) or inspect.isclass(each)}
        listed = getattr(value, "__all__", [other for other in functions if inside[other].__module__ == value.__name__])
        names |= {f"{name}.{other}" for other in listed if other in functions}
    tried = {row.split(",")[0] for row in ROWS}
    assert tried | WITHOUT_A_TREE == names
    assert not tried & WITHOUT_A_TREE
