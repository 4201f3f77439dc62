"""What a ring gathers, against episodes kept whole in lists."""

import numpy as np
import pytest
from episodes import Streams, assert_equal_transition, spec

from hpcddrl.replay.gathered import empty
from hpcddrl.replay.ring import Ring, ring_bytes
from hpcddrl.types import Continuous

GAMMA = 0.9
B = 3
SPECS = {
    "image-4": spec((3, 4), 4),
    "image-1": spec((3, 4), 1),
    "colour-3": spec((2, 3, 4), 3),
    "vector-1": spec((5,), 1, "float32"),
    "vector-4-box": spec((5,), 4, "float32", Continuous(-np.ones(2), np.ones(2))),
}
every_spec = pytest.mark.parametrize("the_spec", SPECS.values(), ids=SPECS)


class Followed:
    """A ring of two actors' streams, with what it should hold: each frame's place in its stream's lists."""

    def __init__(self, the_spec, length, seed, **ends):
        self.ring = Ring(the_spec, 2 * B, length)
        self.actors = [Streams(the_spec, B, seed + i, **ends) for i in range(2)]
        self.depth, self.length = the_spec.frame_stack, length
        self.times = [{} for _ in self.actors]  # the ring's time of each frame, and where its unbroken stretch opened
        self.newest = [-1, -1]
        self.expected_number = [0, 0]

    def go_on(self, actor, steps, lost=False):
        streams = self.actors[actor]
        start = len(streams.steps[0])
        rollout = streams.rollout(steps)
        if lost:
            return None
        joined = self.newest[actor] >= 0 and int(rollout.number[0]) == self.expected_number[actor]
        assert self.ring.continues(actor * B, rollout) is joined
        self.expected_number[actor] = int(rollout.number[0]) + 1
        if not joined:
            self.opened = max(start - self.depth + 1, 0)
            self.times[actor] = {}
            self.newest[actor] += self.depth
            self.times[actor][start] = self.newest[actor], self.opened
        opened = self.times[actor][start][1]
        for i in range(start + 1, start + steps + 1):
            self.newest[actor] += 1
            self.times[actor][i] = self.newest[actor], opened
        return self.ring.insert(actor * B, rollout)

    def check(self, n):
        """Compare every transition that is held and complete; return how many there are."""
        compared = 0
        for actor, streams in enumerate(self.actors):
            for b in range(B):
                keys, expected = [], []
                for i, (time, opened) in self.times[actor].items():
                    if i >= len(streams.steps[b]) or time < self.newest[actor] - self.length + self.depth:
                        continue
                    transition = streams.transition(b, i, n, GAMMA, opened)
                    if i + 1 in self.times[actor] and transition is not None:
                        keys.append(time * 2 * B + actor * B + b)
                        expected.append(transition)
                compared += self._compare(np.array(keys, np.int64), expected, self.times[actor], n)
        return compared

    def _compare(self, keys, expected, times, n):
        complete = np.array([e["complete"] and e["end"] + 1 in times for e in expected], bool)
        assert self.ring.holds(keys).all()
        np.testing.assert_array_equal(self.ring.complete(keys, n), complete)
        keys, expected = keys[complete], [e for e, c in zip(expected, complete, strict=True) if c]
        np.testing.assert_array_equal(self.ring.key(self.ring.slot(keys)), keys)
        gathered = self.ring.gather(keys, n, GAMMA)
        errors = np.abs(self.ring.errors(keys, n, GAMMA))
        for row, transition in enumerate(expected):
            assert_equal_transition(gathered, row, transition)
            np.testing.assert_allclose(errors[row], transition["error"], rtol=1e-5, atol=1e-6)
        return len(keys)


