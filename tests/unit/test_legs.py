"""Legs: when one ends, what is written between two, and what is said where nothing can be written."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcddrl.comm.channel import Traffic
from hpcddrl.comm.placement import Place, Role
from hpcddrl.logs.restart import Manifest, RestartFolder, Seat
from hpcddrl.logs.timing import Timing
from hpcddrl.roles.control import Control
from hpcddrl.roles.counters import View, counters_for
from hpcddrl.roles.legs import Files, Legs, Start
from hpcddrl.types import Stage, Weights

BEGINNING = Start()


class Alone:
    """All ranks of a job of one."""

    rank, size = 0, 1
    lost = silent = gone = frozenset()


class Part:
    """Something to be remembered."""

    value = 3

    def state(self):
        return {"value": self.value}

    def restore(self, state):
        self.value = state["value"]


def weights(version, frames=0.0):
    return Weights(version, torch.empty(0), frames, stage=Stage.MIDDLE, since=1)


class Job:
    """Legs of one rank, and what they said and did."""

    def __init__(self, path, every=None, enough=lambda frames: False, start=BEGINNING):
        self.said, self.restarted, self.rows = [], [], []
        self.folder = RestartFolder(path / "restart")
        self.control = SimpleNamespace(
            timing=Timing(), counters=counters_for(4, 1), stop=False, ending=False, tick=lambda: None
        )
        self.control.settled = lambda counters: View((Place(Role.LEARNER, 0, 0),), 1.0, np.array([counters[0]]))
        self.control.note = lambda table, **row: self.rows.append(row)
        self.control.begin_leg = lambda number: setattr(self.control, "ending", self.control.stop)
        seats = (Seat("learner", 0, 0),)
        draft = Manifest(
            number=0, recipe="test", config={}, seats=seats, sections=(), versions=(), frames=(), account={}
        )
        self.legs = Legs(
            Alone(),
            self.control,
            Traffic(),
            Files(self.folder, (0,), keep=2),
            draft,
            {"part": Part()},
            start,
            every,
            enough,
            [self.restarted.append],
            self.said.append,
        )

    def stop(self):
        self.control.stop = self.control.ending = True


def test_a_leg_goes_on_until_it_is_told_to_end(tmp_path):
    job = Job(tmp_path)
    assert not job.legs.over(10**6, 1e9)
    job.control.ending = True
    assert job.legs.over(1, 0)


def test_an_exact_leg_ends_after_so_many_updates_or_enough_frames(tmp_path):
    job = Job(tmp_path, every=5, enough=lambda frames: frames >= 100, start=Start(3, version=20))
    assert [job.legs.over(version, 0) for version in (21, 24, 25, 26)] == [False, False, True, True]
    assert [job.legs.covers(update) for update in (0, 4, 5)] == [True, True, False]
    assert job.legs.over(21, 100)
    assert job.legs.version_of(0) == 20
    assert job.legs.between(weights(25, 50.0))
    assert job.restarted == [4]
    assert job.legs.version_of(0) == 25
    assert not job.legs.over(29, 50)
    assert job.legs.over(30, 50)


def test_what_is_between_two_legs_is_all_there_is_to_go_on_from(tmp_path):
    job = Job(tmp_path, start=Start(6, 0, {"frames": 1000.0, "pending": 9.0}))
    job.control.counters.frames, job.control.counters.pending = 50.0, 4.0
    saved = []
    assert job.legs.between(weights(12, 34.0), lambda: saved.append(1))
    assert saved == [1]
    manifest = job.folder.manifest(7)
    assert (manifest.versions, manifest.frames) == ((12,), (34.0,))
    assert (manifest.account["frames"], manifest.account["pending"]) == (1050, 4)
    state = job.folder.read(7, manifest.sections[0])
    assert state == {"part": {"value": 3}, "weights": {"version": 12, "frames": 34.0, "stage": 1, "since": 1}}
    assert job.said[0].startswith("checkpoint 7 at version 12: ")
    assert (job.rows[0]["number"], job.rows[0]["bytes"]) == (7, manifest.sections[0].nbytes)
    assert job.restarted == [], "only exact runs begin anew"
    job.stop()
    assert not job.legs.between(weights(13, 40.0))
    assert job.folder.numbers == [8, 7]


@pytest.mark.parametrize("where", ["folder", "file", "mark", "player"])
def test_what_cannot_be_written_is_said_and_the_run_goes_on(where, tmp_path, monkeypatch):
    job = Job(tmp_path)
    assert job.legs.between(weights(1))

    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        if where != "player":
            method = {"folder": "begin", "file": "write", "mark": "finish"}[where]
            disk.setattr(RestartFolder, method, full)
        assert job.legs.between(weights(2), save=full if where == "player" else lambda: None)
    assert "checkpoint 2 could not be written: rank 0: [Errno 28] No space left on device" in job.said[-1]
    assert job.said[-1].endswith("the newest good one is checkpoint 1")
    assert [p.name for p in job.folder.path.iterdir()] == ["000001"]
    assert job.legs.between(weights(3))
    assert job.folder.numbers == [3, 1]


def test_an_exact_run_that_is_stopped_leaves_the_checkpoints_of_the_uncut_one(tmp_path):
    job = Job(tmp_path, every=5, enough=lambda frames: False)
    assert job.legs.between(weights(5))
    job.stop()
    assert job.legs.over(7, 0)
    assert not job.legs.between(weights(7))
    assert job.folder.numbers == [1]
    assert job.said[-1].endswith("goes on from checkpoint 1")
    assert len(list(job.folder.path.iterdir())) == 1


def test_an_exact_run_that_has_all_its_frames_ends_with_a_checkpoint(tmp_path):
    job = Job(tmp_path, every=5, enough=lambda frames: frames >= 10)
    assert not job.legs.between(weights(3, 10.0))
    assert job.folder.numbers == [1]


def test_the_time_it_takes_is_the_checkpoints(tmp_path):
    job = Job(tmp_path)
    job.legs.between()
    assert job.control.timing.seconds["checkpoint"] > 0
    assert np.isfinite(job.rows[0]["rest"])


def test_on_a_full_disk_rows_wait_for_room_and_it_is_said_once(capsys):
    room = [False, False, True, False]

    def flush():
        if not room.pop(0):
            raise OSError(28, "No space left on device")

    log = SimpleNamespace(path="rank-0000.h5", flush=flush)
    signals, place = SimpleNamespace(received=0), Place(Role.ACTOR, 0, 0)
    control = Control(None, place, None, Timing(), counters_for(1, 1), log, signals, 1.0, 0, None)
    said = []
    for _ in range(4):
        control._flush()
        said.append(capsys.readouterr().err.count("cannot be written, its rows wait for room"))
    assert said == [1, 0, 0, 1]
