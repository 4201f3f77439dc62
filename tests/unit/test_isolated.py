"""Environments that hang or crash: those in processes of their own are replaced, others end their rank by name."""

import threading
import time

import numpy as np
import pytest

from hpcddrl.config import Env
from hpcddrl.envs.make import make
from hpcddrl.envs.watchdog import Watchdog
from hpcddrl.roles.counters import counters_for
from hpcddrl.types import RunError

FAULTY, CATCH = "hpcddrl/Faulty-v0", "hpcddrl/Catch-v0"
B, SEEDS = 2, [11, 12]
STAY = np.ones(B, np.int64)


@pytest.fixture
def opened():
    made = []

    def open_(say=lambda line: None, **fields):
        made.append(make(Env(reward="raw", **fields), B, SEEDS, 0.99, 1, say))
        return made[-1]

    yield open_
    for envs in made:
        envs.close()


def test_isolated_environments_do_what_those_in_one_process_do_until_one_raises(opened):
    options = {"how": "raise", "at": 25, "only_seed": SEEDS[1]}
    alone, together = opened(id=FAULTY, isolated=True, options=options), opened(id=FAULTY, options=options)
    np.testing.assert_array_equal(alone.reset(), together.reset())
    for t in range(25):  # an episode, a reset and the most of another episode
        action = np.array([t % 3, (t + 1) % 3])
        for ours, theirs in zip(alone.step(action), together.step(action), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(RuntimeError, match="raised on demand at step 25") as raised:
        alone.step(STAY)
    assert raised.value.__notes__ == [f"environment 1 of this rank, seed {SEEDS[1]}"]


@pytest.mark.parametrize(("how", "said"), [("hang", "hung"), ("exit", "ended with exit code 3")])
def test_one_that_fails_is_replaced_and_the_other_goes_on(how, said, opened):
    lines, counters = [], counters_for(1, 1)
    options = {"how": how, "at": 19, "only_seed": SEEDS[1]}
    envs = opened(lines.append, id=FAULTY, isolated=True, step_timeout_s=2.0, options=options)
    quiet = opened(id=CATCH)
    envs.reset(), quiet.reset()
    for t in range(1, 45):
        step, expected = envs.step(STAY), quiet.step(STAY)
        counters.stepped(step)
        for ours, theirs in zip(step[:-1], expected[:-1], strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])  # the other environment knows nothing of it
        if t != 20:
            assert step.restarts == 0
            continue
        assert step.restarts == 1
        assert step.first[1]  # no transition, and the beginning of an episode:
        assert step.frame[1][:3].any()  # the ball is in the top row
        assert step.reward[1] == 0
        assert step.discount[1] == 1  # the episode was cut, it did not terminate
        assert step.episode_length[1] == 0
    (line,) = lines
    assert f"environment 1 of this rank, seed {SEEDS[1]}, {said}: killed and started anew with seed " in line
    assert counters.restarts == 1
    # Environment 0 ended episodes at steps 13, 27 and 41 (a reset takes one); the other at 13 and, anew from 20, at 33.
    assert [row["length"] for row in counters.finished()] == [13] * 5


def caught_by(watch):
    """Return what a watchdog raises in its thread, None if nothing."""
    errors, before = [], threading.excepthook
    threading.excepthook = lambda args: errors.append(args.exc_value)
    try:
        watch()
    finally:
        threading.excepthook = before
    return errors[0] if errors else None


def test_a_call_that_takes_too_long_is_named():
    dog = Watchdog(0.2, lambda: "environment 3")

    def slow():
        with dog:
            time.sleep(0.6)

    error = caught_by(slow)
    dog.close()
    assert isinstance(error, RunError)
    assert str(error).startswith("environment 3 hangs: a step has taken 0.2 s")


def test_many_calls_that_take_long_together_are_no_hang():
    dog = Watchdog(0.2, lambda: "environment 3")

    def quick():
        for _ in range(30):
            with dog:
                time.sleep(0.02)

    assert caught_by(quick) is None
    dog.close()
