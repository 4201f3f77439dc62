"""Runs while they go on: the terminal's picture and TensorBoard's scalars, of runs whose every number is known."""

import os
import shutil
import struct
import sys

import numpy as np
import pandas as pd
import pytest
from tensorboardX.proto.event_pb2 import Event
from written_runs import CATCH, STEPS, config_of, write_run

from hpcddrl.commands.live.board import Board
from hpcddrl.commands.live.follow import follow, gently
from hpcddrl.commands.live.now import now_of
from hpcddrl.commands.live.picture import sparkline
from hpcddrl.commands.live.scalars import Scalars, scalars
from hpcddrl.config import Budget
from hpcddrl.logs.read import read_runs
from hpcddrl.runtime import board as tensorboard
from hpcddrl.types import Stage

ROWS = 40


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Let no run count as cut off for being silent, however long the machine takes for a test."""
    monkeypatch.setattr("hpcddrl.logs.read.SILENT_INTERVALS", 1e6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with one run that goes on: two groups of learner and actor, of which the first 40 seconds are there."""
    folder = tmp_path_factory.mktemp("live")
    config = config_of("group_ensemble", 4, budget=Budget(frames=16_000, seconds=1000))
    write_run(folder / "one", config, rows=ROWS, end=False)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return read_runs([folder])


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder / "one", tmp_path / "one")


# --- where it stands


def test_the_numbers_of_a_run_are_those_that_were_written(run):
    now = now_of(run)
    assert (now.seconds, now.frames, now.frames_per_s) == (ROWS, 2 * STEPS * ROWS, 2 * STEPS)
    assert now.done == 0.5
    assert now.left_s == pytest.approx(40), "the frames are what ends it, not the seconds"
    assert (now.updates, now.episodes) == (2 * 5 * ROWS, 2 * ROWS)
    learner, actor = now.roles
    assert (learner.role, learner.ranks, learner.trained) == ("learner", 2, 100)
    assert (actor.role, actor.ranks, actor.env_steps, actor.predictions) == ("actor", 2, 2 * STEPS, 2 * STEPS)
    assert actor.shares["env"] == pytest.approx(0.5)
    assert actor.processors == pytest.approx(0.8)
    assert actor.memory == pytest.approx(2 * (1e8 + ROWS))
    assert now.returns[CATCH].now == pytest.approx(np.mean(range(1, ROWS + 1)))
    assert now.returns[CATCH].extreme == ROWS
    assert (now.lag.now, now.lag.extreme) == (2, 4)
    met = {"divergence": 0.5 / ROWS, "disagreement": 0.2, "kl": 0.1 / ROWS}
    assert now.exchange == pytest.approx({"peers": 1, "age": 3} | met)
    assert now.silent == {}


def test_the_stage_is_the_one_entered_last(run):
    assert now_of(run).stage is None
    stages = pd.DataFrame({"rank": [0, 1, 0], "stage": [0, 0, 1], "seconds": [0.0, 0.1, 25.0]})
    assert now_of(run._replace(tables={**run.tables, "stages": stages})).stage == (Stage.MIDDLE, 25.0)


def test_rates_are_of_the_last_half_minute(copy):
    whole = now_of(read_runs([copy]))
    write_run(copy, config_of("group_ensemble", 4), rows=5, frames_before=8000, end=False)
    resumed = now_of(read_runs([copy]))
    assert whole.frames_per_s == resumed.frames_per_s == 2 * STEPS
    assert (resumed.seconds, resumed.frames) == (ROWS + 5, 8000 + 5 * 2 * STEPS)


def test_a_rank_that_writes_no_more_is_named_and_does_not_hold_up_the_rest(tmp_path):
    config = config_of("group_ensemble", 4)
    whole, cut = (write_run(tmp_path / name, config, rows=rows, end=False) for name, rows in (("a", 40), ("b", 20)))
    shutil.copy(cut / "segments/0001/rank-0003.h5", whole / "segments/0001/rank-0003.h5")
    now = now_of(read_runs([whole]))
    assert now.silent == {3: 20}
    assert now.seconds == 40
    assert now.frames_per_s < 2 * STEPS


