"""Two commands on one workdir: the second is told who is there, and what a dead owner left is in nobody's way."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

import nncompress_jax as nnc
from nncompress_jax.errors import UnfinishedError
from nncompress_jax.training import config, lock, loop
from tests.training.test_remote import bucket  # noqa: F401

HOLDS = """
import sys, time
from etils import epath
from nncompress_jax.training import lock
with lock.held(epath.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["folder", "bucket"])
def workdir(request, tmp_path):
    """Where the system's lock tells who lives, and where it does not."""
    return epath.Path(request.getfixturevalue("bucket") if request.param == "bucket" else tmp_path / "run")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "RENEWED_EVERY_S", 0.01)
    monkeypatch.setattr(lock, "LEASE_S", 0.5)


def write(workdir, **owner):
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / lock.FILE_NAME).write_text(json.dumps(owner))


def test_a_second_command_is_refused(workdir, quick):
    with lock.held(workdir):
        owner = json.loads((workdir / lock.FILE_NAME).read_text())
        message = f"run: process {os.getpid()} on {owner['host']} \\(since {owner['since'][:4]}.*\\) trains there; wait"
        with pytest.raises(nnc.InputError, match=message), lock.held(workdir):
            pass
    assert not (workdir / lock.FILE_NAME).exists()
    with lock.held(workdir):
        pass


def test_a_run_that_is_killed_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    owner = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(nnc.InputError, match=f": process {owner.pid} on "), lock.held(epath.Path(tmp_path)):
            pass
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert (tmp_path / lock.FILE_NAME).exists()
    with lock.held(epath.Path(tmp_path)):
        pass


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(bucket, monkeypatch):  # noqa: F811
    gone = subprocess.Popen(["true"])
    gone.wait()
    workdir = epath.Path(bucket)
    write(workdir, host=lock.socket.gethostname(), process=gone.pid, since="then")
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    with lock.held(workdir):
        pass


def test_another_machine_that_is_silent_is_stale(workdir, quick, capsys):
    write(workdir, host="elsewhere", process=7, since="then", token="theirs")
    with lock.held(workdir):
        assert json.loads((workdir / lock.FILE_NAME).read_text())["process"] == os.getpid()
    assert "process 7 on elsewhere (since then) held it; waiting for 0.5 s" in capsys.readouterr().out


def test_another_machine_that_renews_is_not(workdir, quick):
    ended = threading.Event()

    def renew():
        count = 0
        while not ended.wait(0.02):
            count += 1
            write(workdir, host="elsewhere", process=7, since="then", renewed=count)

    write(workdir, host="elsewhere", process=7, since="then", renewed=0)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(nnc.InputError, match="process 7 on elsewhere .* trains there"), lock.held(workdir):
            pass
    finally:
        ended.set()
        thread.join()


def test_one_that_was_taken_for_dead_ends(workdir, quick):
    with lock.held(workdir) as ours:
        ours.check()
        write(workdir, host="elsewhere", process=7, since="then", token="theirs")
        assert ours._lost.wait(10)
        with pytest.raises(UnfinishedError, match="process 7 on elsewhere .* has taken it; this run has ended"):
            ours.check()
    assert json.loads((workdir / lock.FILE_NAME).read_text())["process"] == 7


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 3}'])
def test_a_lock_that_says_nothing(tmp_path, quick, content):
    (tmp_path / lock.FILE_NAME).write_text(content)
    with lock.held(epath.Path(tmp_path)):
        pass


def test_a_training_is_refused_and_lets_go(finished, spoilt):
    settings = dataclasses.replace(config.read(finished.workdir), workdir=str(spoilt))
    with lock.held(epath.Path(spoilt)), pytest.raises(nnc.InputError, match="trains there; wait for it, end it, or"):
        loop.train(settings)
    loop.train(settings)
    assert not (spoilt / lock.FILE_NAME).exists()
