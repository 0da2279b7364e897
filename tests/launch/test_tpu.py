"""launch/tpu.sh against a cloud that is a folder: its workers run the real scripts on a training that is a fake."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.cloud import COSTS, DELETE, NAME, QUEUED, ROOT, WORKDIR, until

pytestmark = pytest.mark.system

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers run Linux")

REMEMBERS = 'printf "%s\\0" "$@" >"$HOME/arguments"'
WAITS = 'echo "epoch 1"; touch "$HOME/trains"; exec sleep 600'


def arguments(home):
    return (home / "arguments").read_text().split("\0")[:-1]


def test_shellcheck():
    shellcheck = Path(sys.executable).parent / "shellcheck"
    scripts = sorted(ROOT.glob("launch/*.sh"))
    done = subprocess.run([shellcheck, "--external-sources", *scripts], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_setup_and_run_on_all_workers(cloud):
    cloud.start(hosts=4, states="WAITING_FOR_RESOURCES\nPROVISIONING\nPROVISIONING\nACTIVE")
    cloud.write(ssh_failures=2)
    cloud.train(f"{REMEMBERS}; {WAITS}")
    code, out, err = cloud.tpu("setup", "--setup-command=echo \"it's $WORKER\" >'a file'")
    assert code == 0, err
    assert out.endswith(COSTS)
    assert [line.split(" ", 1)[1] for line in out.splitlines() if NAME in line][:-1] == [
        f"{NAME} is WAITING_FOR_RESOURCES",
        f"{NAME} is PROVISIONING",
        f"{NAME} is ACTIVE",
    ]
    assert out.count("failed with exit code 255; again in 0 s") == 2
    for worker in range(4):
        home = cloud.home(worker)
        assert (home / "nncompress_jax/experiments/train.py").exists()
        assert (home / "tensorflow_datasets/cifar10/3.0.2/dataset_info.json").exists()
        assert len((home / "python3.log").read_text().splitlines()) == 3
    flags = ["--recipe=prune:0.9+cluster:4", '--init=gs://b/it\'s "a" $HOME `run`', "", "--epochs=3"]
    code, out, err = cloud.tpu("run", "--", *flags)
    assert code == 0, err
    assert out.endswith(COSTS)
    assert sorted(out.splitlines()[:-1]) == [f"worker {worker}: training started" for worker in range(4)]
    until(lambda: all((cloud.home(worker) / "trains").exists() for worker in range(4)))
    for worker in range(4):
        assert arguments(cloud.home(worker)) == [
            *["experiments/train.py", "--platform=tpu", f"--workdir={WORKDIR}", "--model=vgg16ds"],
            *flags,
        ]
    code, out, _ = cloud.tpu("run")
    assert code == 0
    assert out.count("training is already running; nothing is started") == 4
    code, out, _ = cloud.tpu("setup")
    assert code == 0
    assert out.count("training is running; left as it is") == 4
    code, out, _ = cloud.tpu("logs", "--worker=2")
    assert code == 0
    assert "[2] epoch 1\n" in out
    assert all(line.startswith("[2] ") for line in out.splitlines())
    code, out, _ = cloud.tpu("delete")
    assert (code, out.split(" ", 1)[1]) == (0, f"the bucket keeps what the run left: {WORKDIR}\n")


def test_setup_installs_once_and_again_when_packages_change(cloud):
    cloud.start()
    for expected in (3, 3):
        assert cloud.tpu("setup", "--", "--dataset=digits")[0] == 0
        assert len((cloud.home() / "python3.log").read_text().splitlines()) == expected
    assert not (cloud.home() / "tensorflow_datasets").exists()
    (cloud.home() / "nncompress_jax_env/.ready").write_text("of other packages")
    assert cloud.tpu("setup")[0] == 0
    assert len((cloud.home() / "python3.log").read_text().splitlines()) == 6


def test_what_the_setup_command_leaves_running_is_in_nobodys_way(cloud):
    cloud.start()
    mount = '--setup-command=sleep 600 >/dev/null 2>&1 & echo $! >>"$HOME/daemons"'
    try:
        for _ in range(2):
            assert cloud.tpu("setup", mount, TPU_SETUP_S="10", TPU_FAILURES="1")[0] == 0
    finally:
        for process in (cloud.home() / "daemons").read_text().split():
            os.kill(int(process), signal.SIGKILL)


def test_a_folder_on_the_workers(cloud):
    cloud.start()
    cloud.train(f"{REMEMBERS}; {WAITS}")
    options = ["--data-dir=/mnt/the data", "--workdir=gs://b/it's a run", "--setup-command=touch mounted"]
    assert cloud.tpu("setup", *options)[0] == 0
    assert (cloud.home() / "mounted").exists()
    assert not (cloud.home() / "tensorflow_datasets").exists()
    assert cloud.tpu("run", *options, "--", "--model=vgg16")[0] == 0
    until((cloud.home() / "trains").exists)
    flags = ["--platform=tpu", "--workdir=gs://b/it's a run", "--data_dir=/mnt/the data", "--model=vgg16"]
    assert arguments(cloud.home()) == ["experiments/train.py", *flags]


def test_run_before_setup_says_so(cloud):
    cloud.start()
    code, _, err = cloud.tpu("run", TPU_FAILURES="1")
    assert code == 127
    cloud.write(ssh_failures=0)
    assert cloud.tpu("setup")[0] == 0
    (cloud.home() / "nncompress_jax_env/.ready").unlink()
    code, _, err = cloud.tpu("run")
    assert code == 2
    assert "no environment in" in err


@pytest.mark.parametrize(
    ("states", "message", "left"),
    [
        (
            "FAILED",
            f"{NAME} is FAILED and will not come; delete it and create it again, or watch it",
            "it costs nothing, does not come back, and keeps its name",
        ),
        (
            "WAITING_FOR_RESOURCES",
            f"{NAME} is still WAITING_FOR_RESOURCES after 0 s; set it up later, or watch it",
            "once it is ACTIVE, it costs",
        ),
    ],
)
def test_setup_does_not_wait_for_ever(cloud, states, message, left):
    cloud.start(states=states)
    code, out, err = cloud.tpu("setup", TPU_WAIT_S="0")
    assert (code, err) == (1, f"stopped: {message}\n")
    assert f"{NAME} is left, {states}: {left}; {DELETE}" in out


def test_a_name_that_is_taken(cloud):
    cloud.start(states="SUSPENDED")
    code, out, err = cloud.tpu("create", "--accelerator-type=v5litepod-8", "--", "--dataset=digits")
    assert (code, err) == (1, "ERROR: (gcloud) ALREADY_EXISTS\n")
    assert out.endswith(
        f"{NAME} is left, SUSPENDED: it costs nothing, does not come back, and keeps its name; {DELETE}"
    )


def test_what_is_wrong_before_anything_is_asked_for_leaves_nothing_to_say(cloud):
    cloud.answer(projects=[])
    code, out, _ = cloud.tpu("create")
    assert code == 2
    assert NAME not in out


def test_a_delete_that_fails(cloud):
    cloud.start()
    cloud.write(delete_failures=1)
    code, out, _ = cloud.tpu("delete")
    assert code == 1
    assert out.endswith(COSTS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explode"], "unknown verb 'explode'; expected create, setup, run, watch, logs, delete or preflight"),
        (["create"], "missing: --name --project --zone --accelerator-type --bucket; --help tells what each is"),
        (["run", "--name=a", "--zone=b", "--project=c", "--accelerator-type=v6e-8"], "missing: --bucket; --help"),
        (["logs", "--name=a"], "missing: --project --zone; --help tells what each is"),
        (["create", "--accelerator=v6e-8"], "unknown option '--accelerator=v6e-8'; --help shows them all"),
        (["watch", "--epochs=3"], "unknown option '--epochs=3'; --help shows them all, and flags of the training"),
    ],
)
def test_it_refuses(cloud, words, message):
    done = subprocess.run(
        ["bash", ROOT / "launch/tpu.sh", *words], env=cloud.environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--accelerator-type=v9-8", "--accelerator-type=v9-8: expected one as v2-8, v3-8, v4-32, v5p-8, v5litepod-16"),
        ("--accelerator-type=v6e", "--accelerator-type=v6e: expected one as"),
        ("--bucket=a/b", "--bucket=a/b: expected gs:// and the bucket's name"),
    ],
)
def test_it_refuses_values(cloud, option, message):
    code, out, err = cloud.tpu("create", option)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {message}")


def test_options_come_from_the_environment_too(cloud):
    given = {"TPU_NAME": NAME, "TPU_PROJECT": "a project", "TPU_ZONE": "us-west4-a", "TPU_BUCKET": "gs://a bucket"}
    done = subprocess.run(
        ["bash", cloud.project / "launch/tpu.sh", "create"],
        env=cloud.environment | given | {"TPU_ACCELERATOR_TYPE": "v5litepod-8"},
        capture_output=True,
    )
    assert done.returncode == 0
    assert len(cloud.calls(*QUEUED, "create")) == 1


def test_it_helps(cloud):
    for words in ([], ["--help"], ["create", "--help"]):
        done = subprocess.run([ROOT / "launch/tpu.sh", *words], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: launch/tpu.sh VERB")
