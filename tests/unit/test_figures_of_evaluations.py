"""Evaluations beside the training and Amdahl's sheet, as they are drawn: numbers by hand, and what lacks."""

import json

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from written_runs import CATCH, STEPS, config_of, write_run

from hpcddrl.commands.live.now import now_of
from hpcddrl.commands.live.scalars import scalars
from hpcddrl.commands.reporting.compression import amdahl_sheet, timed_sheet
from hpcddrl.commands.reporting.tables import evaluations
from hpcddrl.compressors.amdahl import gain
from hpcddrl.config import Evaluation
from hpcddrl.config.compression import Student
from hpcddrl.figures.evaluations import evaluation_curves, rounds
from hpcddrl.figures.settings import labelled
from hpcddrl.logs.read import only, read_runs

ROWS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two groups that were evaluated every second, and the same job with a student, which was not."""
    folder = tmp_path_factory.mktemp("runs")
    asked = Evaluation(every_frames=200, sampled=True)
    write_run(folder / "groups", config_of("group_ensemble", 4, evaluation=asked), rows=ROWS, evaluated=float)
    write_run(folder / "student", config_of("group_ensemble", 4, compression=Student()), rows=ROWS)
    write_run(folder / "larger", config_of("group_ensemble", 6, compression=Student()), rows=ROWS)
    return folder


@pytest.fixture(scope="module")
def runs(folder):
    return labelled(read_runs([folder]))


def table(rows):
    """Return a table of evaluations of one run."""
    columns = ["group", "seconds", "return", "superseded"]
    found = pd.DataFrame(rows, columns=columns).assign(run="a", setting="s")
    return found.assign(job_frames=found["seconds"] * 100, low=found["return"] - 1, high=found["return"] + 1)


def test_a_round_is_the_mean_over_groups_where_the_last_of_them_played():
    """The second group is slower; what a resumed segment did anew counts once."""
    made = table([(0, 1, 10, False), (1, 2, 20, False), (0, 5, 30, True), (0, 6, 40, False), (1, 9, 60, False)])
    found = rounds(made, {"a": CATCH})
    assert found[["return", "seconds", "job_frames"]].to_numpy().tolist() == [[15, 2, 200], [50, 9, 900]]
    assert (found["game"] == CATCH).all()


def test_each_group_has_its_line_and_its_band(runs):
    own = only(runs, "groups").tables
    figure = evaluation_curves(own["evaluation"], own["episodes"])
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["training, last 100 episodes", "evaluated, group 0", "evaluated, group 1"]
    line = figure.axes[1].lines[-1].get_xydata()
    np.testing.assert_allclose(line, [[t, t] for t in range(1, ROWS + 1)])
    assert len(figure.axes[0].collections) == 2
    nothing = evaluation_curves(only(runs, "student").tables["evaluation"], own["episodes"])
    assert any("--evaluate-every" in text.get_text() for text in nothing.findobj(mpl.text.Text))


def test_many_groups_are_drawn_as_their_mean():
    made = table([(group, 1 + t, 10 * t + group, False) for group in range(9) for t in range(3)])
    figure = evaluation_curves(made, made.assign(game="")[:0])
    assert figure.axes[0].get_legend_handles_labels()[1] == ["evaluated, mean of 9"]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [4, 14, 24])


def test_watching_and_tensorboard_have_them(folder):
    run = read_runs([folder / "groups"])
    now = now_of(run).evaluated
    assert (now.now, now.extreme, len(now.history)) == (ROWS, ROWS, ROWS)
    assert now_of(read_runs([folder / "student"])).evaluated is None
    assert scalars(run, 2.0).curves["evaluation/return/group_1"].tolist() == [1.5, 3.5, 5.5, 7.5]


def test_the_newest_of_each_network_are_told_with_how_they_played(folder, runs):
    own = only(runs, "groups")
    row = ["while it ran, sampled", f"{5 * ROWS}", f"{STEPS * ROWS}", "10", "8", "7 to 9", "–"]
    assert evaluations(own) == [["group-0000", *row], ["group-0001", *row]]
    score = {"version": 7, "frames": 3000, "returns": [1, 2], "mean": 1.5, "interval": [1, 2], "human_normalised": 0.25}
    played = {"greedy": True, "seed": 5, "sticky_actions": 0.25, "noop_max": None}
    path = folder / "groups" / "evaluation.json"
    path.write_text(json.dumps({"group-0000": score | {"env": "ALE/Pong-v5", "protocol": played}}))
    how = "ALE/Pong-v5: greedy, seeds from 5, sticky actions 0.25"
    assert evaluations(own)[0] == ["group-0000", how, "7", "3k", "2", "1.5", "1 to 2", "25%"]
    path.write_text("{")
    assert len(evaluations(own)) == 2, "what cannot be read is left out"


def test_the_sheet_compares_runs_that_differ_in_compression_alone(runs):
    """Acting takes 30 % in both, and as long for each observation; the larger run has no counterpart."""
    found = amdahl_sheet(runs)
    assert len(found) == 1
    row = found.iloc[0]
    assert row["share"] == pytest.approx(0.3)
    assert (row["speed_up"], row["measured"]) == pytest.approx((1, 1))
    assert (row["predicted"], row["bound"]) == pytest.approx((gain(0.3, 1), 1 / 0.7))
    assert len(amdahl_sheet(only(runs, "student"))) == 0


def test_the_sheet_compares_a_recipe_with_the_one_that_compresses_it(tmp_path):
    """They correct for who acted in different ways, which takes no time."""
    for name in ("ga3c", "nnc_ga3c"):
        write_run(tmp_path / name, config_of(name), rows=ROWS)
    assert len(amdahl_sheet(labelled(read_runs([tmp_path])))) == 1


def test_a_run_has_the_sheet_that_was_timed_for_it(folder):
    path = folder / "student" / "summary.json"
    assert len(timed_sheet(folder / "student")) == 0
    row = {"compressor": "int8", "speed_up": 2.0, "predicted": 1.2, "bound": 1.4, "measured": None, "share": 0.3}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"amdahl": [row]}))
    found = timed_sheet(folder / "student")
    assert found["compressor"].tolist() == ["int8"]
    assert np.isnan(found["measured"].iloc[0])
    assert len(timed_sheet(folder / "nowhere")) == 0