def test_a_run_without_a_row_has_no_numbers_and_no_crash(tmp_path, command):
    write_run(tmp_path / "new", rows=0, end=False)
    assert now_of(read_runs([tmp_path / "new"])).roles == ()
    code, out, err = command("watch", tmp_path / "new", "--once")
    assert (code, err) == (0, "")
    assert "no episode has ended yet" in out


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([1, 2, 3, 8], "▁▂▃█"), ([5, 5], "▄▄"), ([np.nan, 0, 7], " ▁█"), ([np.nan], ""), ([], "")],
)
def test_sparkline(values, drawn):
    assert sparkline(np.array(values, float)) == drawn


# --- watch


def test_one_picture_has_what_there_is_to_know(folder, command):
    code, out, err = command("watch", folder, "--once")
    assert (code, err) == (0, "")
    for words in (
        "one  group_ensemble on hpcddrl/Catch-v0, 4 ranks, seed 1  running",
        "50%  0:00:40, ETA 0:00:40  8k frames, 200/s",
        "learner × 2",
        "actor × 2",
        "env 50% act 30% wait 20%",
        "last 100 episodes of 80; best 40",
        "▁",
        "peers 1, age 3 updates",
        "updates; greatest 4",
    ):
        assert words in out
    assert "\x1b" not in out, "colours are for terminals"


def test_it_draws_again_until_the_run_has_ended(copy):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 2:
            write_run(copy, config_of("group_ensemble", 4), rows=3, frames_before=8000)

    states = [state.runs["state"].iloc[0] for state in follow([copy], 7.0, sleep)]
    assert states == ["running", "running", "ended"]
    assert all(seconds >= 7 for seconds in slept)


def test_it_takes_no_more_than_its_share_of_the_processors(copy, monkeypatch):
    """What is done with a picture counts too."""
    clock, slept = [0.0], []
    monkeypatch.setattr("time.process_time", lambda: clock[0])
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(4))
    for _ in zip(range(3), follow([copy], 1.0, slept.append), strict=False):
        clock[0] += 0.5
    assert slept == [0.5 / (0.005 * 4)] * 2


def test_between_two_readings_it_gives_way_to_the_ranks(monkeypatch):
    did = []
    monkeypatch.setattr("os.setpriority", lambda *what: did.append(what))
    monkeypatch.setattr("time.sleep", did.append)
    gently(3.0)
    assert did == [(os.PRIO_PROCESS, 0, 19), 3.0]


def test_watching_a_run_that_has_ended_ends(tmp_path, command):
    write_run(tmp_path / "old", rows=3)
    code, out, _ = command("watch", tmp_path / "old")
    assert code == 0
    assert "ended by seconds" in out
    assert "ETA" not in out


def test_watching_leaves_a_run_as_it_was(copy, command):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert command("watch", copy, "--once")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


@pytest.mark.parametrize("name", ["watch", "tensorboard"])
@pytest.mark.parametrize(
    ("there", "complaint"),
    [
        ("nothing", "no such directory; give a run's"),
        ("an empty directory", "no run in this directory"),
        ("another program's files", "no run in this directory"),
        ("a run of which nothing is written", "has begun, but no rank has written yet"),
        ("a damaged run", "no rank's file can be read"),
    ],
)
def test_a_directory_without_a_run_is_one_line(name, there, complaint, tmp_path, command):
    path = tmp_path / "x"
    if there != "nothing":
        path.mkdir()
    if there == "another program's files":
        (path / "notes.txt").write_text("hello")
    if there == "a run of which nothing is written":
        (path / "config.json").write_text("{}")
    if there == "a damaged run":
        (path / "segments" / "0001").mkdir(parents=True)
        (path / "segments" / "0001" / "rank-0000.h5").write_text("no HDF5")
    code, out, err = command(name, path)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


def test_of_several_runs_one_must_be_named(tmp_path, command):
    for name in ("a", "b"):
        (tmp_path / name / "segments").mkdir(parents=True)
    code, _, err = command("watch", tmp_path, "--once")
    assert code == 2
    assert "2 runs; name one of them, the newest is" in err


# --- TensorBoard


