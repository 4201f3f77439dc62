"""Runs as tables: what was written is read, joined over segments by frames; what is broken is named."""

import json
import os
import shutil
import time

import h5py
import numpy as np
import pandas as pd
import pytest
from written_runs import STEPS, config_of, write_run

from hpcddrl.logs.axes import timed, total
from hpcddrl.logs.read import AXES, ORIGIN, RENAMED, find, only, read_runs
from hpcddrl.logs.schema import COLUMNS
from hpcddrl.settings import dump


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a learner and two actors, ten seconds long."""
    return write_run(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


def rank_file(run, rank, segment=1):
    return run / "segments" / f"{segment:04d}" / f"rank-{rank:04d}.h5"


def read(*paths):
    return read_runs(paths)


def test_every_row_is_there_with_where_it_comes_from(run):
    runs = read(run)
    timing = runs.tables["timing"]
    assert len(timing) == 30
    assert set(timing["run"]) == {"one"}
    assert timing.groupby("rank")["role"].first().tolist() == ["learner", "actor", "actor"]
    assert set(timing.loc[timing["role"] == "actor", "game"]) == {"hpcddrl/Catch-v0"}
    assert timing.loc[timing["rank"] == 1, "env"].tolist() == [0.5] * 10, "the phase, not the environment's id"
    assert runs.tables["episodes"]["return"].tolist() == [*range(1, 11)] * 2
    row = runs.runs.iloc[0]
    assert (row["recipe"], row["seed"], row["ranks"], row["state"], row["reason"]) == (
        "impala",
        1,
        3,
        "ended",
        "seconds",
    )
    assert runs.configs["one"] == dump(config_of())
    assert runs.problems == ()


def test_tables_below_a_tag_have_it_as_a_column(run):
    traffic = read(run).tables["traffic"]
    assert traffic.groupby("tag")["bytes"].max().to_dict() == {"rollout": 20000, "weights": 40000}
    assert set(traffic.loc[traffic["tag"] == "rollout", "role"]) == {"actor"}


def test_every_table_and_column_of_the_schema_is_there_with_its_unit(run):
    runs = read(run)
    for column, (unit, _) in COLUMNS.items():
        table, *_, name = column.split("/")
        assert name in runs.tables[table]
        assert runs.columns.get(f"{table}/{name}", (unit,))[0] == unit
    assert runs.columns["timing/env"] == COLUMNS["timing/env"]
    assert runs.columns["traffic/bytes"] == COLUMNS["traffic/rollout/bytes"]
    assert runs.tables["learning"]["kl"].isna().all(), "never written"
    for table in runs.tables.values():
        assert {*ORIGIN, *AXES} <= set(table.columns)
    assert len(runs.tables["staleness"]) == 0


def test_each_rows_place_on_the_jobs_axes(run):
    tables = read(run).tables
    progress = tables["progress"]
    np.testing.assert_allclose(progress["job_frames"], 2 * STEPS * progress["time"])
    assert (progress["seconds"] == progress["time"]).all()
    assert tables["exchange"]["time"].tolist() == [*range(1, 11)], "by version"
    assert tables["episodes"]["time"].tolist() == [*range(1, 11)] * 2, "by the rank's own frames"
    assert tables["traffic"].groupby("tag")["time"].max().tolist() == [10, 10]


def test_the_members_of_an_ensemble_stand_beside_the_group_that_hears_them(run):
    peers = read(run).tables["peers"]
    assert set(peers["group"]) == {0}, "who wrote the row"
    assert peers["member"].tolist() == [0, 1] * 10, "of whom it tells"
    assert peers["time"].tolist() == [t for t in range(1, 11) for _ in range(2)], "by version, two rows each"
    assert read(run).columns["peers/member"] == COLUMNS["peers/group"]


def test_no_column_of_a_file_is_lost_to_those_that_reading_adds():
    for column in COLUMNS:
        table, *_, name = column.split("/")
        assert RENAMED.get((table, name), name) not in {*ORIGIN, *AXES} - {"time"}, column


def test_a_table_that_began_late_is_placed_by_its_last_rows():
    progress = pd.DataFrame({"time": [1.0, 2, 3], "frames": [0.0, 5, 10], "updates": [0.0, 1, 2]})
    tables = timed({"progress": progress, "learning": pd.DataFrame({"loss": [7.0, 8]})})
    assert tables["learning"]["time"].tolist() == [2, 3]


def test_a_sum_of_polylines_is_that_of_their_values_everywhere():
    rng = np.random.default_rng(0)
    lines = [(np.cumsum(rng.random(n)), np.cumsum(rng.random(n))) for n in (1, 3, 8)]
    lines.append((np.array([1.0, 1.0, 2.0]), np.array([3.0, 3.0, 5.0])))  # two reports at once
    at, summed = total(lines)
    for x in (0.0, 0.1, 0.77, 1.5, 3.0, 99.0):
        expected = sum(np.interp(x, np.r_[0, t], np.r_[0, y]) for t, y in lines)
        assert np.interp(x, at, summed) == pytest.approx(expected, abs=1e-9)


def test_segments_are_joined_by_frames_and_what_was_done_anew_is_marked(copy):
    write_run(copy, rows=5, frames_before=1500.0)  # the checkpoint was at second 7.5 of ten
    runs = read(copy)
    progress = runs.tables["progress"]
    first, second = (progress[(progress["segment"] == s) & (progress["rank"] == 1)] for s in (1, 2))
    assert second["seconds"].tolist() == [11, 12, 13, 14, 15]
    assert second["job_frames"].tolist() == [1700, 1900, 2100, 2300, 2500]
    assert first["superseded"].tolist() == [False] * 7 + [True] * 3
    assert not second["superseded"].any()
    assert runs.runs["segments"].iloc[0] == 2


def test_a_segment_of_an_older_program_goes_on_from_all_before_it_and_says_so(copy):
    write_run(copy, rows=2)
    for rank in range(3):
        with h5py.File(rank_file(copy, rank, 2), "r+") as file:
            del file.attrs["frames_before"]
    runs = read(copy)
    assert runs.tables["progress"]["job_frames"].max() == 2000 + 2 * 2 * STEPS
    assert "segment 2 does not say with how many frames it began" in runs.problems[0].text


# --- damage


def damage(path, how):
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "empty":
        os.truncate(path, 0)
    else:
        path.write_bytes(b"not HDF5 " * 100)


@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "garbage"])
def test_a_damaged_file_is_named_and_the_rest_read(copy, how):
    damage(rank_file(copy, 2), how)
    runs = read(copy)
    (problem,) = runs.problems
    assert "segment 1, rank 2: rank-0002.h5" in problem.text
    assert "\n" not in problem.text
    assert set(runs.tables["progress"]["rank"]) == {0, 1}


def test_a_broken_table_is_named_and_the_others_read(copy):
    with h5py.File(rank_file(copy, 1), "r+") as file:
        del file["episodes/return"]
        file.create_group("episodes/return")  # a group where a column should be
    runs = read(copy)
    (problem,) = runs.problems
    assert "segment 1, rank 1: its table episodes is broken" in problem.text
    assert set(runs.tables["episodes"]["rank"]) == {2}
    assert set(runs.tables["progress"]["rank"]) == {0, 1, 2}


def test_a_run_that_lost_all_its_files_is_an_error_in_one_line(copy):
    for rank in range(3):
        damage(rank_file(copy, rank), "truncated")
    with pytest.raises(ValueError, match=r"copy: no rank's file can be read: segment 1, rank 0: [^\n]*$"):
        read(copy)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_lost_configuration_is_taken_from_a_ranks_file(copy, text):
    (copy / "config.json").write_text(text)
    runs = read(copy)
    assert runs.configs["copy"] == dump(config_of())
    assert "config.json cannot be read" in runs.problems[0].text


def test_a_segment_of_which_there_is_nothing_is_named(copy):
    (copy / "segments" / "0002").mkdir()
    assert [problem.text for problem in read(copy).problems] == ["segment 2: no rank has written a file"]


def test_a_file_of_another_program_is_refused_in_one_line(copy):
    with h5py.File(rank_file(copy, 0), "r+") as file:
        del file.attrs["started"]
    with pytest.raises(ValueError, match=r"rank-0000.h5: has no attribute started; it is no file of hpcddrl's$"):
        read(copy)


@pytest.mark.parametrize(("schema", "way_out"), [(99, "update hpcddrl"), (0, "it is no file of hpcddrl's")])
def test_another_schema_is_refused_in_one_line(copy, run, schema, way_out):
    with h5py.File(rank_file(copy, 0), "r+") as file:
        file.attrs["schema"] = schema
        del file["progress"]  # who knows what another schema has
    with pytest.raises(ValueError, match=rf"^\S+rank-0000.h5: schema {schema} of the files, .*{way_out}$"):
        read(copy)
    runs = read(copy, run)
    assert runs.runs["run"].tolist() == ["one"]
    assert runs.problems[0].text.startswith("left out: ")


# --- directories and states


def test_what_is_no_run_is_an_error_in_one_line(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"no run in this directory; give a run's, or a folder of runs$"):
        read(tmp_path)
    with pytest.raises(ValueError, match="no such directory"):
        read(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="has begun, but no rank has written yet"):
        read(tmp_path)


def test_a_folder_of_runs_is_read_and_each_run_once(run, tmp_path):
    for name in ("a/x", "b/x"):
        shutil.copytree(run, tmp_path / name)
    runs = read(tmp_path, tmp_path / "a" / "x", run)
    assert [name.split("/")[-2:] for name in runs.runs["run"]] == [["a", "x"], ["b", "x"], [run.parent.name, "one"]]
    name = runs.runs["run"].iloc[1]
    one = only(runs, name)
    assert len(one.tables["timing"]) == 30
    assert set(one.ranks["run"]) == {name}
    assert find(tmp_path / "a" / "x") == [tmp_path / "a" / "x"]


@pytest.mark.parametrize(("silent_s", "state"), [(0, "running"), (1000, "cut off")])
def test_a_run_without_a_summary_runs_or_was_cut_off(tmp_path, silent_s, state):
    run = write_run(tmp_path / "run", rows=1, end=False)
    for file in run.glob("segments/*/*.h5"):
        os.utime(file, (time.time() - silent_s,) * 2)
    assert read(run).runs["state"].iloc[0] == state


def test_an_old_summary_is_not_that_of_a_resumed_run(copy):
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {"ended": "2020-01-01T00:00:00Z"}))
    write_run(copy, rows=1, end=False)
    assert read(copy).runs["state"].iloc[0] == "running"


def test_a_run_before_its_first_row_is_read(tmp_path):
    run = write_run(tmp_path / "run", rows=0, end=False)
    runs = read(run)
    assert all(len(table) == 0 for table in runs.tables.values())
    assert len(runs.ranks) == 3
