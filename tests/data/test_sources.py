"""Data sets: the embedded one, prepared ones, CIFAR-10's own path, and what is refused."""

import http.server
import importlib.util
import sys
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds

import nncompress_jax as nnc
from nncompress_jax.data import prepared, sources
from tests.prepared import labelled_images, write_prepared

LABEL = tfds.features.ClassLabel(names=["night", "dusk", "dawn", "day"])


def test_digits_are_split_by_class_and_never_change():
    digits = sources.load("digits")
    assert digits.train.images.shape == (1437, 32, 32, 3)
    assert digits.test.images.shape == (360, 32, 32, 3)
    assert digits.train.images.dtype == np.uint8
    assert digits.train.labels.dtype == np.int32
    assert np.abs(np.bincount(digits.test.labels) - 36).max() <= 1
    assert (digits.train.images[..., 0] == digits.train.images[..., 2]).all()
    assert digits.train.images.max() == 255
    assert not digits.flips
    assert digits.test.labels[:12].tolist() == [7, 6, 3, 7, 7, 3, 2, 8, 9, 3, 2, 6]
    np.testing.assert_allclose(digits.mean, digits.train.images.mean() / 255, rtol=1e-6)
    np.testing.assert_allclose(digits.deviation, digits.train.images.std() / 255, rtol=1e-6)


def test_a_prepared_set_is_read_exactly_and_without_tensorflow(tiny_data):
    tiny = sources.load("tiny", data_dir=tiny_data)
    for split, count, seed in ((tiny.train, 64, 0), (tiny.test, 21, 1)):
        expected = labelled_images(count, seed=seed)
        assert (split.images == np.stack([example["image"] for example in expected])).all()
        assert split.labels.tolist() == [example["label"] for example in expected]
    assert tiny.class_names == ("night", "dusk", "dawn", "day")
    np.testing.assert_allclose(tiny.mean, tiny.train.images.mean((0, 1, 2)) / 255, rtol=1e-6)
    np.testing.assert_allclose(tiny.deviation, tiny.train.images.std((0, 1, 2)) / 255, rtol=1e-6)
    assert "tensorflow" not in sys.modules


def test_grey_images_of_other_sizes_and_a_validation_split(tmp_path):
    features = {"image": tfds.features.Image(shape=(None, None, 1)), "label": LABEL}
    grey = [{"image": np.full((20, 31, 1), 40 * i, np.uint8), "label": i} for i in range(4)]
    write_prepared(tmp_path, "grey", features, {"train": grey, "validation": grey[:3]})
    for size in (None, 64):
        loaded = sources.load("grey", data_dir=str(tmp_path), image_size=size)
        assert loaded.train.images.shape == (4, size or 32, size or 32, 3)
        assert [int(image.mean()) for image in loaded.train.images] == [0, 40, 80, 120]
        assert len(loaded.test) == 3


