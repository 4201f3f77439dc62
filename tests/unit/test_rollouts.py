"""Rollouts and batches: observation t of a batch is what the policy saw when it acted at t."""

from itertools import count

import numpy as np
import pytest
import torch

from hpcddrl.comm.messages import rollout_layout
from hpcddrl.config import Env
from hpcddrl.envs.make import make
from hpcddrl.logs.timing import Timing
from hpcddrl.roles.counters import Counters, counters_for
from hpcddrl.roles.rollouts import Batcher, Collector, RolloutWriter, transitions
from hpcddrl.types import Acted, Continuous, Discrete, EnvSpec, Step

B = 3


class Stream:
    """Environments that show numbered frames and end at random, as `Environments` would."""

    def __init__(self, spec, seed, ends=0.2):
        self.spec, self.num_envs = spec, B
        self.rng, self.ends, self.number = np.random.default_rng(seed), ends, count(1)
        self.ended = np.zeros(B, bool)
        self.steps = []
        self.actions = []

    def frame(self):
        numbers = np.array([next(self.number) for _ in range(B)])
        noise = self.rng.integers(0, 200, (B, *self.spec.frame_shape))
        return (noise + numbers.reshape(-1, *[1] * len(self.spec.frame_shape))).astype(self.spec.frame_dtype)

    def reset(self):
        self.frames = [self.frame()]
        self.firsts = [np.ones(B, bool)]
        return self.frames[0]

    def step(self, action):
        first, self.ended = self.ended, (self.rng.random(B) < self.ends) & ~self.ended
        terminated = self.ended & (self.rng.random(B) < 0.5)
        step = Step(
            frame=self.frame(),
            first=first,
            reward=np.where(first, 0, self.rng.normal(size=B)).astype(np.float32),
            discount=1.0 - terminated.astype(np.float32),
            episode_return=np.where(self.ended, 1.0, np.nan),
            episode_length=self.ended.astype(np.int64),
        )
        self.frames.append(step.frame)
        self.firsts.append(first)
        self.steps.append(step)
        self.actions.append(np.array(action))
        return step


class Recorder:
    """A policy that notes what it saw."""

    def __init__(self, spec, seed=0):
        self.spec, self.rng, self.seen, self.acted = spec, np.random.default_rng(seed), [], []

    def __call__(self, observation):
        self.seen.append(observation.copy())
        if isinstance(self.spec.action, Discrete):
            action = self.rng.integers(self.spec.action.num_actions, size=len(observation))
        else:
            action = self.rng.normal(size=(len(observation), self.spec.action.dim)).astype(np.float32)
        acted = Acted(action, *-self.rng.random((3, len(observation))).astype(np.float32))
        self.acted.append(acted)
        return acted


def spec(shape, depth, dtype="uint8", action=None):
    return EnvSpec(shape, np.dtype(dtype), depth, action or Discrete(4), 2)


SPECS = [
    pytest.param(spec((4, 5), 4), id="image-4"),
    pytest.param(spec((4, 5), 1), id="image-1"),
    pytest.param(spec((2, 4, 5), 3), id="colour-3"),
    pytest.param(spec((6,), 1, "float32"), id="vector-1"),
    pytest.param(spec((6,), 4, "float32", Continuous(-np.ones(2), np.ones(2))), id="vector-4-box"),
]


def collect(the_spec, unroll_length, rollouts, ends=0.2, seed=0):
    """Return rollouts collected one after the other, with the environments and the policy."""
    envs, act = Stream(the_spec, seed, ends), Recorder(the_spec, seed)
    collector = Collector(envs, act, Timing(), counters_for(2, 1))
    layout = rollout_layout(the_spec, unroll_length, B)
    collected = []
    for version in range(rollouts):
        _, rollout = layout.allocate()
        collector.collect(rollout, 10 * version)
        collected.append(rollout)
    act(as_seen(the_spec, envs))  # what it would act on next
    return collected, envs, act


