"""A workdir in a bucket: what this package writes by itself, on a file system in memory that answers to gs://."""

import dataclasses
import json
from unittest import mock

import fsspec
import pytest
import tensorboardX
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

import nncompress_jax as nnc
from nncompress_jax.training import checkpoint, config, metrics
from nncompress_jax.training.config import Config


@pytest.fixture
def bucket(monkeypatch):
    class Bucket(MemoryFileSystem):
        """Answers to gs://, and ends with the test."""

        protocol = ("gs", "gcs")
        store, pseudo_dirs = {}, [""]

        def __init__(self, *args, finalize_on_close=None, **options):
            super().__init__(*args, **options)

    for name in Bucket.protocol:
        fsspec.register_implementation(name, Bucket, clobber=True)
    Bucket.clear_instance_cache()
    epath.gpath.backend_lib.fsspec_backend._get_filesystem.cache_clear()
    return "gs://bucket/run"


def test_a_run_is_claimed_and_read(bucket):
    settings = Config(model="vgg16", workdir=bucket)
    assert str(config.claim(settings)) == bucket
    assert config.read(bucket) == settings
    with pytest.raises(nnc.InputError, match="gs://bucket/run holds a run of epochs=None, not 3"):
        config.claim(dataclasses.replace(settings, epochs=3))
    assert [path.name for path in epath.Path(bucket).iterdir()] == ["config.json"]


def test_metrics_go_on(bucket, monkeypatch):
    monkeypatch.setattr(tensorboardX, "SummaryWriter", mock.MagicMock())
    workdir = config.claim(Config(model="vgg16", workdir=bucket))
    for after, step in ((0, 4), (4, 8), (4, 9)):
        with metrics.open_writer(workdir, after_step=after) as writer:
            writer.write(step, loss=1.0)
    written = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in written] == [4, 9]


def test_where_checkpoints_stand(bucket, monkeypatch):
    opened = mock.MagicMock()
    monkeypatch.setattr(checkpoint.ocp, "CheckpointManager", opened)
    with checkpoint.manager(bucket):
        assert str(opened.call_args.args[0]) == f"{bucket}/checkpoints"
