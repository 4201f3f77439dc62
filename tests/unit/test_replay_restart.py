"""A replay goes on from its state as if nothing had happened, and its contents find room in others."""

from itertools import chain

import numpy as np
import pytest
from episodes import Streams, spec

from hpcddrl.logs.packing import pack, unpack
from hpcddrl.replay.priorities import Proportional, RankBased, Uniform
from hpcddrl.replay.replay import Replay, histories

GAMMA, B, N = 0.9, 3, 3
IMAGE = spec((3, 4), 4)
every_kind = pytest.mark.parametrize("kind", [Uniform, Proportional, RankBased])


def replay_of(kind, actors=2, capacity=60, seed=0):
    return Replay(IMAGE, actors * B, capacity, N, GAMMA, kind, seed)


def fill(replay, streams, rollouts, seed=0):
    """Insert rollouts of some lengths, learn from some of what is there."""
    rng = np.random.default_rng(seed)
    for _ in range(rollouts):
        for number, actor in enumerate(streams):
            replay.insert(number * B, actor.rollout(int(rng.integers(1, 7))))
        if len(replay):
            drawn = replay.sample(4)
            replay.update(drawn.keys, rng.normal(size=4))
            replay.mark(drawn.keys)


def streams_of(actors=2, seed=0):
    return [Streams(IMAGE, B, seed + i) for i in range(actors)]


def through_a_file(state):
    packed = pack(state)
    return unpack(np.frombuffer(b"".join(bytes(piece) for piece in packed.pieces()), np.uint8).copy())


@every_kind
@pytest.mark.parametrize("rollouts", [1, 3, 20], ids=["begun", "filling", "full"])
def test_a_restored_replay_goes_on_alike(kind, rollouts):
    first, streams = replay_of(kind), streams_of()
    fill(first, streams, rollouts)
    second = replay_of(kind, seed=5)
    second.restore(through_a_file(first.state()))
    assert (len(second), second.inserted, second.pending) == (len(first), first.inserted, first.pending)
    assert (second.used, second.dropped) == (0, 0)
    used, dropped = first.used, first.dropped
    for _ in range(15):
        for number, actor in enumerate(streams):
            rollout = actor.rollout(3)
            assert first.insert(number * B, rollout) == second.insert(number * B, rollout)
        ours, theirs = first.sample(5, 0.4), second.sample(5, 0.4)
        for name in ours._fields:
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
        for replay in (first, second):
            replay.update(ours.keys, np.arange(5.0))
            replay.mark(ours.keys)
    assert (second.used, second.dropped) == (first.used - used, first.dropped - dropped)
    assert second.pending == first.pending


def held(replay):
    """Return what can be drawn, with whether it was learned from before and its weight, as a sorted list."""
    slots = np.flatnonzero(replay._priorities.state()["weights"] > 0)
    keys = replay._ring.key(slots)
    found = replay._ring.gather(keys, N, GAMMA)
    weights, used = replay._priorities.state()["weights"][slots], replay._state[slots] == 3
    rows = zip(found.reward, found.action, found.version, found.next_observation, used, weights, strict=True)
    return sorted((float(r), int(a), int(v), o.tobytes(), bool(u), round(float(w), 9)) for r, a, v, o, u, w in rows)


def shared(kind, before, actors, capacity):
    """Deal what some replays held to others, with so many actors each."""
    every = [h for replay in before for h in histories(through_a_file(replay.state()), B)]
    after = [replay_of(kind, count, capacity, seed=9) for count in actors]
    for number, replay in enumerate(after):
        replay.restore({"histories": every[number :: len(after)]})
    return after


@pytest.mark.parametrize("kind", [Uniform, Proportional])
@pytest.mark.parametrize("actors", [[1], [2], [4], [1, 1], [2, 1, 1]])
def test_all_that_was_held_is_held_on_another_layout(kind, actors):
    before = [replay_of(kind, seed=1), replay_of(kind, seed=2)]
    for number, replay in enumerate(before):
        fill(replay, streams_of(seed=10 * number), 20, number)
    after = shared(kind, before, actors, capacity=400)
    assert sorted(chain(*map(held, after))) == sorted(chain(*map(held, before)))
    assert sum(map(len, after)) == sum(map(len, before))
    lost = sum(replay.dropped for replay in after)  # those that waited for steps that never come
    assert sum(r.pending for r in after) + lost == sum(r.pending for r in before)
    assert 0 < lost <= 2 * 2 * B * N


@every_kind
def test_what_finds_no_room_is_counted(kind):
    before = [replay_of(kind, seed=1), replay_of(kind, seed=2)]
    for number, replay in enumerate(before):
        fill(replay, streams_of(seed=10 * number), 20, number)
    (after,) = shared(kind, before, [1], capacity=30)
    assert 0 < len(after) < sum(map(len, before))
    assert after.pending + after.dropped == sum(r.pending for r in before)


@every_kind
def test_new_rollouts_are_not_joined_to_what_came_from_elsewhere(kind):
    before = replay_of(kind)
    fill(before, streams_of(), 20)
    (after,) = shared(kind, [before], [2], capacity=200)
    known = {row[:4] for row in held(after)}
    streams = streams_of(seed=50)
    for _ in range(3):
        for number, actor in enumerate(streams):
            after.insert(number * B, actor.rollout(5))
    expected = replay_of(kind, capacity=200)
    for number, actor in enumerate(streams_of(seed=50)):
        for _ in range(3):
            expected.insert(number * B, actor.rollout(5))
    assert {row[:4] for row in held(after)} == known | {row[:4] for row in held(expected)}
