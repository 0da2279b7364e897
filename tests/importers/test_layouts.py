"""Networks of other projects: told by their keys, and the same to the logits."""

import jax
import numpy as np
import pytest
import safetensors.numpy

import nncompress_jax as nnc
from nncompress_jax.importers import torch as importer
from nncompress_jax.importers.layouts import LAYOUTS
from nncompress_jax.importers.safetensors import torch_state_dict

torch = pytest.importorskip("torch", reason="torch is not installed: make torch")
networks = pytest.importorskip("tests.importers.torch_networks")


def arrays_of(module):
    return {key: entry.numpy() for key, entry in module.state_dict().items()}


def assert_same_logits(module, network, variables, size):
    images = np.random.default_rng(0).standard_normal((2, size, size, 3), np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    found = jax.jit(network.apply)(variables, images)
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_logits(name):
    expected, make = networks.NETWORKS[name]
    module = networks.drawn(make())
    found = importer.recognised(arrays_of(module))
    assert found.model == expected
    assert name.split()[1] in found.layout.source or expected == "resnet20_projection"
    network = nnc.models.create(found.model, **found.options)
    variables = importer.convert(arrays_of(module))
    assert nnc.models.fitting(nnc.models.create(found.model), variables) == network
    assert_same_logits(module, network, variables, 32)


@pytest.mark.parametrize(("batch_norm", "size"), [(True, 224), (False, 32)])
def test_three_dense_layers_behind_maps_of_seven_pixels(batch_norm, size, monkeypatch):
    """As torchvision's, only with narrower dense layers."""
    name = "vgg11_bn_torchvision" if batch_norm else "vgg11_torchvision"
    narrow = nnc.models.create(name, head=(24, 16))
    monkeypatch.setitem(nnc.models.NAMES, name, lambda **options: narrow.copy(**options))
    module = networks.drawn(networks.Vgg(11, 9, widths=(24, 16), pixels=7, batch_norm=batch_norm, pooled=True))
    found = importer.recognised(arrays_of(module))
    assert (found.model, found.options) == (name, {"num_classes": 9})
    assert_same_logits(module, narrow.copy(num_classes=9), importer.convert(arrays_of(module)), size)


@pytest.mark.parametrize("name", [*(f"vgg{depth}_bn_torchvision" for depth in (11, 19)), "vgg16_torchvision"])
def test_torchvisions_networks_are_told_from_narrower_ones(name):
    state_dict = {key: np.empty(shape) for key, shape in importer.entries(name, num_classes=1000).items()}
    assert state_dict["classifier.0.weight"].shape == (4096, 25088)
    assert importer.recognised(state_dict).model == name


@pytest.mark.parametrize("model", [name for name in nnc.models.NAMES if not name.endswith("_exits")])
def test_every_network_is_told_from_all_others(model):
    state_dict = {key: np.broadcast_to(0, shape) for key, shape in importer.entries(model).items()}
    assert importer.recognised(state_dict).model == model


WRAPPED = {
    "net.pth": lambda weights: {"net": weights, "acc": 93.02, "epoch": 199},
    "parallel.pth": lambda weights: {
        "net": {f"module.{key}": entry for key, entry in weights.items()},
        "acc": 93.02,
        "epoch": 199,
    },
    "net.pth.tar": lambda weights: {
        "state_dict": {f"module.{key}": entry for key, entry in weights.items()},
        "best_prec1": 91.7,
    },
    "net.ckpt": lambda weights: {
        "state_dict": {f"model.{key}": entry for key, entry in weights.items()} | {"loss.weight": torch.ones(10)},
        "pytorch-lightning_version": "2.0.0",
        "hyper_parameters": {"lr": 0.1},
    },
    "net.pt": lambda weights: {f"net.{key}": entry for key, entry in weights.items()},
}


@pytest.mark.parametrize("file", WRAPPED)
@pytest.mark.parametrize("legacy", [False, True])
def test_files(file, legacy, tmp_path):
    weights = networks.drawn(networks.NETWORKS["resnet20 chenyaofo"][1]()).state_dict()
    torch.save(WRAPPED[file](weights), tmp_path / file, _use_new_zipfile_serialization=not legacy)
    found = importer.load(tmp_path / file)
    jax.tree.map(np.testing.assert_array_equal, found, importer.convert(arrays_of(_Module(weights))))


class _Module:
    def __init__(self, weights):
        self.state_dict = lambda: weights


def test_safetensors_with_torchs_keys(tmp_path):
    arrays = arrays_of(networks.drawn(networks.NETWORKS["resnet20 akamaster"][1]()))
    safetensors.numpy.save_file({f"module.{key}": entry for key, entry in arrays.items()}, tmp_path / "a.safetensors")
    state_dict = torch_state_dict(tmp_path / "a.safetensors")
    assert importer.recognised(state_dict).model == "resnet20"
    found = nnc.load_safetensors(tmp_path / "a.safetensors", model="resnet20")
    jax.tree.map(np.testing.assert_array_equal, found, importer.convert(arrays))
    with pytest.raises(nnc.InputError, match="a.safetensors: found the keys .*; it is of resnet20$"):
        nnc.load_safetensors(tmp_path / "a.safetensors", model="vgg16")
    nnc.save_safetensors(tmp_path / "b.safetensors", found)
    assert torch_state_dict(tmp_path / "b.safetensors") is None


def test_torch_before_it_counted_batches():
    arrays = arrays_of(networks.drawn(networks.NETWORKS["resnet20 chenyaofo"][1]()))
    older = {key: entry for key, entry in arrays.items() if not key.endswith("num_batches_tracked")}
    jax.tree.map(np.testing.assert_array_equal, importer.convert(older), importer.convert(arrays))


def test_a_network_that_is_not_known(tmp_path):
    weights = {"stem.weight": torch.ones(4, 3, 3, 3), "stem.bias": torch.ones(4), "head.weight": torch.ones(10, 4)}
    torch.save(weights, tmp_path / "net.pth")
    with pytest.raises(nnc.InputError) as refused:
        importer.load(tmp_path / "net.pth")
    message = str(refused.value)
    assert "\n" not in message
    assert f"{tmp_path}/net.pth: found the keys stem.weight, stem.bias, head.weight, ...; expected" in message
    for layout in LAYOUTS:
        assert layout.source in message


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        (
            "resnet20 akamaster B",
            "resnet20",
            r"not a state dict of resnet20: .* differ\); it is of resnet20_projection",
        ),
        ("resnet20 chenyaofo", "resnet32_projection", "not a state dict of resnet32_.*; it is of resnet20_projection"),
        ("resnet20 chenyaofo", "vgg16", r"found the keys conv1.weight, .*; expected .*; it is of resnet20_projection"),
    ],
)
def test_another_network_than_the_one_that_was_named(name, model, message):
    arrays = arrays_of(networks.NETWORKS[name][1]())
    with pytest.raises(nnc.InputError, match=message):
        importer.recognised(arrays, model=model)


@pytest.mark.parametrize("name", ["vgg11_bn", "vgg11"])
def test_torchvision_itself(name):
    """Its own module, where it is installed."""
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    module = getattr(torchvision.models, name)(num_classes=10).eval()
    recognised = importer.recognised(arrays_of(module))
    network = nnc.models.create(recognised.model, **recognised.options)
    assert_same_logits(module, network, importer.convert(arrays_of(module)), 224)