@every_spec
@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("steps", [1, 6])
@pytest.mark.parametrize("ends", [{"ends": 0.0}, {"ends": 0.15, "lives": 0.1}, {"ends": 0.9}], ids=str)
def test_transitions_are_those_of_the_episodes(the_spec, n, steps, ends):
    """Several times round the ring, with rollouts that end anywhere in an episode."""
    followed = Followed(the_spec, 20, seed=n, **ends)
    compared = 0
    for i in range(64 // steps):
        followed.go_on(0, steps)
        if i % 2:
            followed.go_on(1, steps)
        if i % max(1, 14 // steps) == 0:
            compared += followed.check(n)
    assert compared > 30


@every_spec
@pytest.mark.parametrize("n", [1, 3])
def test_nothing_crosses_the_gap_that_lost_rollouts_leave(the_spec, n):
    rng, followed, compared = np.random.default_rng(n), Followed(the_spec, 30, seed=5), 0
    for _ in range(20):
        followed.go_on(0, int(rng.integers(1, 9)), lost=rng.random() < 0.3)
        compared += followed.check(n)
    assert compared > 100


@every_spec
def test_a_sum_that_runs_into_a_gap_ends_there(the_spec):
    """Whoever asks for it: the replay, which knows that such transitions will never be complete, doesn't."""
    followed = Followed(the_spec, 40, seed=0, ends=0.0)
    before = followed.go_on(0, 6)
    followed.go_on(0, 3, lost=True)
    followed.go_on(0, 6)
    steps = followed.ring.returns(before, 4, GAMMA).steps.reshape(6, B)
    assert (steps.T == [4, 4, 4, 3, 2, 1]).all()


@every_spec
def test_the_keys_that_come_back_are_the_steps_that_are_no_resets(the_spec):
    followed = Followed(the_spec, 20, seed=0, ends=0.4)
    for _ in range(5):
        keys = followed.go_on(1, 6)
        held = followed.times[1].items()
        expected = [
            time * 2 * B + B + b
            for i, (time, _) in sorted(held)
            for b in range(B)
            if followed.newest[1] - 6 <= time < followed.newest[1] and not followed.actors[1].steps[b][i]["reset"]
        ]
        assert keys.tolist() == expected


def test_what_a_rollout_displaces_is_held_before_and_not_after():
    the_spec = SPECS["image-4"]
    ring, streams = Ring(the_spec, B, 15), Streams(the_spec, B, seed=0)
    everything, displaced = np.arange(100 * B), []
    for i in range(20):
        rollout = streams.rollout(4)
        if i in (7, 8, 13):
            continue  # lost
        before, gone = ring.holds(everything), ring.displaced(0, rollout)
        ring.insert(0, rollout)
        after = ring.holds(everything)
        assert set(gone.tolist()) >= set(everything[before & ~after].tolist())
        assert not ring.holds(gone).any()
        displaced += gone.tolist()
    assert len(displaced) == len(set(displaced))


def test_the_steps_of_a_lost_life_are_no_resets():
    the_spec = SPECS["image-4"]
    followed = Followed(the_spec, 40, seed=1, ends=0.0, lives=0.5)
    keys = [followed.go_on(0, 5) for _ in range(6)]
    assert sum(map(len, keys)) == 30 * B
    gathered = followed.ring.gather(np.concatenate(keys)[: 20 * B], 3, GAMMA)
    assert 0 < np.count_nonzero(gathered.discount == 0) < 20 * B
    followed.check(3)


def test_transitions_are_written_to_arrays_made_once():
    followed = Followed(SPECS["image-4"], 30, seed=2)
    keys = np.concatenate([followed.go_on(0, 5) for _ in range(4)])[:20]
    fresh, out = followed.ring.gather(keys, 2, GAMMA), empty(SPECS["image-4"], len(keys))
    assert followed.ring.gather(keys, 2, GAMMA, out) is out
    for written, expected in zip(out, fresh, strict=True):
        np.testing.assert_array_equal(written, expected)


@pytest.mark.parametrize(
    ("stream", "steps", "named"), [(4, 2, "stream = 4"), (-1, 2, "stream = -1"), (0, 17, "unroll_length = 17")]
)
def test_a_rollout_that_does_not_fit_is_refused(stream, steps, named):
    the_spec = SPECS["image-4"]
    ring, rollout = Ring(the_spec, 2 * B, 20), Streams(the_spec, B, seed=0).rollout(steps)
    with pytest.raises(ValueError, match=named):
        ring.insert(stream, rollout)


def test_a_rollout_over_streams_that_do_not_go_together_is_refused():
    the_spec = SPECS["image-4"]
    ring, streams = Ring(the_spec, 2 * B, 20), Streams(the_spec, B, seed=0)
    ring.insert(0, streams.rollout(3))
    with pytest.raises(ValueError, match="streams 1 to 3 do not stand at the same time"):
        ring.insert(1, streams.rollout(3))


@every_spec
def test_its_memory_is_known_before_and_holds_each_frame_once(the_spec):
    ring = Ring(the_spec, 2 * B, 50)
    assert ring.nbytes == ring_bytes(the_spec, 2 * B, 50)
    frames = 2 * B * 50 * int(np.prod(the_spec.frame_shape)) * the_spec.frame_dtype.itemsize
    assert frames < ring.nbytes < frames + 2 * B * 50 * 50