def events(folder):
    """Return what is in a folder's files, as TensorBoard reads them: records of length, sum, data, sum."""
    (file,) = folder.glob("events.out.tfevents.*")
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        event = Event.FromString(data[12 : 12 + length])
        found += [(v.tag, event.step, event.wall_time, v.simple_value) for v in event.summary.value]
        data = data[16 + length :]
    return found


def curve(folder, tag):
    """Return a curve as rows of step, seconds since the first, and value."""
    rows = [(step, when, value) for name, step, when, value in events(folder) if name == tag]
    return [(step, round(when - rows[0][1], 3), pytest.approx(value)) for step, when, value in rows]


def test_scalars_stand_at_their_frames_and_seconds(run, folder, tmp_path, command):
    assert command("tensorboard", folder, "--every", 10, "--out", tmp_path)[0] == 0
    board = tmp_path / "one"
    ends = (10, 20, 30, 40)
    steps = [(2 * STEPS * t, float(t - 10)) for t in ends]
    assert curve(board, "rate/env_steps_per_s") == [(*place, 2 * STEPS) for place in steps]
    assert curve(board, "share_actor/env") == [(*place, 0.5) for place in steps]
    assert curve(board, "learning/lag_mean/group_1") == [(*place, 2.0) for place in steps]
    assert curve(board, f"return/{CATCH}") == [(2 * STEPS * t, t - 10.0, (t + 1) / 2) for t in ends]
    began = np.array([when for tag, _, when, _ in events(board) if tag == "share_actor/env"])[0] - 10
    assert abs(began - run.ranks["started"].map(lambda s: np.datetime64(s[:19]).astype(int)).min()) < 2


def test_what_was_done_anew_is_left_out(copy):
    write_run(copy, config_of("group_ensemble", 4), rows=20, frames_before=4000, end=False)
    found = scalars(read_runs([copy]), 5.0)
    assert (np.diff(found.frames) >= 0).all()
    assert found.seconds.tolist() == [5, 10, 15, 20, 45, 50, 55, 60]
    assert all(len(values) == len(found.seconds) for values in found.curves.values())


def test_a_board_that_follows_writes_each_scalar_once(tmp_path):
    def first(n):
        places = np.arange(1.0, n + 1)
        return Scalars(places, 10 * places, {"x": places, "y": np.where(places < 3, np.nan, places)})

    with Board(tmp_path / "board", started=0.0) as board:
        assert [board.write(first(n)) for n in (2, 2, 4)] == [2, 0, 4]
    assert [(tag, step) for tag, step, _, _ in events(tmp_path / "board")] == [
        *(("x", step) for step in (10, 20, 30, 40)),
        ("y", 30),
        ("y", 40),
    ]


def test_exporting_again_replaces_what_was_exported_and_nothing_else(copy, command):
    for _ in range(2):
        assert command("tensorboard", copy)[0] == 0
    assert len(events(copy / "tensorboard")) > 0, "one file, not two"
    (copy / "tensorboard" / "notes.txt").write_text("mine")
    code, _, err = command("tensorboard", copy)
    assert code == 2
    assert "holds other files than TensorBoard's; choose another folder with --out" in err


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("watch", "pandas", "report"), ("tensorboard", "tensorboardX", "tensorboard")]
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(name, package, extra, copy, command, monkeypatch):
    for module in ("live.board", "live.follow", "live.now", "live.picture", "live.scalars"):
        monkeypatch.delitem(sys.modules, f"hpcddrl.commands.{module}", raising=False)
    for module in ("hpcddrl.logs.read", "hpcddrl.logs.axes"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    code, _, err = command(name, copy)
    assert code == 2
    assert f"{name}: the package {package!r} is missing; python -m pip install 'hpcddrl[{extra}]'" in err


def test_a_run_has_its_scalars_written_beside_it_and_whole_at_its_end(tmp_path):
    run = write_run(tmp_path / "one", rows=12)
    line = tensorboard.Board(run).finish()
    assert line.startswith("TensorBoard: "), line
    assert " scalars of 1 run in " in line
    assert len(list((run / "tensorboard").glob("events.*"))) == 1


def test_without_its_package_a_run_with_a_board_does_not_start(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"the package 'tensorboardX' is missing; .*hpcddrl\[tensorboard\]"):
        tensorboard.require()
