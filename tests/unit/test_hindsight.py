"""Hindsight against a walk through episodes kept whole: goals, rewards, sums of n steps, ends and observations."""

import numpy as np
import pytest
from episodes import spec

from hpcddrl.recipes import RECIPES
from hpcddrl.replay.hindsight import Hindsight
from hpcddrl.replay.priorities import Proportional, Uniform
from hpcddrl.replay.replay import Replay
from hpcddrl.replay.rollout_hindsight import RolloutHindsight
from hpcddrl.runtime.checks import checked, fitted
from hpcddrl.settings import override
from hpcddrl.types import Discrete, EnvSpec, GoalLayout, Rollout

GAMMA = 0.5
B = 3
DEPTH = 2
LAYOUT = GoalLayout(observation=2, goal=1)
VECTOR = EnvSpec((4,), np.dtype("f4"), DEPTH, Discrete(2), 1, LAYOUT)
IMAGE = EnvSpec((4, 2, 3), np.dtype("u1"), DEPTH, Discrete(2), 1, LAYOUT)
CELLS = 6


class Walks:
    """B random walks on a ring of cells, each episode with a cell as its goal; some fall and die of it.

    ``history[b]`` lists (episode, cell, goal, first) of each frame; ``moves[b]`` (reset, died) of the step behind it.
    """

    def __init__(self, the_spec, seed):
        self.spec, self.rng, self.number = the_spec, np.random.default_rng(seed), 0
        self.history = [[(0, self._cell(), self._cell(), True)] for _ in range(B)]
        self.moves = [[] for _ in range(B)]
        self.over = [False] * B

    def _cell(self):
        return int(self.rng.integers(CELLS))

    def _step(self, b):
        episode, cell, goal, _ = self.history[b][-1]
        if self.over[b]:
            self.history[b].append((episode + 1, self._cell(), self._cell(), True))
            self.moves[b].append((True, False))
            self.over[b] = False
            return
        cell = (cell + int(self.rng.integers(-1, 2))) % CELLS
        died = cell != goal and self.rng.random() < 0.05  # else nothing stored tells which ended it
        self.history[b].append((episode, cell, goal, False))
        self.moves[b].append((False, died))
        self.over[b] = died or cell == goal or self.rng.random() < 0.1

    def frame(self, b, t):
        """Return what is shown at a time: the episode and the time, the desired goal and the achieved one."""
        episode, cell, goal, _ = self.history[b][t]
        values = np.array([episode % 250, t % 250, goal, cell], np.float32)
        shape = self.spec.frame_shape
        return np.broadcast_to(values.reshape(-1, *[1] * (len(shape) - 1)), shape).astype(self.spec.frame_dtype)

    def outcome_of(self, b, t, goal):
        """Return the reward of the step at time t under a goal, and whether it terminated."""
        reached = self.history[b][t + 1][1] == goal
        return float(reached) - 1.0, reached or self.moves[b][t][1]

    def rollout(self, steps):
        start = len(self.moves[0])
        for b in range(B):
            for _ in range(steps):
                self._step(b)
        times = range(start - DEPTH + 1, start + steps + 1)
        outcomes = [[self.outcome_of(b, t, self.history[b][t + 1][2]) for b in range(B)] for t in times[DEPTH - 1 : -1]]
        zeros = np.zeros((steps, B), np.float32)
        self.number += 1
        return Rollout(
            version=np.zeros(1, np.int64),
            number=np.array([self.number - 1]),
            last=np.zeros(1, np.uint8),
            frames=np.stack([np.stack([self.frame(b, max(t, 0)) for b in range(B)]) for t in times]),
            first=np.array([[t >= 0 and self.history[b][t][3] for b in range(B)] for t in times]),
            action=np.zeros((steps, B), np.int64),
            log_mu=zeros,
            value=zeros,
            action_value=zeros,
            reward=np.array([[reward for reward, _ in row] for row in outcomes], np.float32),
            discount=np.array([[1.0 - ends for _, ends in row] for row in outcomes], np.float32),
        )

    def transition(self, b, t, n, goal):
        """Return (Σ γᵏ r, discount, time of the next observation) under a goal, step by step."""
        total, k = 0.0, 0
        while k < n and not self.moves[b][t + k][0]:
            reward, ends = self.outcome_of(b, t + k, goal)
            total += GAMMA**k * reward
            k += 1
            if ends:
                return total, 0.0, t + k
        return total, GAMMA**k, t + k

    def observation(self, b, t, goal):
        before = t if self.history[b][t][3] else t - 1
        frames = [self.frame(b, before), self.frame(b, t)]
        for frame in frames:
            frame[2] = goal
        return np.concatenate(frames)

    def episode(self, b, t):
        """Return the times of the episode's frames around a time, as far as it has gone."""
        number = self.history[b][t][0]
        return [i for i in range(len(self.history[b])) if self.history[b][i][0] == number]


