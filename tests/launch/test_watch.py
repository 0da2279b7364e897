"""launch/tpu.sh watch: what it does about slices that are taken away, workers that are silent, trainings that fail."""

import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.launch.cloud import COSTS, DELETE, NAME, QUEUED, ROOT, WORKDIR, until

pytestmark = pytest.mark.system

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers run Linux")

SSH = ("compute", "tpus", "tpu-vm", "ssh")

SAVES = 'trap "touch $HOME/saved; exit 75" TERM; touch "$FAKE_CLOUD/saves"; while :; do sleep 0.05; done'
# The first slice trains on and on; where the bucket holds its checkpoint, the training goes on and ends.
RESUMES = """
checkpoint=$FAKE_CLOUD/gs/checkpoint
if [[ -e $checkpoint ]]; then echo resumed >"$HOME/resumed"; exit 0; fi
touch "$checkpoint"; exec sleep 600
"""


def test_watch_goes_on_after_a_preemption(cloud):
    cloud.train(RESUMES)
    assert cloud.tpu("create", "--spot")[0] == 0
    watch = subprocess.Popen(
        cloud.line("watch", "--spot"),
        env=cloud.environment | {"TPU_SLICES": "1"},  # a delete that is refused is not one
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until((cloud.folder / "gs/checkpoint").exists)
    until(lambda: len(cloud.calls(*SSH)) > 3)
    cloud.write(delete_failures=1)
    cloud.write(states="SUSPENDING\nSUSPENDED")
    out, _ = watch.communicate(timeout=60)
    assert watch.returncode == 0
    assert (cloud.home() / "resumed").exists()
    said = [line.split(" ", 1)[1] for line in out.splitlines() if re.match(r"\d{4}-\d\d-\d\dT", line)]
    expected = [
        *(f"{NAME} is {state}" for state in ("PROVISIONING", "ACTIVE")),
        "workers: 0 absent",
        "workers: 0 running",
        *(f"{NAME} is {state}" for state in ("SUSPENDING", "SUSPENDED")),
        *(f"{NAME} is {state}" for state in ("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")),
        "workers: 0 absent",
        "workers: 0 finished",
        f"training finished: {WORKDIR}",
        COSTS.rstrip(),
    ]
    assert [line for line in said if line != "workers: 0 running"] == [
        line for line in expected if line != "workers: 0 running"
    ]
    assert len(cloud.calls(*QUEUED, "delete")) == 2
    assert [call[-1] for call in cloud.calls(*QUEUED, "create")] == ["--spot"] * 2


@pytest.mark.parametrize("code", [2, 74, 1])
def test_watch_ends_with_a_training_that_failed(cloud, code):
    cloud.start(hosts=2)
    fails = f"until [[ -e $FAKE_CLOUD/saves ]]; do sleep 0.05; done; exit {code}"
    cloud.train(f"if [[ $WORKER == 1 ]]; then {fails}; fi; {SAVES}")
    found, out, _ = cloud.tpu("watch", SUPERVISE_CRASHES="2")
    assert found == code
    assert f"training failed on worker 1 with exit code {code}; tpu.sh logs shows why\n" in out
    assert out.endswith(COSTS)
    assert (cloud.home(0) / "saved").exists()
    assert "worker 0: training stopped" in out


def test_watch_starts_again_what_went_down_with_its_machine(cloud):
    cloud.start(hosts=2)
    for worker in range(2):
        run = cloud.home(worker) / "nncompress_jax_run"
        run.mkdir()
        (run / "train.log.status").write_text("running\n")  # and no process holds the lock
        shutil.copy(ROOT / "launch/worker.sh", cloud.home(worker))
    code, out, _ = cloud.tpu("watch")
    assert code == 0
    assert "workers: 0 lost, 1 lost\n" in out
    assert "workers: 0 finished, 1 finished\n" in out


def test_watch_gives_a_slice_back_whose_worker_hangs(cloud):
    cloud.start(hosts=2)
    cloud.write(hanging=1, next_states="FAILED")
    code, out, err = cloud.tpu("watch", TPU_SSH_S="1", TPU_FAILURES="2", TPU_SLICES="1")
    assert code == 1
    assert out.count("no answer from worker 1 of 2\n") == 2
    assert "2 failures in a row; the slice is given back and asked for again\n" in out
    assert err.startswith(f"stopped: {NAME}: no training ran on 1 slices in a row; gcloud compute")
    assert len(cloud.calls(*QUEUED, "create")) == 1
    assert out.endswith(f"{NAME} is left, FAILED: it costs nothing, does not come back, and keeps its name; {DELETE}")


def test_a_slice_that_is_given_up_is_said_to_cost(cloud):
    cloud.start()
    cloud.write(hanging=0, next_states="ACTIVE")
    code, out, err = cloud.tpu("watch", TPU_SSH_S="1", TPU_FAILURES="1", TPU_SLICES="1")
    assert code == 1
    assert err.startswith(f"stopped: {NAME}: no training ran on 1 slices in a row")
    assert out.endswith(COSTS)


@pytest.mark.parametrize("verb", ["watch", "setup"])
def test_what_is_refused_for_good_ends(cloud, verb):
    cloud.start()
    cloud.write(refused=1)
    code, out, err = cloud.tpu(verb, TPU_FAILURES="3")
    why = "ERROR: (gcloud) PERMISSION_DENIED: Permission 'tpu.queuedResources.get' denied"
    assert (code, err) == {
        "watch": (1, f"stopped: {NAME}: Google does not answer: {why}\n"),
        "setup": (2, f"error: {NAME}: Google does not answer: {why}\n"),
    }[verb]
    assert out.count(f"{NAME} is REFUSED: {why}\n") == 1
    assert out.endswith(f"{NAME} may still be there, and cost: it cannot be asked for ({why}); {DELETE}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_a_watch_that_waits(cloud, number, code):
    cloud.start()
    cloud.write(hanging=0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
    environment = cloud.environment | {"TPU_SSH_S": "600"}
    watch = subprocess.Popen(
        cloud.line("watch"), env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, before)
    until(lambda: cloud.calls(*SSH))
    os.killpg(watch.pid, number)
    out, _ = watch.communicate(timeout=30)
    assert watch.returncode == code
    assert out.endswith(COSTS)


def test_watch_bears_an_ssh_that_fails(cloud):
    cloud.start()
    cloud.write(ssh_failures=2)
    code, out, _ = cloud.tpu("watch")
    assert code == 0
    assert out.count("no answer from worker 0 of 1\n") == 2
    assert not cloud.calls(*QUEUED, "delete")


def test_watch_does_nothing_without_a_network(cloud):
    cloud.start()
    cloud.write(offline=1)
    watch = subprocess.Popen(cloud.line("watch"), env=cloud.environment, stdout=subprocess.PIPE, text=True)
    until(lambda: len(cloud.calls(*QUEUED, "describe")) > 2)
    (cloud.folder / "offline").unlink()
    out, _ = watch.communicate(timeout=60)
    assert watch.returncode == 0
    assert out.count(f"{NAME} is UNKNOWN: ERROR: (gcloud) There was a problem refreshing your current auth") == 1
    assert not cloud.calls(*QUEUED, "delete")


def test_what_a_person_deleted_stays_deleted(cloud):
    for verb in ("watch", "setup"):
        code, _, err = cloud.tpu(verb)
        assert (code, err) == (2, f"error: {NAME}: no such queued resource in us-west4-a; create it first\n")
    assert not cloud.calls(*QUEUED, "create")
