"""Waiting for data gives up a run that was told to stop and gets none, and no other."""

from types import SimpleNamespace

import pytest

from hpcddrl.roles.waiting import GRACE_S, Waiting
from hpcddrl.types import RunError


@pytest.fixture
def waiting(monkeypatch):
    """Return a wait, its control, and a function that lets seconds pass."""
    now = [1000.0]
    monkeypatch.setattr("hpcddrl.roles.waiting.time.monotonic", lambda: now[0])
    monkeypatch.setattr("hpcddrl.comm.wait.time.sleep", lambda seconds: None)
    control = SimpleNamespace(stop=False, ticks=0)
    control.tick = lambda: setattr(control, "ticks", control.ticks + 1)

    def spend(seconds):
        now[0] += seconds

    return Waiting(control, lambda: None, 1e-3), control, spend


def test_a_run_that_goes_on_waits_for_ever(waiting):
    wait, control, spend = waiting
    for _ in range(10):
        wait.pause()
        spend(GRACE_S)
    assert control.ticks == 10


def test_a_run_that_was_told_to_stop_is_given_up_after_its_grace(waiting):
    wait, control, spend = waiting
    wait.pause()
    spend(10 * GRACE_S)
    control.stop = True
    wait.pause()
    spend(GRACE_S - 1)
    wait.pause()
    spend(2)
    with pytest.raises(RunError, match=r"told to stop, but no data came for 60 s"):
        wait.pause()


def test_data_that_arrives_renews_the_grace(waiting):
    wait, control, spend = waiting
    control.stop = True
    for _ in range(10):
        wait.pause()
        spend(GRACE_S - 1)
        wait.reset()
    wait.pause()  # after ten times the grace it has not given up
    assert control.stop
