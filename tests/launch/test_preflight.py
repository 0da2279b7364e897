"""What launch/tpu.sh create checks before it asks for a slice."""

import sys

import pytest

from tests.launch.cloud import DELETE, NAME, QUEUED

pytestmark = pytest.mark.system

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers run Linux")


def test_create(cloud):
    code, out, err = cloud.tpu("create")
    assert (code, err) == (0, "")
    *checked, left = out.splitlines(keepends=True)
    assert left.endswith(f"{NAME} is left, WAITING_FOR_RESOURCES: once it is ACTIVE, it costs; {DELETE}")
    assert [line.rstrip() for line in checked] == [
        "ok           gcloud",
        "ok           git",
        "ok           timeout",
        "ok           project a project",
        "ok           v5litepod-8 in us-west4-a",
        "ok           quota for v5litepod-8 in us-west4-a: TPUV5sLitepodPerProjectPerZoneForTPUAPI 32",
        "ok           bucket gs://a bucket",
        "ok           cifar10 in gs://a bucket/tensorflow_datasets",
    ]
    assert cloud.calls(*QUEUED, "create") == [
        [
            *[*QUEUED, "create", NAME, f"--node-id={NAME}", "--project=a project", "--zone=us-west4-a"],
            *["--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite"],
        ]
    ]


@pytest.mark.parametrize(
    ("answers", "options", "wrong"),
    [
        ({"projects": []}, [], "project a project cannot be seen; gcloud auth login, or another --project="),
        ({"zones": []}, [], "zone us-west4-a cannot be asked for its TPUs; check its name, and gcloud services"),
        ({"types": ["v2-8"]}, [], "v5litepod-8 is not offered in us-west4-a; another --zone=, or one of: v2-8"),
        ({"quotas": [["TPUV5sLitepod", "0", "us-west4-a"]]}, [], "quota for v5litepod-8 in us-west4-a is 0; ask for"),
        ({}, ["--bucket=gs://none", "--data=gs://a bucket/tensorflow_datasets"], "gs://none cannot be listed; gcloud"),
        ({}, ["--data=gs://a bucket"], "gs://a bucket/cifar10 holds no prepared data set; prepare cifar10"),
        ({}, ["--", "--dataset", "mnist"], "gs://a bucket/tensorflow_datasets/mnist holds no prepared data set"),
    ],
)
def test_preflight_refuses(cloud, answers, options, wrong):
    cloud.answer(**answers)
    code, out, err = cloud.tpu("create", *options)
    lines = [line for line in out.splitlines() if not line.startswith("ok ")]
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"wrong        {wrong}")
    assert err == "error: 1 of these are wrong; nothing was asked for\n"
    assert not cloud.calls(*QUEUED)


def test_preflight_names_all_at_once(cloud):
    cloud.answer(projects=[], zones=[], quotas=[])
    (cloud.folder / "gs/a bucket/tensorflow_datasets/cifar10/3.0.2/dataset_info.json").write_text("{}")
    code, out, _ = cloud.tpu("preflight", "--bucket=gs://none", "--data=gs://a bucket/tensorflow_datasets")
    assert code == 2
    assert out.count("wrong  ") == 4
    assert "not checked  quota for v5litepod-8 in us-west4-a: gcloud does not tell it" in out
    assert "cifar10 is not in the array_record format; prepare" in out


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        (["--", "--dataset=digits"], "ok           digits comes with the environment"),
        (["--data-dir=/mnt/data"], "not checked  cifar10 in /mnt/data: the folder is on the workers"),
    ],
)
def test_preflight_where_no_data_are_copied(cloud, options, verdict):
    code, out, _ = cloud.tpu("preflight", *options)
    assert code == 0
    assert out.splitlines()[-1] == verdict


def test_spot_has_a_quota_of_its_own(cloud):
    code, out, _ = cloud.tpu("preflight", "--spot")
    assert (code, "not checked  quota for v5litepod-8, spot, in us-west4-a" in out) == (0, True)
    cloud.answer(quotas=[["TPUV5sPreemptibleLitepodPerProjectPerZoneForTPUAPI", "0", "us-west4-a"]])
    code, out, _ = cloud.tpu("preflight", "--spot")
    assert (code, "wrong        quota for v5litepod-8, spot, in us-west4-a is 0" in out) == (2, True)
