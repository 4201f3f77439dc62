"""What a checkpoint costs, from rows whose every pause is known."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import checkpoints
from benchmarks.flow import CannotRunError

EVERY, RATE = 20, 50.0  # seconds between two checkpoints, frames a second of a rank


def tables(pauses, slower=1.0):
    """Return rows of two ranks that pause before each checkpoint's row, and fall to a share of their rate in the end.

    The last checkpoint is where the run ends.
    """
    times, paused = np.arange(1.0, EVERY * len(pauses) + 1), np.zeros(EVERY * len(pauses))
    paused[EVERY - 1 :: EVERY] = pauses
    rate = RATE * np.linspace(1.0, slower, len(times))
    # A pause of up to 1 s is in the row that knows of it, a longer one in those before it too.
    work = np.ones(len(times))
    for row in np.flatnonzero(paused):
        left = paused[row]
        for back in range(3):
            taken = min(left, 1.0)
            work[row - back] -= taken
            left -= taken
    progress = [pd.DataFrame({"rank": r, "time": times, "frames": np.cumsum(rate * work)}) for r in range(2)]
    timing = pd.DataFrame({"rank": 0, "time": times, "checkpoint": np.minimum(paused, 1.0)})
    return pd.concat(progress), timing


def test_what_all_ranks_counted_is_summed_between_rows():
    progress, _ = tables([0.5] * 2)
    np.testing.assert_allclose(checkpoints.done(progress, "frames", np.array([1.0, 2.5])), [2 * RATE, 5 * RATE])


@pytest.mark.parametrize("pause", [0.25, 1.0, 2.5])
def test_a_pause_is_what_is_lost(pause):
    progress, timing = tables([pause] * 6)
    at = checkpoints.moments(timing)
    np.testing.assert_array_equal(at, EVERY * np.arange(1, 7))
    found = checkpoints.lost(progress, "frames", at)
    assert found.mean == pytest.approx(pause)
    assert found.error == pytest.approx(0, abs=1e-9)


def test_a_machine_that_becomes_slower_changes_nothing():
    progress, timing = tables([1.0] * 21, slower=0.5)
    assert checkpoints.lost(progress, "frames", checkpoints.moments(timing)).mean == pytest.approx(1.0, abs=0.02)


def test_the_error_is_that_of_the_mean():
    progress, timing = tables([0.5, 1.5] * 8 + [1.0])
    found = checkpoints.lost(progress, "frames", checkpoints.moments(timing))
    assert found.mean == pytest.approx(1.0)
    assert found.error == pytest.approx(np.std([0.5, 1.5] * 8, ddof=1) / 4)
    assert str(found) == "1.00 ± 0.26"


def test_too_few_are_refused():
    progress, timing = tables([1.0] * 3)
    with pytest.raises(CannotRunError, match="2 checkpoints: too few"):
        checkpoints.lost(progress, "frames", checkpoints.moments(timing))


def test_one_shortly_before_the_end_tells_nothing():
    progress, timing = tables([1.0] * 6)
    at = checkpoints.moments(timing)
    found = checkpoints.lost(progress, "frames", np.append(at, at[-1] + EVERY / 4))
    assert (found.mean, found.of) == (pytest.approx(1.0), 5)


@pytest.mark.parametrize(
    ("words", "why"), [(["--interval", "4"], "--interval 4: too short"), (["--seconds", "100"], "--seconds 100: no 3")]
)
def test_what_could_not_tell_anything_is_refused(words, why, capsys):
    with pytest.raises(SystemExit):
        checkpoints.options(words)
    assert why in capsys.readouterr().err
