"""A short version of `kills.py`; and storage that is full."""

import signal
import time

import pytest

from tests.training import kills

pytestmark = pytest.mark.system
EPOCHS = 6


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    return kills.alone(tmp_path_factory.mktemp("kills"), EPOCHS)


@pytest.mark.parametrize(
    ("number", "share"), [(signal.SIGKILL, 0.3), (signal.SIGKILL, 0.7), (signal.SIGTERM, 0.6)], ids=lambda x: str(x)
)
def test_a_killed_run_ends_as_one_that_was_left_alone(number, share, left_alone, tmp_path):
    expected, duration = left_alone
    stood, went_on, _ = kills.interrupted(tmp_path / "run", EPOCHS, number, share * duration)
    assert stood == went_on
    assert kills.final(tmp_path / "run") == expected


def test_storage_that_is_full(left_alone, tmp_path):
    expected, _ = left_alone
    workdir = tmp_path / "run"
    process = kills.start(workdir, EPOCHS)
    while not kills.steps(workdir):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    assert process.wait() == 75
    before = kills.steps(workdir)
    assert kills.start(workdir, EPOCHS, largest_file_kb=20).wait() == 74  # full for the files of weights, and no others
    last = workdir.with_suffix(".log").read_text().splitlines()[-1]
    assert last.startswith(
        f"stopped: {workdir}/checkpoints: a checkpoint cannot be written: File too large; those before"
    )
    assert kills.steps(workdir) == before
    assert kills.start(workdir, EPOCHS).wait() == 0
    assert kills.final(workdir) == expected
