"""The numbers and tables that rank 0 prints."""

import math

import numpy as np
import pytest

from hpcddrl.comm.placement import place
from hpcddrl.config import Budget, Topology
from hpcddrl.roles.counters import COUNTERS, View
from hpcddrl.runtime.display import Display, bar, clock, number, phase_shares, si

PLACES = place(Topology(groups=1, learners_per_group=1, actors_per_group=2))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (math.nan, "-"), (math.inf, "-")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (999, "999"), (1234, "1.23k"), (4e7, "40M"), (2.5e9, "2.5G")])
def test_si(value, text):
    assert si(value) == text


@pytest.mark.parametrize(("value", "text"), [(-20.06, "-20.1"), (math.nan, "-"), (-math.inf, "-")])
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("done", "text"), [(0, "...."), (0.5, "##.."), (1, "####")])
def test_bar(done, text):
    assert bar(done, 4) == text


def test_shares_are_of_each_roles_wall_time_and_sum_to_one():
    ranks = [
        {"role": "actor", "phases": {"env": 3.0, "wait": 1.0}},
        {"role": "actor", "phases": {"env": 1.0, "wait": 3.0}},
        {"role": "learner", "phases": {"env": 0.0, "wait": 2.0}},
    ]
    assert phase_shares(ranks) == {"actor": {"env": 0.5, "wait": 0.5}, "learner": {"env": 0.0, "wait": 1.0}}


def view(seconds, **columns):
    table = np.full((3, len(COUNTERS)), np.nan)
    for name, values in columns.items():
        table[:, COUNTERS.index(name)] = values
    return View(PLACES, seconds, table)


@pytest.fixture
def display(tmp_path):
    display = Display(tmp_path / "run.log", Budget(frames=1000.0, seconds=None), frames_before=100.0)
    yield display
    display._file.close()


@pytest.mark.parametrize("known", [False, True])
def test_a_line_says_where_the_run_stands_from_the_first_moment_on(display, tmp_path, capsys, known):
    if known:
        display.show(view(0.0, frames=[0, 0, 0], predictions=[0, 0, 0], trained=[0, 0, 0]))
        counters = {"return_mean": [np.nan, 2.0, 4.0], "return_count": [0, 1, 1], "return_best": [-np.inf, 2, 4]}
        rates = {"frames": [0, 200, 200], "predictions": [0, 50, 50], "trained": [80, 0, 0], "updates": [7, 7, 7]}
        lags = {"lag_min": [1, np.nan, np.nan], "lag_mean": [2.5, np.nan, np.nan], "lag_max": [4, np.nan, np.nan]}
        display.show(view(10.0, episodes=[0, 1, 1], idle=[0.5, 0.1, 0.3], **counters, **rates, **lags))
    else:
        display.show(view(0.0))
    line = (tmp_path / "run.log").read_text().splitlines()[-1]
    assert capsys.readouterr().out.splitlines()[-1] == line
    if known:
        for part in ("50%, ETA 0:00:12", "Time 0:00:10", "Frames 500, 40/s", "PPS 10 TPS 8", "Episodes 2, Return 3.0"):
            assert part in line
        assert "best 4.0" in line
        assert "Lag 1/2.5/4" in line
        assert "Updates 7" in line, "of the group, not of each rank"
        assert "learner 50%, actor 20%" in line
    else:
        assert "Return -, best -" in line
        assert "Lag -" in line
        assert "nan" not in line


@pytest.mark.parametrize(
    ("values", "shown"),
    [([np.nan] * 3, None), ([2.5, np.nan, np.nan], "[Evaluated 2.5]"), ([1, np.nan, 4], "[Evaluated 1.0/2.5/4.0]")],
)
def test_a_line_has_the_newest_evaluation_or_least_mean_and_greatest_of_several_groups(
    display, tmp_path, values, shown
):
    display.show(view(10.0, evaluated=values))
    line = (tmp_path / "run.log").read_text()
    assert ("[Evaluated" in line) == (shown is not None)
    assert shown is None or shown in line


def test_only_rank_0_prints(capsys):
    display = Display(None, Budget())
    display.say("hello")
    display.show(view(1.0))
    assert capsys.readouterr().out == ""


def test_placement_is_one_line_a_role_and_host(display, tmp_path):
    display.placement(PLACES, ["a", "a", "a"])
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert lines == ["placement:", "  group   0  learner  rank 0  host a", "  group   0  actor    rank 1, 2  host a"]
