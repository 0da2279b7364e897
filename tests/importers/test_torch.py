"""The original's state dicts: layout, widening, and files that are something else."""

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nncompress_jax as nnc
from nncompress_jax.importers import torch as importer
from tests.conftest import GOLDEN

CONFIGURATIONS = {"vgg16": "D", "vgg16ds": "D-DSM", "vgg16ds_stride": "D-DS"}


def zeros(model, **options):
    return {key: np.zeros(shape, np.float32) for key, shape in importer.entries(model, **options).items()}


@pytest.mark.parametrize("model", CONFIGURATIONS)
def test_entries_are_those_of_the_original(model):
    described = json.loads((GOLDEN / "state_dict.json").read_text())["state_dict"][CONFIGURATIONS[model]]["keys"]
    assert list(importer.entries(model).items()) == [(key, tuple(shape)) for key, shape in described]


@pytest.mark.parametrize(
    ("model", "size"),
    [
        *((model, 32) for model in nnc.models.NAMES if "torchvision" not in model and "exits" not in model),
        *((model, 64) for model in ("vgg11", "vgg19", "vgg16ds", "vgg16ds_stride", "vgg13_bn_cifar")),
    ],
)
def test_variables_are_those_of_the_network(model, size):
    network = nnc.models.create(model, num_classes=7)
    expected = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    found = importer.convert(zeros(model, num_classes=7, image_size=size), model=model)
    chex_shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert chex_shapes(found) == chex_shapes(expected)


def test_a_dense_layer_behind_a_larger_image_takes_its_pixels_in_our_order():
    state_dict = zeros("vgg11", image_size=64)
    weight = np.arange(10 * 512 * 4, dtype=np.float32).reshape(10, 512, 2, 2)
    state_dict["classifier.0.weight"] = weight.reshape(10, -1)
    kernel = importer.convert(state_dict)["params"]["Dense_0"]["kernel"]
    assert kernel.reshape(2, 2, 512, 10)[1, 0, 300, 7] == weight[7, 300, 1, 0]


def test_half_precision_is_widened():
    state_dict = {key: entry.astype(np.float16) for key, entry in zeros("vgg11").items()}
    assert {leaf.dtype for leaf in jax.tree.leaves(importer.convert(state_dict))} == {jnp.dtype("float32")}


def test_the_twins_are_told_apart():
    importer.convert(zeros("vgg16ds_stride"))
    message = "not a state dict of vgg16ds_stride: .* is .*, expected .* entries differ"
    with pytest.raises(nnc.InputError, match=message):
        importer.convert(zeros("vgg16ds"), model="vgg16ds_stride")


def test_wrong_keys_shapes_and_names():
    state_dict = zeros("vgg16")
    renamed = {key.replace("features", "layers"): entry for key, entry in state_dict.items()}
    with pytest.raises(nnc.InputError, match="found the keys layers.0.weight, .* expected features.0.weight"):
        importer.convert(renamed)
    missing = {key: entry for key, entry in state_dict.items() if key != "features.3.bias"}
    with pytest.raises(nnc.InputError, match="of vgg16: features.3.bias is missing, expected \\(64,\\) \\(1 entries"):
        importer.convert(missing)
    wrong = {**state_dict, "features.3.weight": np.zeros((64, 60, 3, 3))}
    with pytest.raises(nnc.InputError, match="features.3.weight is \\(64, 60, 3, 3\\), expected \\(64, 64, 3, 3\\)"):
        importer.convert(wrong)
    with pytest.raises(nnc.InputError, match="features.99.weight is \\(1,\\), expected no such key"):
        importer.convert({**state_dict, "features.99.weight": np.zeros(1)})
    with pytest.raises(nnc.InputError, match="unknown model 'vgg17'"):
        importer.convert(state_dict, model="vgg17")


