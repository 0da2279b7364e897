"""The supervisor: what each exit code of the training leads to."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.launch.cloud import ROOT, executable, until

pytestmark = pytest.mark.system

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers run Linux")

# Each start takes the next exit code from a file.
ENDS_WITH = """#!/bin/bash
code=$(head -n1 codes); sed -i 1d codes
echo "training $*"
exit "$code"
"""


@pytest.fixture
def supervise(tmp_path):
    """Starts a supervisor in tmp_path, with what it prints on its streams in a pipe."""
    started = []

    def start(*command, **environment):
        quick = {"SUPERVISE_FIRST_PAUSE_S": "0", "SUPERVISE_TPU_LOCK": f"{tmp_path}/libtpu_lockfile"}
        process = subprocess.Popen(
            ["bash", str(ROOT / "launch/supervise.sh"), "train.log", "--", *command],
            cwd=tmp_path,
            env=os.environ | quick | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def status(folder):
    file = folder / "train.log.status"
    return file.read_text().strip() if file.exists() else None


def starts(folder):
    return len(
        re.findall(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ supervise: starts ", (folder / "train.log").read_text(), re.M)
    )


@pytest.mark.parametrize(
    ("codes", "code", "state", "times"),
    [
        ([0], 0, "finished", 1),
        ([2], 2, "failed 2", 1),
        ([74], 74, "failed 74", 1),
        ([75, 75, 0], 0, "finished", 3),
        ([1, 134, 0], 0, "finished", 3),
        ([1, 1, 75, 1, 1, 0], 0, "finished", 6),  # 75 is no crash: they are not three in a row
        ([1, 139, 134, 0], 134, "failed 134", 3),
    ],
)
def test_exit_codes(supervise, tmp_path, codes, code, state, times):
    (tmp_path / "codes").write_text("".join(f"{each}\n" for each in codes))
    training = executable(tmp_path / "training", ENDS_WITH)
    process = supervise(training, "--recipe=prune:0.9+cluster:4", "it's one", SUPERVISE_CRASHES="3")
    assert process.wait(30) == code
    assert (status(tmp_path), starts(tmp_path)) == (state, times)
    log = (tmp_path / "train.log").read_text()
    assert log.count("training --recipe=prune:0.9+cluster:4 it's one\n") == times
    assert re.search(rf"supervise: exit code {codes[0]} after \d+ s", log)


def test_crashes_after_a_long_time_do_not_add_up(supervise, tmp_path):
    (tmp_path / "codes").write_text("1\n1\n1\n1\n0\n")
    training = executable(tmp_path / "training", ENDS_WITH)
    assert supervise(training, SUPERVISE_CRASHES="2", SUPERVISE_HEALTHY_S="0").wait(30) == 0


def test_pauses_double_up_to_the_longest(supervise, tmp_path):
    (tmp_path / "codes").write_text("1\n" * 6)
    (tmp_path / "bin").mkdir()
    executable(tmp_path / "bin/sleep", '#!/bin/bash\necho "$1" >>pauses\n')
    training = executable(tmp_path / "training", ENDS_WITH)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    process = supervise(
        training, PATH=path, SUPERVISE_FIRST_PAUSE_S="5", SUPERVISE_LONGEST_PAUSE_S="30", SUPERVISE_CRASHES="6"
    )
    assert process.wait(30) == 1
    assert (tmp_path / "pauses").read_text().split() == ["5", "10", "20", "30", "30"]


def test_it_passes_sigterm_on_and_waits(supervise, tmp_path):
    saves = "trap 'echo saving; sleep 0.2; echo saved; exit 75' TERM; touch ready; while :; do sleep 0.05; done"
    process = supervise("bash", "-c", saves)
    until((tmp_path / "ready").exists)
    assert status(tmp_path) == "running"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert (status(tmp_path), starts(tmp_path)) == ("stopped", 1)
    assert "saved\n" in (tmp_path / "train.log").read_text()


def test_it_stops_in_a_pause(supervise, tmp_path):
    process = supervise("bash", "-c", "exit 1", SUPERVISE_FIRST_PAUSE_S="600")
    until(lambda: (tmp_path / "train.log").exists() and "again in 600 s" in (tmp_path / "train.log").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    assert status(tmp_path) == "stopped"


def test_a_second_one_is_refused(supervise, tmp_path):
    first = supervise("bash", "-c", "touch ready; exec sleep 600")
    until((tmp_path / "ready").exists)
    second = supervise("touch", "second")
    assert second.wait(30) == 1
    assert second.stderr.read() == (
        f"error: train.log: already supervised by process {first.pid}; wait for it, or stop it\n"
    )
    assert not (tmp_path / "second").exists()
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 143


def test_a_training_whose_supervisor_was_killed_keeps_others_out(supervise, tmp_path):
    first = supervise("bash", "-c", "echo $$ >training.new; mv training.new training; exec sleep 600")
    until((tmp_path / "training").exists)
    first.kill()
    try:
        assert supervise("true").wait(30) == 1
    finally:
        os.kill(int((tmp_path / "training").read_text()), signal.SIGKILL)
    until(lambda: supervise("true").wait(30) == 0)


def test_a_stale_lock_of_the_tpu_is_removed(supervise, tmp_path):
    lock = tmp_path / "libtpu_lockfile"
    lock.touch()
    assert supervise("test", "!", "-e", lock).wait(30) == 0
    assert "libtpu_lockfile removed: no process holds the TPU" in (tmp_path / "train.log").read_text()


def test_a_held_lock_of_the_tpu_is_kept(supervise, tmp_path):
    lock = tmp_path / "libtpu_lockfile"
    with lock.open("w"):
        assert supervise("test", "-e", lock).wait(30) == 0
    assert f"is left: process {os.getpid()} holds the TPU" in (tmp_path / "train.log").read_text()


def test_it_names_what_it_expects(supervise):
    done = subprocess.run(
        ["bash", str(ROOT / "launch/supervise.sh"), "train.log", "python"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "error: supervise.sh LOGFILE -- COMMAND... was expected, found: train.log python\n"