def as_seen(the_spec, envs):
    """Stack the environments' newest frames by hand, repeating an episode's first one."""
    observation = []
    for b in range(B):
        i, frames = len(envs.frames) - 1, []
        for _ in range(the_spec.frame_stack):
            frames.insert(0, envs.frames[i][b])
            i -= 0 if envs.firsts[i][b] else 1
        observation.append(np.stack(frames).reshape(the_spec.observation_shape))
    return np.stack(observation)


@pytest.mark.parametrize("the_spec", SPECS)
@pytest.mark.parametrize("unroll_length", [1, 2, 7])
@pytest.mark.parametrize("ends", [0.0, 0.2, 0.9])
def test_observation_t_is_what_the_policy_saw_when_it_acted_at_t(the_spec, unroll_length, ends):
    rollouts, envs, act = collect(the_spec, unroll_length, 6, ends)
    batcher = Batcher(the_spec, unroll_length, B, 1)
    for i, rollout in enumerate(rollouts):
        batch = batcher([rollout])
        assert batch.observation.shape == (1, unroll_length + 1, B, *the_spec.observation_shape)
        for t in range(unroll_length + 1):  # the last one is what it acted on first in the next rollout
            np.testing.assert_array_equal(batch.observation[0, t], act.seen[i * unroll_length + t])
        for t in range(unroll_length):
            at = i * unroll_length + t
            step, acted = envs.steps[at], act.acted[at]
            np.testing.assert_array_equal(batch.action[t], acted.action)
            np.testing.assert_array_equal(envs.actions[at], acted.action)
            np.testing.assert_array_equal(batch.log_mu[t], acted.log_mu)
            np.testing.assert_array_equal(batch.reward[t], step.reward)
            np.testing.assert_array_equal(batch.discount[t], step.discount)
            np.testing.assert_array_equal(batch.valid[t], ~step.first)
        assert batch.versions.tolist() == [10 * i] * B


@pytest.mark.parametrize("the_spec", SPECS)
def test_what_the_policy_sees_never_mixes_episodes(the_spec):
    _, envs, act = collect(the_spec, 5, 4, ends=0.3)
    del envs.frames[1:], envs.firsts[1:]
    for at, step in enumerate(envs.steps):
        np.testing.assert_array_equal(act.seen[at], as_seen(the_spec, envs))
        envs.frames.append(step.frame)
        envs.firsts.append(step.first)
    assert sum(step.first.sum() for step in envs.steps) > 5


@pytest.mark.parametrize("the_spec", SPECS)
def test_a_batch_of_several_rollouts_puts_them_side_by_side(the_spec):
    many = [collect(the_spec, 4, 3, seed=seed)[0][seed] for seed in range(3)]
    batch = Batcher(the_spec, 4, B, 3)(many)
    assert batch.versions.tolist() == [0] * B + [10] * B + [20] * B
    one = Batcher(the_spec, 4, B, 1)
    for r, rollout in enumerate(many):
        alone, columns = one([rollout]), slice(r * B, (r + 1) * B)
        np.testing.assert_array_equal(batch.observation[r], alone.observation[0])
        for name in ("action", "log_mu", "reward", "discount", "valid"):
            np.testing.assert_array_equal(getattr(batch, name)[:, columns], getattr(alone, name))


def test_a_batch_may_have_fewer_rollouts_than_there_is_room_for():
    the_spec = spec((6,), 1, "float32")
    rollouts, *_ = collect(the_spec, 2, 2)
    roomy, exact = Batcher(the_spec, 2, B, 3)(rollouts), Batcher(the_spec, 2, B, 2)(rollouts)
    assert roomy.observation.shape == exact.observation.shape == (2, 3, B, 6)
    assert torch.equal(roomy.observation, exact.observation)
    assert roomy.steps == exact.steps == 2 * 2 * B


def test_a_batch_stays_when_the_buffers_of_its_rollouts_are_written_anew():
    the_spec = spec((4, 5), 4)
    (rollout, *_), *_ = collect(the_spec, 3, 1)
    batch = Batcher(the_spec, 3, B, 1)([rollout])
    before = [np.copy(np.asarray(part)) for part in batch]
    for field in rollout:
        field[...] = 1
    for part, kept in zip(batch, before, strict=True):
        np.testing.assert_array_equal(part, kept)