class TestFiles:
    """Files that torch wrote, and files that it did not."""

    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch", reason="torch is not installed: make torch")

    def save(self, torch, path, dtype):
        state_dict = {key: torch.from_numpy(entry) for key, entry in zeros("vgg11").items()}
        torch.save({key: entry.to(dtype) for key, entry in state_dict.items()}, path)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
    def test_load(self, torch, tmp_path, dtype):
        self.save(torch, tmp_path / "net.pth", getattr(torch, dtype))
        variables = importer.load(tmp_path / "net.pth")
        assert variables["params"]["Conv_0"]["kernel"].shape == (3, 3, 3, 64)

    @pytest.mark.parametrize("size", [0, 10, 1000, 30_000_000])
    def test_truncated(self, torch, tmp_path, size):
        path = tmp_path / "net.pth"
        self.save(torch, path, torch.float32)
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(nnc.InputError, match="^.*net.pth: not a whole .pth file .*$"):
            importer.load(path)

    def test_a_text_file(self, tmp_path):
        path = tmp_path / "net.pth"
        path.write_text("weights, to come\n" * 100)
        with pytest.raises(nnc.InputError, match="^.*net.pth: not a whole .pth file .*$"):
            importer.load(path)

    def test_no_file_and_a_folder(self, tmp_path):
        with pytest.raises(nnc.InputError, match="no such file; expected a .pth file"):
            importer.load(tmp_path / "net.pth")
        with pytest.raises(nnc.InputError, match="not a whole .pth file"):
            importer.load(tmp_path)

    def test_code_in_a_file_is_not_run(self, torch, tmp_path):
        class Hostile:
            def __reduce__(self):
                return (tmp_path.joinpath("run").write_text, ("",))

        torch.save({"features.0.weight": Hostile()}, tmp_path / "net.pth")
        with pytest.raises(nnc.InputError, match="not a whole .pth file"):
            importer.load(tmp_path / "net.pth")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("name", ["net.pth.tar", "net.pt", "net.ckpt", "NET.PTH", "net"])
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda weights: {"epoch": 3, "state_dict": weights, "optimizer": {"state": {}, "param_groups": []}},
            lambda weights: {"model": weights, "acc": 0.5},
            lambda weights: {f"module.{key}": entry for key, entry in weights.items()},
            lambda weights: {key.replace("features", "features.module"): entry for key, entry in weights.items()},
            lambda weights: {"state_dict": {f"net._orig_mod.{key}": entry for key, entry in weights.items()}, "n": {}},
        ],
    )
    def test_wrapped(self, torch, tmp_path, name, wrap):
        """As training scripts save it: beside other things, under other names of keys and file."""
        random = np.random.default_rng(0)
        weights = {key: random.standard_normal(entry.shape, np.float32) for key, entry in zeros("vgg11").items()}
        torch.save(wrap({key: torch.from_numpy(entry) for key, entry in weights.items()}), tmp_path / name)
        found, expected = importer.load(tmp_path / name), importer.convert(weights)
        jax.tree.map(np.testing.assert_array_equal, found, expected)

    def test_of_two_state_dicts_the_one_by_that_name(self, torch, tmp_path):
        weights = {key: torch.from_numpy(entry) for key, entry in zeros("vgg11").items()}
        ema = {key: entry + 1 for key, entry in weights.items()}
        torch.save({"ema": ema, "state_dict": weights}, tmp_path / "net.pth")
        assert (importer.load(tmp_path / "net.pth")["params"]["Conv_0"]["kernel"] == 0).all()
        torch.save({"ema": ema, "online": weights}, tmp_path / "net.pth")
        with pytest.raises(nnc.InputError, match="holds a dict with ema, online, expected a state dict of tensors"):
            importer.load(tmp_path / "net.pth")

    def test_in_the_home_folder(self, torch, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        self.save(torch, tmp_path / "net.pth", torch.float32)
        importer.load("~/net.pth")

    @pytest.mark.parametrize("kind", ["expanded", "sparse", "meta", "complex"])
    def test_tensors_that_are_no_plain_arrays(self, torch, tmp_path, kind):
        weights = {key: torch.from_numpy(entry) for key, entry in zeros("vgg11").items()}
        key = "classifier.0.weight"
        weights[key] = {
            "expanded": lambda: torch.zeros(1, 1).expand(10**9, 512),  # four bytes in the file, 2 TB as an array
            "sparse": lambda: weights[key].to_sparse(),
            "meta": lambda: weights[key].to("meta"),
            "complex": lambda: weights[key].to(torch.complex64).conj(),
        }[kind]()
        torch.save(weights, tmp_path / "net.pth")
        with pytest.raises(nnc.InputError, match="^.*net.pth: .*[^\n]*$"):
            importer.load(tmp_path / "net.pth")

    def test_what_unpacks_to_more_than_it_is(self, torch, tmp_path):
        self.save(torch, tmp_path / "net.pth", torch.float32)
        with zipfile.ZipFile(tmp_path / "net.pth") as stored:
            entries = {entry.filename: stored.read(entry) for entry in stored.infolist()}
        with zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
            for name, content in entries.items():
                bomb.writestr(name, content)
        with pytest.raises(nnc.InputError, match="small.pth: not a whole .pth file \\(it unpacks to [\\d,]+ bytes"):
            importer.load(tmp_path / "small.pth")

    @pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, {"a": {}}, 7, None])
    def test_something_else_that_torch_saved(self, torch, tmp_path, content):
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(nnc.InputError, match="expected a state dict of tensors"):
            importer.load(tmp_path / "net.pth")


def test_without_torch(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(nnc.InputError, match="reading it needs torch: pip install 'nncompress-jax\\[torch\\]'"):
        importer.load(tmp_path / "net.pth")
