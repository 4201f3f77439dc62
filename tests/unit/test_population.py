"""Population-based training over groups: who takes over what, and when; without MPI."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcddrl.algorithms.actor_critic import ActorCritic
from hpcddrl.comm.exchange import Arrived
from hpcddrl.config import ActorCritic as ActorCriticConfig
from hpcddrl.config import Optimization, Population
from hpcddrl.logs.schema import COLUMNS
from hpcddrl.logs.timing import Timing
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.flat import architecture, flatten
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.policies import Categorical
from hpcddrl.rl.population import explored, lags_behind
from hpcddrl.roles.meetings import Meetings
from hpcddrl.roles.members import Members
from hpcddrl.roles.population import PopulationPeers
from hpcddrl.roles.updates import OptimizerStep
from hpcddrl.types import Batch, Discrete, EnvSpec, Tuning, Weights

SPEC = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)
R, B = 2, 3


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (10.0, 10.4, False),
        (10.0, 10.6, True),
        (-10.0, -9.6, False),
        (-10.0, -9.4, True),
        (0.0, 0.1, True),
        (math.nan, 5.0, False),
        (5.0, math.nan, False),
    ],
)
def test_a_group_lags_behind_one_that_is_better_by_more_than_the_margin(own, other, expected):
    assert lags_behind(own, other, 0.05) is expected


def test_hyper_parameters_go_up_or_down_as_often_and_not_always():
    dice = random.Random(1)
    found = [explored((2.0,), 1.25, 0.4, dice)[0] for _ in range(4000)]
    counts = {value: found.count(value) / 4000 for value in set(found)}
    assert counts == {
        2.0: pytest.approx(0.6, abs=0.03),
        2.5: pytest.approx(0.2, abs=0.03),
        1.6: pytest.approx(0.2, abs=0.03),
    }
    assert explored((2.0, 3.0), 1.2, 0.0, dice) == (2.0, 3.0)


def network(seed):
    return PolicyValueNetwork(SPEC, "mlp", 0.1, seed, Precision())


def values(seed):
    return flatten(network(seed)).values


def batch(reward, steps=4):
    """Episodes of `steps` − 1 steps, each with this reward."""
    valid = torch.ones(steps, R * B)
    valid[0] = 0.0
    empty = torch.zeros(steps, R * B)
    rewards = torch.full((steps, R * B), reward)
    return Batch(
        torch.randn(R, steps + 1, B, 5), empty.long(), empty, rewards, empty, valid, np.zeros(R), steps * R * B
    )


class Group:
    """Group 1 of 3, with what it posts, hears and notes."""

    skipped = nbytes = 0
    gone = frozenset()

    def __init__(self, **options):
        self.arrived, self.posted, self.rows, self.tuning = [], [], {}, Tuning(2.0, 0.5)
        control = SimpleNamespace(timing=Timing(), note=self.note)
        config = Population(**({"exchange_every": 1, "window_frames": 10, "burn_in_frames": 0} | options))
        members, line = Members([network(9)] * 3, 1.0), SimpleNamespace(size=1)
        meetings = Meetings(config, members, [0, 2, 4], 1, self, line, 1, False, control)
        self.peers, self.flat, self.frames = PopulationPeers(config, meetings, self.tuning, 1, control), values(1), 0

    def note(self, table, **row):
        assert {f"{table}/{name}" for name in row} <= set(COLUMNS)
        self.rows.setdefault(table, []).append(row)

    def post(self, weights, score, tuning, to):
        self.posted.append((weights.version, score, tuning.learning_rate, tuning.entropy))

    def look(self):
        pass

    def take(self, use):
        for arrived in self.arrived:
            use(arrived)
        self.arrived = []

    def learn(self, reward):
        """Let a window of frames pass with episodes of three such rewards."""
        for _ in range(2):
            self.peers.targets(batch(reward), Weights(0, self.flat, self.frames))
            self.frames += 10

    def meet(self, version, score, seed=2):
        arrived = Arrived(4, 70 + version, architecture(network(seed)), score, (4.0, 1.0), values(seed).numpy())
        self.arrived = [arrived]
        self.peers.exchange(Weights(version, self.flat, self.frames))


def test_a_group_that_lags_behind_takes_over_weights_and_varied_hyper_parameters():
    group = Group(chance=1.0, step=2.0)
    group.learn(1.0)  # its return is 3
    group.meet(1, score=5.0)
    assert torch.equal(group.flat, values(2))
    assert group.tuning.learning_rate in (2.0, 8.0)
    assert group.tuning.entropy in (0.5, 2.0)
    assert group.posted == [(1, 3.0, 2.0, 0.5)], "its own, as they were"
    (row,) = group.rows["lineage"]
    assert (row["parent"], row["parent_version"], row["score"], row["parent_score"]) == (2, 71.0, 3.0, 5.0)
    assert (row["learning_rate"], row["entropy"]) == (group.tuning.learning_rate, group.tuning.entropy)


def test_a_group_that_is_as_good_keeps_its_own():
    group = Group()
    group.learn(1.0)
    group.meet(1, score=3.1)
    assert torch.equal(group.flat, values(1))
    assert group.tuning == Tuning(2.0, 0.5)
    assert "lineage" not in group.rows
    assert group.rows["exchange"][0]["peers"] == 1


def test_after_taking_over_it_is_measured_anew_before_it_takes_or_gives_again():
    group = Group()
    group.learn(1.0)
    group.meet(1, score=5.0)
    group.meet(2, score=50.0, seed=3)
    assert math.isnan(group.posted[-1][1])
    assert torch.equal(group.flat, values(2))
    group.learn(4.0)
    group.meet(3, score=50.0, seed=3)
    assert group.posted[-1][1] == 12.0
    assert torch.equal(group.flat, values(3))


def test_nothing_is_taken_over_before_the_burn_in_is_over_or_twice():
    group = Group(burn_in_frames=30)
    group.learn(1.0)
    group.meet(1, score=5.0)
    assert torch.equal(group.flat, values(1))
    group.learn(1.0)
    group.peers.exchange(Weights(2, group.flat, group.frames))
    assert torch.equal(group.flat, values(1)), "what came before has been looked at already"
    group.meet(3, score=5.0)
    assert torch.equal(group.flat, values(2))


def test_the_optimizer_takes_the_learning_rate_in_force():
    tuning, flat = Tuning(), torch.zeros(2)
    step = OptimizerStep(flat, Optimization(learning_rate=0.1), None, tuning=tuning)
    assert step(torch.ones(2), 1) == pytest.approx(0.1)
    tuning.learning_rate = 2.5
    assert step(torch.ones(2), 1) == pytest.approx(0.25)
    assert step.optimizer.param_groups[0]["lr"] == pytest.approx(0.25)


def test_the_loss_takes_the_entropy_coefficient_in_force():
    def gradient(coefficient, factor):
        net = network(3)
        flat = flatten(net)
        config = ActorCriticConfig(entropy_coefficient=coefficient)
        algorithm = ActorCritic(config, net, flat.gradient, Categorical(3), Tuning(1.0, factor))
        torch.manual_seed(0)
        algorithm.gradients(batch(1.0), None, Weights(0, flat.values))
        return flat.gradient.clone()

    torch.testing.assert_close(gradient(0.5, 3.0), gradient(1.5, 1.0))
    assert not torch.allclose(gradient(0.5, 3.0), gradient(0.5, 1.0))
