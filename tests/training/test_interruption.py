"""SIGTERM in a step that does not end."""

import os
import signal
import threading

import pytest

from nncompress_jax.training import interruption
from nncompress_jax.training.interruption import Interruption, InterruptionError


def test_a_step_that_does_not_end_is_not_waited_for(monkeypatch, capfd):
    ended = threading.Event()
    codes = []
    monkeypatch.setattr(interruption, "GRACE_S", 0.01)
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), ended.set()))
    with Interruption(lambda call: False):
        signal.raise_signal(signal.SIGTERM)
        assert ended.wait(10)
    assert codes == [75]
    assert "stopped: its step did not end within 0.01 s; the same command goes on" in capfd.readouterr().err


def test_a_step_that_ends_is(monkeypatch):
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("ended"))
    with Interruption(lambda call: False) as asked:
        asked.check()
        signal.raise_signal(signal.SIGTERM)
        assert asked._asked.wait(10)
        with pytest.raises(InterruptionError):
            asked.check()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_not_in_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)
    entered = []

    def use():
        with Interruption(lambda call: False) as asked:
            entered.append(asked.is_asked())

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert entered == [False]
    assert signal.getsignal(signal.SIGTERM) is before
