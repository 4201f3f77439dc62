"""Who is called silent, when, and who is told."""

from types import SimpleNamespace

import pytest

from hpcddrl.comm.channel import Traffic
from hpcddrl.comm.roll import RollCall

SILENT_AFTER_S = 10.0


class World:
    """Stands for four ranks; everything sent is taken at once."""

    size = 4

    def __init__(self):
        self.lost = self.silent = self.given_up = frozenset()
        self.told = []

    def Issend(self, what, dest, tag):  # noqa: N802 (as MPI calls it)
        self.told.append(dest)
        return SimpleNamespace(Test=lambda: True)

    def give_up(self, silent):
        self.silent = self.given_up = silent

    def named(self, rank):
        return f"rank {rank}"


@pytest.fixture
def made(monkeypatch):
    """Return a world, its roll call, and a function that lets time pass while some ranks speak."""
    now = [1000.0]
    monkeypatch.setattr("hpcddrl.comm.roll.time.monotonic", lambda: now[0])
    world = World()
    roll, heard = RollCall(world, SILENT_AFTER_S, Traffic()), dict.fromkeys((1, 2, 3), 900.0)

    def call(*speaking, after=0.0, ended=()):
        now[0] += after
        heard.update(dict.fromkeys(speaking, now[0]))
        return [(c.rank, c.what) for c in roll.call(heard, {1, 2, 3} - set(ended) - world.lost)]

    return world, roll, call


def test_nobody_is_silent_before_anybody_could_speak(made):
    world, _, call = made
    assert call() == []  # though the last word is 100 s old
    assert call(after=SILENT_AFTER_S) == []
    assert call(after=1) == [(1, "silent"), (2, "silent"), (3, "silent")]
    assert world.silent == {1, 2, 3}


def test_who_falls_silent_is_told_of_once_to_the_others_and_may_come_back(made):
    world, _, call = made
    call(1, 2, 3)
    assert call(1, 3, after=SILENT_AFTER_S + 1) == [(2, "silent")]
    assert (world.silent, world.told) == ({2}, [1, 3])
    assert call(1, 3, after=SILENT_AFTER_S + 1) == []
    assert world.told == [1, 3]
    assert call(1, 2, 3, after=1) == [(2, "back")]
    assert (world.silent, world.told) == (frozenset(), [1, 3, 1, 2, 3])
    assert world.given_up == frozenset()


def test_who_has_ended_is_not_silent_and_who_has_died_is_lost(made):
    world, _, call = made
    call(1, 2, 3)
    world.lost = frozenset({1})
    assert call(after=SILENT_AFTER_S + 1, ended=[2]) == [(1, "lost"), (3, "silent")]
    assert call(after=SILENT_AFTER_S + 1, ended=[2]) == []
    world.lost = frozenset({1, 3})
    assert call(ended=[2]) == [(3, "lost")]  # a silent one that is killed is not back
    assert world.silent == frozenset()


def test_at_the_end_the_silent_are_given_up_for_good(made):
    world, roll, call = made
    call(1, 2, 3)
    call(1, 3, after=SILENT_AFTER_S + 1)
    roll.finish()
    assert world.given_up == {2}
    assert call(1, 2, after=SILENT_AFTER_S + 1) == [(3, "silent")]  # 2 speaks again, too late
    assert world.given_up == {2, 3}
