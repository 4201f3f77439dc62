"""A replay against a plain book of every transition: what can be drawn, with which priority, and what became of it."""

import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from episodes import Streams, assert_equal_transition, spec

from hpcddrl.replay.priorities import Proportional, RankBased, Uniform
from hpcddrl.replay.replay import Replay, replay_bytes, sample_buffers
from hpcddrl.types import Rollout

GAMMA = 0.9
B = 3
ACTORS = 2
STREAMS = ACTORS * B
ALPHA = 0.6
KINDS = [Uniform, Proportional, RankBased]
IMAGE = spec((3, 4), 4)
VECTOR = spec((5,), 1, "float32")
ATARI = spec((84, 84), 4)
specs = pytest.mark.parametrize("the_spec", [IMAGE, VECTOR], ids=["image-4", "vector-1"])
every_kind = pytest.mark.parametrize("kind", KINDS)


def replay_of(the_spec, kind=Uniform, capacity=60, n=3, seed=0):
    return Replay(the_spec, STREAMS, capacity, n, GAMMA, kind, seed)


class Book:
    """Every transition by its key, with its state: waiting, fresh, used; or used and dropped, once gone."""

    def __init__(self, replay, the_spec, capacity, n, seed, **ends):
        self.replay, self.depth, self.n = replay, the_spec.frame_stack, n
        self.length = -(-capacity // STREAMS) + the_spec.frame_stack + n
        self.actors = [Streams(the_spec, B, seed + i, **ends) for i in range(ACTORS)]
        self.newest, self.number, self.opened = [-1] * ACTORS, [-1] * ACTORS, [0] * ACTORS
        self.held, self.gone = {}, Counter()

    def insert(self, actor, steps, lost=False):
        streams, held = self.actors[actor], self.held
        start = len(streams.steps[0])
        rollout = streams.rollout(steps)
        if lost:
            return
        number = int(rollout.number[0])
        joined = self.number[actor] >= 0 and number == self.number[actor] + 1
        if not joined:
            self._forget(actor, lambda time, entry: entry["state"] == "waiting")
            self.newest[actor] += self.depth
            self.opened[actor] = max(start - self.depth + 1, 0)
        base = self.newest[actor]
        self.newest[actor], self.number[actor] = base + steps, number
        self._forget(actor, lambda time, entry: time < self.newest[actor] - self.length + self.depth)
        for b in range(B):
            for k in range(steps):
                if not streams.steps[b][start + k]["reset"]:
                    key = (base + k) * STREAMS + actor * B + b
                    held[key] = {"state": "waiting", "actor": actor, "b": b, "i": start + k}
        ready = 0
        for entry in held.values():
            if entry["state"] == "waiting" and entry["actor"] == actor:
                transition = streams.transition(entry["b"], entry["i"], self.n, GAMMA, self.opened[actor])
                if transition["complete"]:
                    entry.update(transition, state="fresh")
                    ready += 1
        assert self.replay.insert(actor * B, rollout) == ready

    def _forget(self, actor, condition):
        for key, entry in list(self.held.items()):
            if entry["actor"] == actor and condition(key // STREAMS, entry):
                self.gone["used" if entry["state"] == "used" else "dropped"] += 1
                del self.held[key]

    def mark(self, keys):
        fresh = {key for key in keys.tolist() if key in self.held and self.held[key]["state"] == "fresh"}
        for key in fresh:
            self.held[key]["state"] = "used"
        assert self.replay.mark(keys) == len(fresh)

    def update(self, keys, errors):
        for key, error in zip(keys.tolist(), errors.tolist(), strict=True):
            if key in self.held and self.held[key]["state"] != "waiting":
                self.held[key]["error"] = abs(error)
        self.replay.update(keys, errors)

    @property
    def drawable(self):
        return sorted(key for key, entry in self.held.items() if entry["state"] != "waiting")

    def check_counts(self):
        replay, states = self.replay, Counter(entry["state"] for entry in self.held.values())
        assert len(replay) == len(self.drawable) == states["fresh"] + states["used"]
        assert replay.used == self.gone["used"] + states["used"]
        assert replay.dropped == self.gone["dropped"]
        assert replay.pending == states["waiting"] + states["fresh"]
        assert replay.inserted == replay.used + replay.dropped + replay.pending

    def check_sample(self, sample):
        for row, key in enumerate(sample.keys.tolist()):
            assert self.held[key]["state"] != "waiting"
            assert_equal_transition(sample, row, self.held[key])

    def check_priorities(self, sample):
        """With β = 1, a weight times its own probability is the same in the whole batch."""
        priorities = [(self.held[key]["error"] + 1e-6) ** ALPHA for key in sample.keys.tolist()]
        product = np.array(priorities) * sample.weight
        np.testing.assert_allclose(product, product[0], rtol=1e-4)
        assert sample.weight.max() == 1


def play(book, operations, seed, losses=0.2, longest=6):
    """Do random things and check everything after each of them; return the keys that were drawn."""
    rng, drawn = np.random.default_rng(seed), []

    def earlier():
        return drawn[-min(int(rng.geometric(0.3)), len(drawn))]  # some of these are gone

    for _ in range(operations):
        match rng.choice(["insert", "sample", "mark", "update"], p=[0.4, 0.3, 0.15, 0.15]):
            case "insert":
                lost = rng.random() < losses
                book.insert(int(rng.integers(ACTORS)), int(rng.integers(1, longest + 1)), lost)
            case "sample" if len(book.replay):
                sample = book.replay.sample(int(rng.integers(1, 20)), beta=1.0)
                book.check_sample(sample)
                if isinstance(book.replay._priorities, Proportional):
                    book.check_priorities(sample)
                drawn.append(sample.keys)
            case "mark" if drawn:
                book.mark(earlier())
            case "update" if drawn:
                keys = earlier()
                keys = np.concatenate([keys, keys[:2]])  # of a key named twice the last error stays
                book.update(keys, rng.normal(size=len(keys)))
        book.check_counts()
    return drawn


@specs
@every_kind
@pytest.mark.parametrize("n", [1, 3])
def test_every_transition_is_drawn_as_it_was_and_is_accounted_for(the_spec, kind, n):
    """Also: first priorities, stale keys, gaps, and many times round the ring."""
    kind = partial(kind, alpha=ALPHA) if kind is not Uniform else kind
    replay = replay_of(the_spec, kind, n=n)
    book = Book(replay, the_spec, 60, n, seed=n, ends=0.15, lives=0.05)
    drawn = play(book, 400, seed=n)
    assert min(book.newest) > 4 * book.length
    assert replay.used > 100
    assert replay.dropped > 100
    assert any(key not in book.held for keys in drawn for key in keys.tolist())


@pytest.mark.parametrize("capacity", [1, 6, 37])
def test_a_small_replay_is_right_too(capacity):
    """Rollouts longer than what a stream has room for push out steps that were never drawable."""
    replay = replay_of(VECTOR, Proportional, capacity, n=2)
    play(Book(replay, VECTOR, capacity, 2, seed=0, ends=0.2), 150, seed=1, longest=-(-capacity // STREAMS) + 2)
    assert replay.dropped > 0
    assert replay.inserted == replay.used + replay.dropped + replay.pending


@specs
def test_all_that_is_drawable_is_drawn_and_nothing_else(the_spec):
    replay = replay_of(the_spec)
    book = Book(replay, the_spec, 60, 3, seed=3)
    for _ in range(12):
        book.insert(0, 5)
        book.insert(1, 4)
    assert sorted(set(replay.sample(3000).keys.tolist())) == book.drawable


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("capacity", [60, 61])
def test_there_is_room_for_the_capacity(capacity, n):
    replay = replay_of(IMAGE, capacity=capacity, n=n)
    book = Book(replay, IMAGE, capacity, n, seed=0, ends=0.0)
    for _ in range(12):
        book.insert(0, 5)
        book.insert(1, 3)
    assert len(replay) == -(-capacity // STREAMS) * STREAMS >= capacity


def test_a_transition_waits_for_the_value_of_its_next_observation():
    replay = replay_of(VECTOR, n=3)
    book = Book(replay, VECTOR, 60, 3, seed=0, ends=0.0)
    sizes = []
    for _ in range(6):
        book.insert(0, 1)
        sizes.append(len(replay))
    assert sizes == [0, 0, 0, B, 2 * B, 3 * B]


def test_a_truncated_episode_bootstraps_from_its_own_last_observation():
    """One environment: a, b, then the reset; the value acted on at b's end came with the reset step."""
    f32 = partial(np.array, dtype=np.float32)
    rollout = Rollout(
        version=np.array([7]),
        number=np.array([0]),
        last=np.zeros(1, np.uint8),
        frames=f32([[[10]], [[11]], [[12]], [[20]], [[21]]]),  # 12 is the first episode's last
        first=np.array([[True], [False], [False], [True], [False]]),
        action=np.array([[1], [2], [3], [0]]),
        log_mu=np.zeros((4, 1), np.float32),
        value=f32([[5], [6], [100], [9]]),
        action_value=f32([[1], [2], [3], [4]]),
        reward=f32([[1], [2], [1000], [4]]),
        discount=np.ones((4, 1), np.float32),
    )
    replay = Replay(spec((1,), 1, "float32"), 1, 10, 3, 0.5, partial(Proportional, alpha=1.0), 0)
    assert replay.insert(0, rollout) == 2
    assert replay.inserted == 3
    sample = replay.sample(1000, beta=1.0)
    rows = {int(obs): row for row, obs in enumerate(sample.observation[:, 0])}
    assert sorted(rows) == [10, 11]
    rows = [rows[10], rows[11]]
    assert sample.next_observation[rows, 0].tolist() == [12, 12]
    assert sample.reward[rows].tolist() == [1 + 0.5 * 2, 2]
    assert sample.discount[rows].tolist() == [0.25, 0.5]
    assert sample.version[rows].tolist() == [7, 7]
    errors = np.array([abs(2 + 0.25 * 100 - 1), abs(2 + 0.5 * 100 - 2)])
    np.testing.assert_allclose(sample.weight[rows], errors.min() / errors, rtol=1e-5)


def test_stale_keys_change_nothing():
    replay = replay_of(VECTOR, Proportional)
    book = Book(replay, VECTOR, 60, 3, seed=0, ends=0.0)
    for _ in range(3):
        book.insert(0, 5)
    old = replay.sample(500).keys
    for _ in range(10):
        book.insert(0, 5)
    assert not replay._here(old).any()
    before = replay._priorities._tree._nodes.copy()
    replay.update(old, np.full(len(old), 1e6))
    np.testing.assert_array_equal(replay._priorities._tree._nodes, before)
    assert replay.mark(old) == 0
    assert replay.used == 0
    book.check_counts()


@every_kind
def test_a_seed_draws_the_same_again(kind):
    samples = []
    for seed in (5, 5, 6):
        replay = replay_of(VECTOR, kind, seed=seed)
        Book(replay, VECTOR, 60, 3, seed=0).insert(0, 10)
        samples.append(replay.sample(50).keys.tolist())
    assert samples[0] == samples[1] != samples[2]


def test_samples_are_written_to_buffers_made_once():
    replays = [replay_of(IMAGE, Proportional), replay_of(IMAGE, Proportional)]
    for replay in replays:
        Book(replay, IMAGE, 60, 3, seed=0).insert(0, 10)
    out = sample_buffers(IMAGE, 16)
    places = [field.__array_interface__["data"][0] for field in out]
    for _ in range(3):
        fresh = replays[0].sample(16, 0.4)
        assert replays[1].sample(16, 0.4, out) is out
        assert [field.__array_interface__["data"][0] for field in out] == places
        for written, expected in zip(out, fresh, strict=True):
            np.testing.assert_array_equal(written, expected)
            assert written.dtype == expected.dtype


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_errors_that_are_no_numbers_are_refused(wrong):
    replay = replay_of(VECTOR, Proportional)
    book = Book(replay, VECTOR, 60, 3, seed=0, ends=0.0)
    book.insert(0, 10)
    keys = replay.sample(4).keys
    with pytest.raises(ValueError, match=rf"error {abs(wrong)} of transition {keys[2]}: must be a finite number"):
        replay.update(keys, np.array([1.0, 2.0, wrong, 3.0]))
    rollout = book.actors[0].rollout(5)
    rollout.value[1, 0] = wrong
    with pytest.raises(ValueError, match=r"initial error .* must be a finite number, and 1 of 15 are not"):
        replay.insert(0, rollout)


def test_an_empty_replay_says_what_it_needs():
    replay = replay_of(VECTOR)
    with pytest.raises(ValueError, match="0 drawable transitions and needs at least 1; insert rollouts"):
        replay.sample(32)


@pytest.mark.parametrize(
    ("field", "value"), [("streams", 0), ("capacity", 0), ("n_step", 0), ("discount", 1.5), ("discount", float("nan"))]
)
def test_settings_out_of_range_are_named(field, value):
    settings = {"streams": 2, "capacity": 10, "n_step": 1, "discount": 0.9, field: value}
    with pytest.raises(ValueError, match=f"{field} = {value}: must be"):
        Replay(VECTOR, priorities=Uniform, seed=0, **settings)


@pytest.mark.parametrize(("n", "beta", "named"), [(0, 0.0, "n = 0"), (1, -0.1, "beta = -0.1"), (1, 1.1, "beta = 1.1")])
def test_draws_out_of_range_are_named(n, beta, named):
    replay = replay_of(VECTOR)
    Book(replay, VECTOR, 60, 3, seed=0, ends=0.0).insert(0, 10)
    with pytest.raises(ValueError, match=named):
        replay.sample(n, beta)


@every_kind
def test_a_million_atari_transitions_fit_in_eight_gigabytes(kind):
    expected = replay_bytes(ATARI, 64, 1_000_000, 3, kind)
    assert 7e9 < expected < 8e9
    if kind is Uniform:  # zeros take no memory until they are written; the tables of the others are filled at once
        assert Replay(ATARI, 64, 1_000_000, 3, 0.99, kind, 0).nbytes == expected


@every_kind
@specs
def test_its_memory_is_known_before(the_spec, kind):
    assert replay_of(the_spec, kind, 77, 5).nbytes == replay_bytes(the_spec, STREAMS, 77, 5, kind)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_a_full_replay_takes_the_memory_that_it_says():
    envs, steps, capacity = 4, 50, 16_000
    rng = np.random.default_rng(0)
    rollout = Rollout(
        version=np.zeros(1, np.int64),
        number=np.zeros(1, np.int64),
        last=np.zeros(1, np.uint8),
        frames=rng.integers(0, 256, (4 + steps, envs, 84, 84), dtype=np.uint8),
        first=np.zeros((4 + steps, envs), bool),
        action=np.zeros((steps, envs), np.int64),
        log_mu=np.zeros((steps, envs), np.float32),
        **{name: np.ones((steps, envs), np.float32) for name in ("value", "action_value", "reward", "discount")},
    )
    Replay(ATARI, envs, 300, 3, 0.99, Proportional, 0).insert(0, rollout)  # what any insertion needs for a moment
    before = resident_bytes()
    replay = Replay(ATARI, envs, capacity, 3, 0.99, Proportional, 0)
    for number in range(capacity // (envs * steps) + 2):
        rollout.number[0] = number
        replay.insert(0, rollout)
    growth = resident_bytes() - before
    assert len(replay) >= capacity
    assert replay.nbytes > 1e8
    assert growth == pytest.approx(replay.nbytes, rel=0.03)