def outcome(achieved, desired):
    rows = (achieved == desired).reshape(len(achieved), -1).all(1)
    return rows.astype(np.float32) - 1, rows


def filled(the_spec, n, choice, seed=0, rollouts=12, relabels=4, kind=Uniform, capacity=200):
    walks, hindsight = Walks(the_spec, seed), Hindsight(the_spec, outcome, choice, relabels)
    replay = Replay(the_spec, B, capacity, n, GAMMA, kind, seed, hindsight)
    for _ in range(rollouts):
        replay.insert(0, walks.rollout(5))
    return walks, replay


def place(key):
    """Return stream and time in the lists: the ring counts the frames before the first as well."""
    return key % B, key // B - (DEPTH - 1)


@pytest.mark.parametrize("choice", ["future", "final", "episode"])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("the_spec", [VECTOR, IMAGE], ids=["vector", "image"])
def test_every_transition_is_what_a_walk_through_its_episode_gives(the_spec, n, choice):
    walks, replay = filled(the_spec, n, choice)
    relabelled, died, shorter = 0, 0, 0
    for _ in range(20):
        sample = replay.sample(50)
        for row, key in enumerate(sample.keys.tolist()):
            b, t = place(key)
            goal = int(sample.observation[row].reshape(DEPTH, *the_spec.frame_shape)[-1, 2].flat[0])
            own = walks.history[b][t][2]
            times = walks.episode(b, t)
            achieved = {
                "future": [walks.history[b][i][1] for i in times if i > t],
                "final": [walks.history[b][times[-1]][1]],
                "episode": [walks.history[b][i][1] for i in times],
            }[choice]
            assert goal == own or goal in achieved
            relabelled += goal != own
            total, discount, end = walks.transition(b, t, n, goal)
            shorter += end < walks.transition(b, t, n, own)[2]
            died += goal != own and discount == 0 and walks.history[b][end][1] != goal
            np.testing.assert_allclose(sample.reward[row], total)
            np.testing.assert_allclose(sample.discount[row], discount)
            np.testing.assert_array_equal(sample.observation[row], walks.observation(b, t, goal))
            np.testing.assert_array_equal(sample.next_observation[row], walks.observation(b, end, goal))
    assert relabelled > 200
    assert died > 0 or choice != "episode", "ends for another reason stay ends"
    assert shorter > 0 or n == 1 or choice == "final", "sums that a new goal ends earlier"


@pytest.mark.parametrize("relabels", [1, 4])
def test_so_many_are_relabelled(relabels):
    _, replay = filled(VECTOR, 1, "future", relabels=relabels)
    hindsight, chosen = replay._hindsight, []
    relabel = hindsight.relabel
    hindsight.relabel = lambda *arguments: chosen.append(len(relabel(*arguments)))
    for _ in range(40):
        replay.sample(100)
    assert np.mean(chosen) == pytest.approx(100 * relabels / (relabels + 1), abs=2)


def test_future_goals_are_equally_likely_at_all_later_frames():
    walks, replay = filled(VECTOR, 1, "future", rollouts=30, capacity=400)
    ring = replay._ring
    keys = replay.sample(4000).keys
    steps = (replay._hindsight._chosen(ring, keys, np.random.default_rng(0)) - keys) // B
    shares = {}
    for key, step in zip(keys.tolist(), steps.tolist(), strict=True):
        b, t = place(key)
        ahead = walks.episode(b, t)[-1] - t
        shares.setdefault(ahead, []).append(step)
    for ahead, found in shares.items():
        assert set(found) <= set(range(1, ahead + 1))
        if ahead == 3 and len(found) > 100:
            np.testing.assert_allclose(np.bincount(found, minlength=4)[1:] / len(found), 1 / 3, atol=0.12)
    assert len(shares[3]) > 100