def test_a_channel_that_hardly_varies_is_not_scaled(tmp_path):
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": LABEL}
    examples = labelled_images(8)
    for example in examples:
        example["image"][..., 1:] = (7, 0)
    examples[0]["image"][0, 0, 2] = 40  # the only pixel
    write_prepared(tmp_path, "flat", features, {"train": examples, "test": examples})
    flat = sources.load("flat", data_dir=str(tmp_path))
    np.testing.assert_allclose(flat.deviation, [flat.train.images[..., 0].std() / 255, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(flat.mean[1:], [7 / 255, 40 / 255 / 8 / 1024], rtol=1e-6)


@pytest.mark.parametrize("size", [20, 0, -32])
def test_image_sizes_that_cannot_be(size):
    with pytest.raises(nnc.InputError, match=f"image_size={size}: expected a multiple of 32"):
        sources.load("digits", image_size=size)


def prepared_cifar10(folder, splits, **options):
    """The files of CIFAR-10 as its builder of version 3.0.2 leaves them."""
    features = {"id": tfds.features.Text(), "image": tfds.features.Image(shape=(32, 32, 3))}
    features["label"] = tfds.features.ClassLabel(names=list(sources.CIFAR10_CLASSES))
    write_prepared(folder, "cifar10", features, splits, version="3.0.2", **options)


def test_cifar10_through_its_own_builder(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_reachable", lambda url: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    with tfds.testing.mock_data(num_examples=5):  # preparing it does nothing, reading it gives noise
        source = prepared.open_builder("cifar10", str(tmp_path))
        assert prepared._features(source, "cifar10") == ("image", "label")
        example = source.as_data_source("train")[0]
    assert example["image"].shape == (32, 32, 3)
    assert example["image"].dtype == np.uint8
    assert 0 <= example["label"] < 10


def test_cifar10_prepared(tmp_path):
    examples = [{**example, "id": b"train_00001"} for example in labelled_images(8)]
    prepared_cifar10(tmp_path, {"train": examples, "test": examples[:3]})
    cifar10 = sources.load("cifar10", data_dir=str(tmp_path))
    assert (cifar10.train.images == np.stack([example["image"] for example in examples])).all()
    assert (cifar10.mean, cifar10.deviation) == (sources.CIFAR10_MEAN, sources.CIFAR10_DEVIATION)
    assert cifar10.class_names[3] == "cat"


def test_unknown(tmp_path):
    with pytest.raises(nnc.InputError, match="^unknown data set 'cifar11': neither `digits`, nor prepared under .*$"):
        sources.load("cifar11", data_dir=str(tmp_path))


def test_without_labels(tmp_path):
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "name": tfds.features.Text()}
    write_prepared(tmp_path, "bare", features, {"train": [], "test": []})
    message = "^bare: has 0 features that are a class label, expected 1 \\(its features: .*\\); choose .*$"
    with pytest.raises(nnc.InputError, match=message):
        sources.load("bare", data_dir=str(tmp_path))


def test_without_a_test_split(tmp_path):
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": LABEL}
    write_prepared(tmp_path, "half", features, {"train": labelled_images(4)})
    message = (
        "^half: has no split 'test' or 'validation', only train; "
        "--train_split='train\\[:90%]' --test_split='train\\[90%:]' divides it$"
    )
    with pytest.raises(nnc.InputError, match=message):
        sources.load("half", data_dir=str(tmp_path))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A data_dir with `alone`, which has a split of 40 to train on, and an empty one."""
    folder = tmp_path_factory.mktemp("alone")
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": LABEL}
    write_prepared(folder, "alone", features, {"train": labelled_images(40), "later": []})
    return str(folder)


@pytest.mark.parametrize("stream", [False, True])
def test_parts_of_a_train_split(alone, stream):
    whole = labelled_images(40)
    for splits, learnt, tested in (
        (("train[:90%]", "train[90%:]"), range(36), range(36, 40)),
        (("train[10:]", "train[:10]"), range(10, 40), range(10)),
        (("train[:5]+train[30:]", "train[5:8]"), [*range(5), *range(30, 40)], range(5, 8)),
    ):
        loaded = sources.load("alone", data_dir=alone, splits=splits, stream=stream)
        for split, rows in ((loaded.train, learnt), (loaded.test, tested)):
            images, labels = split.read(np.arange(len(split)))
            np.testing.assert_array_equal(images, [whole[row]["image"] for row in rows])
            assert labels.tolist() == [whole[row]["label"] for row in rows]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("train", "train[90%:]"), "the splits 'train' and 'train\\[90%:]' have images in common; give --train_split"),
        (("train[:11]", "train[10:]"), "the splits .* have images in common"),
        (("train", "val"), "has no split 'val', only train, later .*; name one of them, or a part as 'train\\[90%:]'"),
        (("train[", "train[:1]"), "has no split 'train\\[', only train, later"),
        (("train[50:]", "train[:1]"), "has no split 'train\\[50:]', only train, later \\(Requested slice"),
        (("train", "later"), "its split 'later' is empty; name another with --train_split and --test_split"),
        (("train[:0]", "train"), "its split 'train\\[:0]' is empty"),
    ],
)
def test_splits_that_cannot_be(alone, splits, message):
    with pytest.raises(nnc.InputError, match=f"^alone: {message}"):
        sources.load("alone", data_dir=alone, splits=splits)


def test_the_digits_have_their_own_splits():
    with pytest.raises(nnc.InputError, match="digits: has splits of its own"):
        sources.load("digits", splits=("train[:90%]", "train[90%:]"))


def flipped(shard):
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        lambda shard: shard.unlink(),
        lambda shard: shard.write_bytes(shard.read_bytes()[:100_000]),
        lambda shard: shard.write_bytes(b""),
        flipped,
    ],
    ids=["missing", "cut", "empty", "flipped"],
)
def test_damaged_shards(tmp_path, damage, stream):
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": LABEL}
    write_prepared(tmp_path, "torn", features, {"train": labelled_images(64), "test": labelled_images(4)})
    damage(next(tmp_path.rglob("torn-train*")))
    message = "^torn: its split 'train' cannot be read \\(.*\\); prepare the data set again$"
    with pytest.raises(nnc.InputError, match=message):
        sources.load("torn", data_dir=str(tmp_path), stream=stream)


@pytest.mark.parametrize(("image", "reason"), [(b"no image", "no picture that can be read.*"), (b"", "it is empty")])
def test_a_damaged_image(tmp_path, image, reason):
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": LABEL}
    examples = [*labelled_images(3), {"image": image, "label": 0}]
    write_prepared(tmp_path, "torn", features, {"train": examples, "test": examples[:3]})
    message = f"torn: image 3 of train is damaged \\({reason}\\); prepare the data set again"
    with pytest.raises(nnc.InputError, match=message):
        sources.load("torn", data_dir=str(tmp_path))


def test_in_another_format(tmp_path):
    prepared_cifar10(tmp_path, {"train": [], "test": []}, file_format="tfrecord")
    with pytest.raises(nnc.InputError, match="^cifar10: prepared as tfrecord under .*, expected array_record; .*$"):
        sources.load("cifar10", data_dir=str(tmp_path))


def test_a_folder_that_cannot_be_read(tmp_path):
    prepared_cifar10(tmp_path, {"train": []})
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{")
    with pytest.raises(
        nnc.InputError, match="^cifar10: what is prepared under .* cannot be read .*; prepare it again$"
    ):
        sources.load("cifar10", data_dir=str(tmp_path))


def test_not_prepared_and_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_reachable", lambda url: False)
    with pytest.raises(
        nnc.InputError, match="^cifar10: not prepared under .*, and no network; .* run: pip install .*$"
    ):
        sources.load("cifar10", data_dir=str(tmp_path))


def test_not_prepared_and_no_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "_reachable", lambda url: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        nnc.InputError, match="preparing it needs tensorflow: pip install 'nncompress-jax\\[prepare\\]'"
    ):
        sources.load("cifar10", data_dir=str(tmp_path))


def test_prepared_by_itself_where_there_is_a_network(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(prepared, "_reachable", lambda url: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", lambda self: calls.append((self.name, self.info.file_format))
    )
    prepared.open_builder("cifar10", str(tmp_path))
    assert calls == [("cifar10", tfds.core.FileFormat.ARRAY_RECORD)]


def test_reachable_is_any_answer():
    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(403)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert prepared._reachable(url)
        server.shutdown()
    assert not prepared._reachable(url)


def test_of_several_labels_the_one_that_the_data_set_names(tmp_path):
    assert prepared._features(tfds.builder("cifar100", data_dir=str(tmp_path)), "cifar100") == ("image", "label")


def test_a_split_without_labels(tmp_path):
    features = {"image": tfds.features.Image(shape=(32, 32, 3)), "label": LABEL}
    hidden = [{**example, "label": -1} for example in labelled_images(2)]
    write_prepared(tmp_path, "hidden", features, {"train": labelled_images(4), "test": hidden})
    with pytest.raises(nnc.InputError, match="hidden: its split 'test' is not labelled; choose another data set"):
        sources.load("hidden", data_dir=str(tmp_path))


def test_a_preparation_that_fails(tmp_path, monkeypatch):
    def fails(self):
        raise ConnectionError("reset by\n peer")

    monkeypatch.setattr(prepared, "_reachable", lambda url: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fails)
    with pytest.raises(nnc.InputError, match="^cifar10: preparing it failed \\(reset by peer\\)$"):
        sources.load("cifar10", data_dir=str(tmp_path))
