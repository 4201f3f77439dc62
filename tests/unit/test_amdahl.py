"""What faster predictions can give at most."""

import math

import pytest

from hpcddrl.compressors.amdahl import gain, prediction_share, sheet


def test_the_share_is_that_of_the_predicting_phases():
    seconds = {"act": 4.0, "env": 5.0, "wait": 1.0}
    assert prediction_share(seconds) == 0.4
    assert prediction_share(seconds, ("act", "wait")) == 0.5
    assert prediction_share({"env": 3.0}) == 0.0


def test_the_proposals_figures():
    """40 % of the time, twice as fast: 20 % less time, a quarter more predictions."""
    assert gain(0.4, 2.0) == pytest.approx(1.25)
    assert 1 / gain(0.4, 2.0) == pytest.approx(0.8)
    assert gain(0.4, math.inf) == pytest.approx(1 / 0.6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_gain_is_the_ratio_of_two_simulated_runs(share):
    predicting, other, steps = share, 1 - share, 100
    before = sum(predicting + other for _ in range(steps))
    after = sum(predicting / 3 + other + 0.05 for _ in range(steps))
    assert gain(share, 3.0, overhead=0.05) == pytest.approx(before / after)


def test_no_speed_up_no_gain_and_a_slow_down_costs():
    assert gain(0.7, 1.0) == 1.0
    assert gain(0.7, 0.5) < 1.0
    assert gain(1.0, math.inf) == math.inf


def test_a_sheet_sets_what_was_measured_beside_what_the_law_allows():
    rows = sheet({"act": 4.0, "env": 6.0}, {"student": 2.0, "int8": 4.0, "none": 1.0}, {"student": 1.2})
    student, int8, none = rows
    assert (student.name, student.share, student.predicted) == ("student", 0.4, pytest.approx(1.25))
    assert student.bound == int8.bound == pytest.approx(1 / 0.6)
    assert student.reached == pytest.approx(0.8)
    assert int8.predicted == pytest.approx(1 / 0.7)
    assert math.isnan(int8.measured)
    assert math.isnan(int8.reached)
    assert math.isnan(none.reached)
