"""Ctrl-C is SIGTERM: the step is finished and saved; a second one ends at once."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from video_thinker.training.loop import stopping
from video_thinker.training.loop.stopping import StopCallback


class EndedError(Exception):
    pass


@pytest.fixture
def stop(monkeypatch):
    def end(code):
        raise EndedError(code)

    monkeypatch.setattr(os, "_exit", end)
    made = []

    def make(**kwargs):
        callback = StopCallback(**kwargs)
        made.append(callback)
        callback.on_train_begin(None, None, None)
        return callback

    yield make
    for callback in made:
        callback.give_back()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def end_step(callback, step=3, max_steps=9):
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    args = SimpleNamespace(device="cpu", world_size=1)
    callback.on_step_end(args, SimpleNamespace(global_step=step, max_steps=max_steps), control)
    return control.should_save, control.should_training_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_stops_at_the_end_of_the_step(stop, number):
    before = signal.signal(number, signal.SIG_DFL)  # these tests may themselves run under nohup
    callback = stop()
    assert end_step(callback) == (False, False)
    os.kill(os.getpid(), number)
    assert end_step(callback) == (True, True)
    assert callback.stopped == number
    callback.give_back()
    signal.signal(number, before)


def test_the_last_step_is_the_end_anyway(stop):
    callback = stop()
    os.kill(os.getpid(), signal.SIGINT)
    assert end_step(callback, step=9) == (False, False)
    assert not callback.stopped


def test_a_second_ctrl_c_ends_at_once_a_second_sigterm_does_not(stop):
    stop()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(EndedError, match="130"):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_launcher_passes_on_what_the_terminal_has_said(stop, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    stop(launched=True)
    os.kill(os.getpid(), signal.SIGINT)
    now[0] += 1
    os.kill(os.getpid(), signal.SIGINT)
    now[0] += stopping.LAUNCHER_S
    with pytest.raises(EndedError, match="130"):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_run_under_nohup_goes_on_when_its_terminal_is_closed(stop):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        callback = stop()
        os.kill(os.getpid(), signal.SIGHUP)
        assert end_step(callback) == (False, False)
        callback.give_back()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
