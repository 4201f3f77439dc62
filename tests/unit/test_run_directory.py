"""The directory of a run: never overwritten, one segment a start, one file that opens all of it."""

import json
import os
import re
from dataclasses import replace

import h5py
import pytest

from hpcddrl.config import Config, Env
from hpcddrl.logs.rank_log import RankLog
from hpcddrl.logs.run_dir import RunDirectory, default_path, rank_attributes
from hpcddrl.logs.schema import SCHEMA
from hpcddrl.settings import dump

CONFIG = Config(recipe="test")


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "runs" / "one")
    run.create(CONFIG)
    return run


def write_segment(run, ranks):
    """Start a segment in which rank r writes the row 10 · segment + r."""
    segment = run.start_segment(ranks)
    for rank in range(ranks):
        log = RankLog(run.rank_file(segment, rank), {"world_rank": rank})
        log.append("waiting", {"cpu": 10.0 * segment + rank})
        log.flush()
    return segment


def test_a_new_run_has_its_configuration(run):
    assert run.config() == CONFIG
    assert json.loads((run.path / "config.json").read_text()) == dump(CONFIG)
    assert run.segments == []


def test_an_empty_directory_may_be_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    RunDirectory(tmp_path / "empty").create(CONFIG)
    assert RunDirectory(tmp_path / "empty").config() == CONFIG


def test_a_run_is_never_overwritten(run):
    with pytest.raises(ValueError, match=r"^--out .*one: exists and is not empty; .*--resume"):
        run.create(replace(CONFIG, seed=9))
    assert run.config() == CONFIG


@pytest.mark.parametrize("make", ["file", "full"])
def test_neither_a_file_nor_somebody_elses_directory_is_taken(tmp_path, make):
    path = tmp_path / "there"
    if make == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty"):
        RunDirectory(path).create(CONFIG)
    assert (path if make == "file" else path / "notes.txt").read_text() == "mine"


def test_a_directory_that_cannot_be_written_is_an_error_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^--out .*cannot be written: .*; choose another$"):
        RunDirectory(tmp_path / "file" / "run").create(CONFIG)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"recipe": "x", "foo": 1}'])
def test_what_is_no_run_is_an_error(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"^\S"):
        RunDirectory(tmp_path).config()


def test_each_start_is_a_segment_and_one_file_opens_all(run):
    assert [write_segment(run, 3), write_segment(run, 2)] == [1, 2]
    assert run.segments == [1, 2]
    with h5py.File(run.path / "run.h5", "r") as file:
        assert file.attrs["schema"] == SCHEMA
        for segment, ranks in ((1, 3), (2, 2)):
            assert sorted(file[f"segments/{segment:04d}/ranks"]) == [f"{r:04d}" for r in range(ranks)]
            for rank in range(ranks):
                table = file[f"segments/{segment:04d}/ranks/{rank:04d}/waiting/cpu"]
                assert table[:].tolist() == [10.0 * segment + rank]
        assert sorted(file["ranks"]) == ["0000", "0001"], "the newest segment's"
        assert file["ranks/0001/waiting/cpu"][0] == 21.0
        assert file["ranks/0001"].attrs["world_rank"] == 1


def test_the_run_still_opens_after_it_was_moved(run):
    write_segment(run, 1)
    elsewhere = run.path.parent / "moved"
    os.rename(run.path, elsewhere)
    with h5py.File(elsewhere / "run.h5", "r") as file:
        assert file["ranks/0000/waiting/cpu"][0] == 10.0


def test_ranks_that_left_no_file_in_an_earlier_segment_are_not_linked(run):
    run.start_segment(2)  # and killed before anything was written
    write_segment(run, 1)
    with h5py.File(run.path / "run.h5", "r") as file:
        assert "segments/0001/ranks" not in file
        assert sorted(file["segments/0002/ranks"]) == ["0000"]


def test_paths_sort_as_numbers_do(run):
    assert run.rank_file(2, 7) == run.path / "segments" / "0002" / "rank-0007.h5"
    assert run.checkpoints("group-0001") == run.path / "checkpoints" / "group-0001"


def test_the_summary_is_plain_json_and_is_replaced_as_a_whole(run):
    run.write_summary({"frames": 10, "return_mean": None})
    run.write_summary({"frames": 20, "phase_share": {"actor": {"env": 0.5}}})
    assert json.loads((run.path / "summary.json").read_text()) == {
        "frames": 20,
        "phase_share": {"actor": {"env": 0.5}},
    }
    with pytest.raises(ValueError, match="JSON compliant"):
        run.write_summary({"return_mean": float("nan")})
    assert json.loads((run.path / "summary.json").read_text())["frames"] == 20


@pytest.mark.parametrize(("name", "expected"), [("ALE/Pong-v5", "ALE-Pong-v5"), ("my.module:Env", "my.module-Env")])
def test_the_default_path_names_recipe_environment_and_utc_time(name, expected):
    path = default_path(replace(CONFIG, env=Env(id=name)))
    assert re.fullmatch(rf"runs/test-{re.escape(expected)}-\d{{8}}T\d{{6}}Z", str(path))


def test_a_ranks_attributes_say_where_its_data_come_from(tmp_path):
    attributes = rank_attributes(CONFIG, role="actor", group=1, world_rank=2, world_size=4)
    expected = {"schema", "recipe", "config", "git_commit", "git_dirty", "role", "group", "world_rank", "world_size"}
    assert expected | {"host", "slurm_job_id", "started", "versions"} == set(attributes)
    assert json.loads(attributes["config"]) == dump(CONFIG)
    assert attributes["started"].endswith("+00:00")
    assert {"python", "numpy", "torch", "mpi4py", "h5py"} <= set(json.loads(attributes["versions"]))
    log = RankLog(tmp_path / "rank-0002.h5", attributes)
    with h5py.File(log.path, "r") as file:
        assert file.attrs["world_size"] == 4