@pytest.mark.parametrize("capacity", [24, 60])
def test_episodes_are_found_in_a_ring_that_has_gone_round(capacity):
    """Also those cut by lost rollouts, and longer than one stride of the search."""
    walks, replay = filled(VECTOR, 1, "episode", capacity=capacity)
    walks.rollout(5)  # lost
    for _ in range(4):
        replay.insert(0, walks.rollout(5))
    ring = replay._ring
    keys = np.unique(replay.sample(500).keys)
    first, newest, oldest = ring._store.first, ring._newest, ring._oldest(ring._newest)
    for key, ahead, behind in zip(keys, ring.ahead(keys), ring.behind(keys), strict=True):
        stream, time = key % B, key // B
        expected = 0
        while time + expected < newest[stream] and not first[ring.slot(key + B * (expected + 1))]:
            expected += 1
        assert ahead == expected
        expected = 0
        while time - expected > oldest[stream] and not first[ring.slot(key - B * expected)]:
            expected += 1
        assert behind == expected


def test_a_long_episode_is_searched_to_its_ends():
    walks = Walks(VECTOR, 0)
    walks._step = lambda b: (walks.history[b].append((0, 0, 5, False)), walks.moves[b].append((False, False)))
    replay = Replay(VECTOR, B, 1200, 1, GAMMA, Uniform, 0, Hindsight(VECTOR, outcome, "final", 4))
    for _ in range(70):
        replay.insert(0, walks.rollout(5))
    keys = replay.sample(300).keys
    times = keys // B - (DEPTH - 1)
    np.testing.assert_array_equal(replay._ring.ahead(keys), 350 - times)
    np.testing.assert_array_equal(replay._ring.behind(keys), times)


def test_what_is_stored_stays_as_it_was():
    _, replay = filled(VECTOR, 3, "future", kind=Proportional)
    before = [field.copy() for field in replay._ring._store]
    for _ in range(5):
        replay.update(replay.sample(50, beta=1.0).keys, np.ones(50))
    for field, expected in zip(replay._ring._store, before, strict=True):
        np.testing.assert_array_equal(field, expected)
    same = [filled(VECTOR, 3, "future", seed=4)[1].sample(50) for _ in range(2)]
    for one, other in zip(*same, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_environment_without_goals_gets_none():
    with pytest.raises(AssertionError, match="checked"):
        Hindsight(spec((5,), 1, "float32"), outcome, "future", 4)


def replaying(*settings):
    return override(RECIPES["dqn"](), list(settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ["env.reward=normalise"],
            ["env.reward = 'normalise'", "experience.hindsight.kind = 'future'"],
        ),
        (["env.reward=auto"], ["env.reward = 'auto'", "set env.reward=raw or env.reward=clip"]),
        (["env.id=hpcddrl/BitFlip-v0,hpcddrl/Maze-v0"], ["env.id", "experience.hindsight=none"]),
        (["experience.hindsight.relabels=0"], ["experience.hindsight.relabels = 0"]),
        (["experience.hindsight=past"], ["experience.hindsight = 'past'", "'future'", "'none'"]),
    ],
)
def test_what_hindsight_cannot_work_with_is_named(settings, words):
    with pytest.raises(ValueError, match="hindsight") as error:
        replaying("env.id=hpcddrl/BitFlip-v0", "experience.hindsight=future", *settings)
    assert all(word in str(error.value) for word in words), error.value


def test_hindsight_needs_a_goal():
    config = replaying("env.id=CartPole-v1", "experience.hindsight=final")
    with pytest.raises(ValueError, match=r"experience.hindsight.kind = 'final': CartPole-v1 has no goal.*BitFlip"):
        checked(fitted(config, 1))
    for settings in (["experience.hindsight=none"], ["env.id=hpcddrl/BitFlip-v0"]):
        checked(fitted(replaying("env.id=CartPole-v1", "experience.hindsight=final", *settings), 1))


def replaying_rollouts(*settings):
    early = ("stages.early=none", "stages.middle.hindsight=future", "env.reward=raw", "network.torso=auto")
    return override(RECIPES["staged"](), [*early, *settings])


