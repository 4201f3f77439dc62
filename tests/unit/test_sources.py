"""How rollouts become batches: once, in several passes, or drawn from a replay no faster than is allowed."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from episodes import Streams, spec

from hpcddrl.comm.channel import Ending
from hpcddrl.config import Replay as ReplayConfig
from hpcddrl.logs.timing import Timing
from hpcddrl.replay.priorities import Uniform
from hpcddrl.replay.replay import Replay
from hpcddrl.roles.counters import Counters
from hpcddrl.roles.feeds import Arrived
from hpcddrl.roles.pacing import Pace
from hpcddrl.roles.sources import Fresh, Passes, Replayed, columns
from hpcddrl.types import Batch

R, T, B = 3, 4, 5
N = R * B


def control():
    return SimpleNamespace(timing=Timing(), counters=Counters())


def numbered_batch(version=0):
    """Return a batch in which everything says which rollout, step and environment it belongs to."""
    r, t, b = np.meshgrid(np.arange(R), np.arange(T + 1), np.arange(B), indexing="ij")
    side_by_side = 100 * np.arange(T)[:, None] + np.arange(N)[None]
    field = torch.from_numpy(side_by_side).float()
    return Batch(
        observation=torch.from_numpy(100 * t + r * B + b)[..., None],
        action=torch.from_numpy(side_by_side),
        log_mu=field + 0.1,
        reward=field + 0.2,
        discount=field + 0.3,
        valid=(torch.from_numpy(side_by_side) % 7 > 0).float(),
        versions=version + np.repeat([3, 5, 8], B),
        steps=T * N,
    )


def assert_part(part, chosen):
    """Check that a part has the columns ``chosen`` of the numbered batch, whole in time."""
    assert part.observation.shape == (1, T + 1, len(chosen), 1)
    for column, n in enumerate(chosen):
        assert part.observation[0, :, column, 0].tolist() == [100 * t + n for t in range(T + 1)]
        for t in range(T):
            wanted = 100 * t + n
            assert int(part.action[t, column]) == wanted
            assert float(part.log_mu[t, column]) == pytest.approx(wanted + 0.1)
            assert float(part.reward[t, column]) == pytest.approx(wanted + 0.2)
            assert float(part.discount[t, column]) == pytest.approx(wanted + 0.3)
            assert float(part.valid[t, column]) == float(wanted % 7 > 0)


@pytest.mark.parametrize("chosen", [[0], [4, 5, 14], [13, 2, 7, 6], list(range(N))])
def test_columns_are_those_chosen_of_every_field(chosen):
    part = columns(numbered_batch(), np.array(chosen))
    assert_part(part, chosen)
    assert part.versions.tolist() == [[3, 5, 8][n // B] for n in chosen]


class Feed:
    """Stands for rollouts that arrive; the batch is made of the version that asks."""

    sources = 1

    def __init__(self):
        self.taken = self.released = 0

    def take(self, version, wait=True):
        self.taken += 1
        self.version = version
        return [Arrived(0, None)]

    def release(self):
        self.released += 1

    def end(self):
        return Ending()


def passes(epochs, minibatches, seed=0):
    feed, link = Feed(), control()
    fresh = Fresh(feed, lambda rollouts: numbered_batch(feed.version - 8), None, link)
    return Passes(fresh, epochs, minibatches, seed, link), feed, link.counters


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (1, 4), (3, 1), (4, 4), (2, N)])
def test_every_environment_is_in_one_minibatch_of_each_pass(epochs, minibatches):
    source, feed, counters = passes(epochs, minibatches)
    version, samples = 20, numbered_batch().samples
    for number in range(1, 3):
        steps, dealt = [], []
        for k in range(epochs):
            seen = Counter()
            for _ in range(minibatches):
                part = source.get(version)
                chosen = part.action[0].tolist()
                assert_part(part, chosen)
                assert len(chosen) in (N // minibatches, -(-N // minibatches))
                seen.update(chosen)
                steps.append(part.steps)
                dealt.append(chosen)
                assert (version - part.versions >= 0).all()
                assert (version - part.versions <= 5).all(), "its own passes make a batch no older"
                source.feedback(None, learned=True)
                version += 1
            assert seen == Counter(range(N)), f"pass {k}"
        assert (sum(steps), steps[0]) == (T * N, T * N), "env steps count with the first minibatch"
        assert feed.taken == feed.released == number
        assert (counters.used, counters.dropped) == (number * samples, 0)
    if epochs > 1 and minibatches > 1:
        assert dealt[:minibatches] != dealt[minibatches : 2 * minibatches], "each pass is dealt anew"


@pytest.mark.parametrize("updates", [1, 3, 4, 6])
def test_what_a_first_pass_does_not_come_to_is_dropped(updates):
    source, _, counters = passes(2, 4)
    whole, trained = numbered_batch().samples, []
    for version in range(20, 20 + updates):
        trained.append(source.get(version).samples)
        source.feedback(None, learned=True)
    assert counters.used == sum(trained[:4])
    source.end()
    assert counters.used + counters.dropped == whole
    assert (counters.dropped > 0) == (updates < 4)


def test_a_batch_of_the_newest_weights_has_no_lag_in_any_pass():
    feed, link = Feed(), control()
    fresh = Fresh(feed, lambda rollouts: numbered_batch()._replace(versions=np.full(N, feed.version)), None, link)
    source, version = Passes(fresh, 3, 4, 0, link), 11
    for _ in range(24):
        assert (source.get(version).versions == version).all()
        source.feedback(None, learned=True)
        version += 1


def test_a_seed_deals_alike_and_another_otherwise():
    def dealt(seed):
        source, _, _ = passes(2, 3, seed)
        return [source.get(version).action[0].tolist() for version in range(6)]

    assert dealt(1) == dealt(1)
    assert dealt(1) != dealt(2)


def test_samples_are_used_where_they_were_learned_from_and_else_dropped():
    feed, link = Feed(), control()
    source = Fresh(feed, lambda rollouts: numbered_batch(), None, link)
    samples = numbered_batch().samples
    for learned in (True, False, True):
        source.get(0)
        source.feedback(None, learned)
    assert (link.counters.used, link.counters.dropped) == (2 * samples, samples)


class Held:
    """Stands for a replay that only counts."""

    def __init__(self):
        self.inserted = 0

    def __len__(self):
        return self.inserted


@pytest.mark.parametrize("ratio", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_no_more_is_drawn_than_the_replay_ratio_allows(ratio, batch_size):
    pace, held = Pace(ReplayConfig(learning_starts=200, batch_size=batch_size, replay_ratio=ratio)), Held()
    rng, since, drawn = np.random.default_rng(0), 0, 0
    for _ in range(300):
        steps = int(rng.integers(1, 40))
        held.inserted += steps
        pace.gathered(held, steps)
        since += steps if held.inserted >= 200 else 0
        while pace.may_draw(held):
            drawn += batch_size
            pace.drawn(batch_size)
        assert drawn <= ratio * since + 1e-6
        assert held.inserted >= 200 or drawn == 0
        assert ratio * since - drawn < batch_size + 1e-6, "and no less"


def test_nothing_is_drawn_of_an_empty_replay():
    pace, held = Pace(ReplayConfig(learning_starts=1, batch_size=1)), Held()
    held.inserted = 5
    pace.gathered(held, 5)
    assert pace.may_draw(held)
    held.inserted = 0
    assert not pace.may_draw(held)


class Actors:
    """Rollouts of some streams in turn; another one every time it is asked, waited for or not."""

    def __init__(self, streams, steps):
        self.streams, self.steps, self.turn, self.gathered, self.valid = streams, steps, 0, 0, 0
        self.sources = len(streams)

    def take(self, version, wait=True):
        source, self.turn = self.turn, (self.turn + 1) % len(self.streams)
        rollout = self.streams[source].rollout(self.steps)
        rollout = rollout._replace(reward=np.nan_to_num(rollout.reward))
        self.gathered += rollout.reward.size
        self.valid += int((~rollout.first[-self.steps :]).sum())
        return [Arrived(source, rollout)]

    def release(self):
        pass


@pytest.mark.parametrize("learned", [True, False])
def test_a_learners_own_replay_counts_every_transition_and_env_step_once(learned):
    the_spec, link = spec((3,), 2, "float32"), control()
    feed = Actors([Streams(the_spec, 2, seed) for seed in (1, 2)], steps=5)
    config = ReplayConfig(capacity=60, batch_size=8, learning_starts=40, replay_ratio=0.5)
    memory = Replay(the_spec, 4, config.capacity, 2, 0.9, Uniform, 0)
    source, steps = Replayed(feed, memory, 0.0, config, 2, link), 0
    for update in range(1, 60):
        batch = source.get(update)
        steps += batch.steps
        assert batch.observation.shape == batch.next_observation.shape == (8, 6)
        assert steps == feed.gathered
        assert 8 * update <= 0.5 * (steps - 40) + 0.5 * 10, "the rollout that filled it up counts as a whole"
        source.feedback(np.ones(8, np.float32), learned)
        counters = link.counters
        assert feed.valid == counters.used + counters.dropped + counters.pending
        assert (counters.used > 0) == learned
    assert counters.dropped > 0, "it is small"