@pytest.mark.parametrize("depth", [1, 4])
def test_one_buffer_serves_rollout_after_rollout(depth):
    the_spec = spec((4, 5), depth)
    expected, *_ = collect(the_spec, 3, 5, seed=2)
    collector = Collector(Stream(the_spec, 2), Recorder(the_spec, 2), Timing(), Counters())
    _, rollout = rollout_layout(the_spec, 3, B).allocate()
    for fresh in expected:
        collector.collect(rollout, int(fresh.version[0]))
        for again, field in zip(rollout, fresh, strict=True):
            np.testing.assert_array_equal(again, field)


def test_rollouts_are_numbered_and_bear_the_version_that_acted():
    rollouts, *_ = collect(spec((6,), 1, "float32"), 3, 4)
    assert [int(r.number[0]) for r in rollouts] == [0, 1, 2, 3]
    assert [int(r.version[0]) for r in rollouts] == [0, 10, 20, 30]


def test_a_writer_says_when_its_rollout_is_full():
    the_spec = spec((6,), 2, "float32")
    writer, (_, rollout) = RolloutWriter(the_spec, B), rollout_layout(the_spec, 3, B).allocate()
    frame = np.ones((B, 6), np.float32)
    writer.start(frame)
    writer.begin(rollout, 7)
    zeros = np.zeros(B, np.float32)
    acted = Acted(np.zeros(B, np.int64), zeros, zeros, zeros)
    full = [writer.add(acted, frame=frame, first=zeros > 0, reward=zeros, discount=zeros) for _ in range(3)]
    assert full == [False, False, True]


def test_something_is_asked_before_each_step():
    the_spec = spec((6,), 1, "float32")
    collector = Collector(Stream(the_spec, 0), Recorder(the_spec), Timing(), Counters())
    asked = []
    collector.collect(rollout_layout(the_spec, 4, B).allocate()[1], 0, asked.append)
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize("ends", [0.0, 0.5])
def test_transitions_are_the_steps_that_are_no_resets(ends):
    rollouts, envs, _ = collect(spec((6,), 3, "float32"), 5, 3, ends)
    for i, rollout in enumerate(rollouts):
        expected = sum(int((~step.first).sum()) for step in envs.steps[5 * i : 5 * i + 5])
        assert transitions(rollout) == expected
    assert (transitions(rollouts[-1]) == 5 * B) is (ends == 0.0)


def test_counters_count_transitions_frames_and_episodes():
    the_spec = spec((6,), 1, "float32")
    envs, counters = Stream(the_spec, 1), counters_for(4, 1)
    collector = Collector(envs, Recorder(the_spec), Timing(), counters)
    collector.collect(rollout_layout(the_spec, 40, B).allocate()[1], 0)
    steps = sum(int((~step.first).sum()) for step in envs.steps)
    assert (counters.env_steps, counters.frames) == (steps, 4 * steps)
    assert counters.predictions == 40 * B
    assert counters.episodes == sum(int((step.episode_length > 0).sum()) for step in envs.steps) > 0
    rows = counters.finished()
    assert len(rows) == counters.episodes
    assert rows[-1]["frames"] <= counters.frames
    assert counters.finished() == []


def test_on_a_real_environment_the_batch_is_what_the_policy_saw():
    envs = make(Env(id="hpcddrl/Catch-v0", frame_stack=4, reward="raw"), B, [1, 2, 3], 0.99)
    act = Recorder(envs.spec)
    collector = Collector(envs, act, Timing(), Counters())
    layout, batcher = rollout_layout(envs.spec, 6, B), Batcher(envs.spec, 6, B, 1)
    for i in range(7):
        _, rollout = layout.allocate()
        collector.collect(rollout, 0)
        batch = batcher([rollout])
        np.testing.assert_array_equal(batch.observation[0, :6], act.seen[6 * i :])
        ended = (batch.discount == 0) & (batch.valid == 1)
        np.testing.assert_array_equal(batch.reward.abs() == 1, ended)