def test_hindsight_of_rollouts_needs_a_goal_too():
    with pytest.raises(ValueError, match=r"stages.middle.hindsight.kind = 'future': CartPole-v1 has no goal.*BitFlip"):
        checked(fitted(replaying_rollouts("env.id=CartPole-v1"), 2))
    checked(fitted(replaying_rollouts("env.id=hpcddrl/BitFlip-v0"), 2))
    with pytest.raises(ValueError, match=r"env.reward = 'auto' with stages.middle.hindsight.kind = 'future'"):
        replaying_rollouts("env.reward=auto")
    with pytest.raises(ValueError, match=r"env.id.*set stages.middle.hindsight=none"):
        replaying_rollouts("env.id=hpcddrl/BitFlip-v0,hpcddrl/Maze-v0")


# --- whole rollouts


def relabelled(the_spec, choice, seed, steps=14, relabels=10**9):
    """Return walks, a rollout of them as it was and with other goals, and what to learn from."""
    walks = Walks(the_spec, seed)
    walks.rollout(5)
    rollout = walks.rollout(steps)
    before = rollout._replace(frames=rollout.frames.copy(), reward=rollout.reward.copy())
    found = RolloutHindsight(the_spec, outcome, choice, relabels)(rollout, np.random.default_rng(seed))
    return walks, before, found


def cells(frames):
    """Return the desired and the achieved goals of frames, [K + T, B] each."""
    flat = frames.reshape(*frames.shape[:2], 4, -1)[..., 0].astype(int)
    return flat[..., 2], flat[..., 3]


@pytest.mark.parametrize("the_spec", [VECTOR, IMAGE], ids=["vector", "image"])
@pytest.mark.parametrize("choice", ["future", "final", "episode"])
def test_an_episode_of_a_rollout_gets_a_goal_that_it_achieved_there(the_spec, choice):
    """Its rewards and its end are those of a walk under that goal."""
    parts = 0
    for seed in range(20):
        walks, before, (rollout, learned, own) = relabelled(the_spec, choice, seed)
        desired, achieved = cells(rollout.frames)
        episodes = np.cumsum(rollout.first, axis=0)
        start = len(walks.moves[0]) - len(rollout.reward)
        assert not own.any()
        for b in range(B):
            for episode in np.unique(episodes[:, b]):
                frames = np.flatnonzero(episodes[:, b] == episode)
                (goal,) = set(desired[frames, b])
                reached = [i for i in frames if i >= DEPTH and not rollout.first[i, b]]
                if not reached:
                    assert (desired[frames, b] == cells(before.frames)[0][frames, b]).all()
                    continue
                parts += 1
                assert goal in achieved[reached, b]
                assert choice != "final" or goal == achieved[reached[-1], b]
                for i in reached:
                    reward, ends = walks.outcome_of(b, start + i - DEPTH, goal)
                    assert (rollout.reward[i - DEPTH, b], rollout.discount[i - DEPTH, b]) == (reward, 1.0 - ends)
                kept = learned[[i - DEPTH for i in reached], b]
                if choice == "future":
                    assert kept[0]
                    assert (np.diff(kept.astype(int)) <= 0).all(), "up to the goal, and no step after"
                    assert achieved[reached[int(kept.sum()) - 1], b] == goal
                else:
                    assert kept.all()
        others = [i for i in range(the_spec.frame_shape[0]) if i != 2]
        np.testing.assert_array_equal(rollout.frames[:, :, others], before.frames[:, :, others])
        resets = rollout.first[DEPTH:]
        np.testing.assert_array_equal(rollout.reward[resets], before.reward[resets])
    assert parts > 60


def test_k_in_k_plus_one_episodes_get_another_goal_and_the_others_stay():
    changed = total = 0
    for seed in range(60):
        _, before, (rollout, learned, own) = relabelled(VECTOR, "episode", seed, steps=2, relabels=3)
        same = (rollout.frames == before.frames).all(axis=(0, 2))
        assert same[own].all()
        assert (rollout.reward[:, own] == before.reward[:, own]).all()
        assert learned.all()
        changed, total = changed + int((~own).sum()), total + B
    assert 0.6 < changed / total < 0.85, "some rollouts hold two episodes, or none to speak of"
