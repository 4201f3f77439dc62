"""The late stage at a parameter server: learners go on apart, teach one model, and hand it over. Without MPI."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcddrl.config import LateEnsemble, Optimization
from hpcddrl.logs.timing import Timing
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.policies import Categorical
from hpcddrl.roles.apart import Alone, Apart
from hpcddrl.roles.late import LatePeers, OneModel, Spell
from hpcddrl.roles.updates import LocalUpdate, OptimizerStep
from hpcddrl.runtime.late import Late
from hpcddrl.types import Batch, Discrete, EnvSpec, Mixture, Opinion, Stage, Targets, Tuning, Weights

SPEC = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)
OPTIMIZATION = Optimization(learning_rate=1e-2)
K, D, WORKERS = 3, 2, 4
LATE = LateEnsemble(apart_updates=K, distilling_updates=D)


def network(seed):
    return PolicyValueNetwork(SPEC, "mlp", 0.2, seed, Precision())


class Server:
    """Stands for the server: takes gradients with a step of its own, and answers in the stage that it is told."""

    metrics, refused = {"of": "the server"}, True

    def __init__(self, values):
        self.values, self.version, self.frames = values.clone(), 10, 1000.0
        self.stage, self.since, self.last, self.told, self.gradients = Stage.MIDDLE, 0, False, [], 0

    def _answer(self, weights):
        weights.flat.copy_(self.values)
        of_stage = {"stage": self.stage, "since": self.since}
        return weights._replace(version=self.version, frames=self.frames, last=self.last, **of_stage)

    def first(self, weights):
        return self._answer(weights)

    def __call__(self, weights, gradient, frames, samples, loss, stop):
        self.gradients, self.version, self.frames = self.gradients + 1, self.version + 1, self.frames + frames
        self.values -= 0.1 * gradient[: len(self.values)]
        return self._answer(weights)

    def report(self, weights, frames, successor):
        self.told.append((weights.version, frames, None if successor is None else successor.clone()))
        self.frames, self.version = self.frames + frames, max(self.version, weights.version)
        if successor is not None:
            self.values, self.version = successor.clone(), self.version + 1
        return self._answer(weights)


class Learner:
    """A learner's update and what belongs to it; every gradient is of ones."""

    def __init__(self, leads=True):
        self.flat = flatten(network(0))
        step = OptimizerStep(self.flat.values, OPTIMIZATION, None)
        self.one = OneModel(network(1), Categorical(3), OPTIMIZATION, None, Timing())
        self.tuning, self.spell, self.helped = Tuning(), Spell(), []
        self.alone = Alone(
            step=step,
            local=LocalUpdate(step, OPTIMIZATION, Timing()),
            one=self.one,
            leads=lambda: leads,
            tuning=self.tuning,
            entropy=2.0,
            workers=WORKERS,
        )
        self.server = Server(self.flat.values)
        control = SimpleNamespace(helper=lambda name, running, reason, version: self.helped.append((running, version)))
        self.update = Apart(LATE, self.server, self.alone, self.spell, control)
        self.weights = self.update.first(Weights(0, self.flat.values))

    def learn(self, updates=1, stop=False):
        for _ in range(updates):
            gradient = torch.ones(self.flat.values.numel() + 3)
            self.weights = self.update(self.weights, gradient, 20, 20, 0.5, stop)
        return self.weights


def test_each_goes_on_alone_until_the_server_says_that_the_stage_is_over():
    learner = Learner()
    server = learner.server
    assert learner.learn(2).version == 12
    assert (server.gradients, learner.update.metrics, learner.update.refused) == (2, {"of": "the server"}, True)
    server.stage = Stage.LATE
    learner.learn()
    assert (server.gradients, learner.spell.updates, learner.tuning.entropy) == (3, 0, 2.0)
    common = server.values.clone()
    learner.learn(D)
    assert (server.gradients, learner.weights.version, learner.update.refused) == (3, 13 + D, False)
    assert "grad_norm" in learner.update.metrics
    assert torch.equal(server.values, common), "nothing is learned at the server"
    assert not torch.equal(learner.weights.flat, common), "but here"
    assert server.told == [(13 + D, 20.0 * D, None)]
    assert learner.weights.frames == server.frames, "after a word with the server its count holds"
    learner.learn(K + D - 1)
    assert learner.weights.frames == server.frames + (K + D - 1) * 20 * WORKERS, "the others play as much meanwhile"
    assert len(server.told) == 1
    server.stage = Stage.MIDDLE
    assert learner.learn().version == server.version == 13 + D + K + D
    assert server.told[1][:2] == (13 + D + K + D, 20.0 * (K + D))
    assert torch.equal(learner.weights.flat, server.values)
    assert (learner.spell.updates, learner.tuning.entropy) == (None, 1.0)
    assert learner.helped == [(True, 13), (False, 13 + D + K + D)]
    learner.learn()
    assert server.gradients == 4


def test_whoever_has_missed_that_the_stage_ended_begins_the_next_with_the_others():
    learner = Learner(leads=False)
    server = learner.server
    server.stage, server.since = Stage.LATE, 11
    learner.learn(1 + D)
    assert (learner.spell.number, learner.spell.updates, learner.spell.since) == (1, D, 11)
    server.since, server.version = 40, 41  # the middle stage, and the late one again
    learner.learn(K + D)
    assert (learner.spell.number, learner.spell.updates, learner.spell.since) == (2, 0, 40)
    assert torch.equal(learner.flat.values, server.values)
    assert [running for running, _ in learner.helped] == [True, False, True]


@pytest.mark.parametrize("leads", [True, False])
def test_who_leads_hands_over_what_the_one_model_has_learned_and_keeps_its_own(leads):
    learner = Learner(leads)
    learner.server.stage = Stage.LATE
    learner.learn(1 + K)
    learner.one.learned = True
    with torch.no_grad():
        learner.one.values.fill_(0.25)
    before = learner.flat.values.clone()
    learner.learn(2 * D)  # in all, the second time that it tells the server
    version, frames, successor = learner.server.told[-1]
    assert frames == 20.0 * (K + D)
    assert (successor is not None) == leads
    if leads:
        assert (successor == 0.25).all()
        assert (learner.server.values == 0.25).all()
    assert not (learner.flat.values == 0.25).all(), "its own weights stay its own"
    assert float((learner.flat.values - before).abs().max()) < 0.5
    assert learner.weights.version == version


def test_whoever_is_to_stop_tells_the_server_at_once_and_ends_when_it_says_so():
    learner = Learner()
    learner.server.stage = Stage.LATE
    learner.learn()
    assert not learner.learn(stop=True).last
    assert len(learner.server.told) == 1, "after one update, which is less than D"
    learner.server.last = True
    own = learner.learn(stop=True)
    assert own.last
    assert not torch.equal(own.flat, learner.server.values)


def test_a_late_stage_goes_on_from_its_state_and_one_that_was_not_begun_begins():
    first, second = Learner(), Learner()
    first.server.stage = Stage.LATE
    first.learn(1 + D + 1)
    state = first.update.state()
    second.server.stage, second.server.values = Stage.LATE, first.server.values.clone()
    second.update.restore(state)
    second.weights = second.update.first(Weights(first.weights.version, second.flat.values))
    for learner in (first, second):
        learner.learn(2)
    assert torch.equal(first.flat.values, second.flat.values)
    assert second.spell.updates == first.spell.updates == D + 3
    assert (second.tuning.entropy, second.weights.version) == (2.0, first.weights.version)
    third = Learner()
    third.server.stage = Stage.LATE
    third.update.restore(Learner().update.state())
    third.weights = third.update.first(third.weights)
    assert third.spell.updates == 0


def test_what_plays_for_all_learners_is_the_one_model_while_they_are_apart():
    """It is what the server ends with; who leads goes on from weights of its own."""
    learner = Learner()
    late, server = Late(LATE, learner.alone, learner.spell), learner.server
    assert torch.equal(late.common(learner.learn()), server.values)
    server.stage = Stage.LATE
    learner.learn(1 + D)
    assert torch.equal(late.common(learner.weights), server.values), "as they parted"
    assert not torch.equal(learner.weights.flat, server.values)
    learner.one.learned = True
    with torch.no_grad():
        learner.one.values.fill_(0.25)
    server.last = True
    assert torch.equal(late.common(learner.learn(stop=True)), server.values), "as the run ends"
    assert (server.values == 0.25).all()
    server.last, server.stage = False, Stage.MIDDLE
    assert late.common(learner.learn(stop=True)) is learner.weights.flat


def batch_of(seed=0, steps=4, envs=3):
    g, empty = torch.Generator().manual_seed(seed), torch.zeros(steps, 2 * envs)
    observation = torch.randn(2, steps + 1, envs, 5, generator=g)
    return Batch(observation, empty, empty, empty, empty, empty, np.zeros(2), steps * 2 * envs)


def test_the_one_model_comes_to_answer_like_the_ensemble():
    one = OneModel(network(1), Categorical(3), OPTIMIZATION, None, Timing())
    one.begin(Weights(5, flatten(network(0)).values, frames=70.0))
    assert torch.equal(one.values, flatten(network(0)).values)
    assert not one.learned
    g, batch, rows = torch.Generator().manual_seed(3), batch_of(), slice(0, 4)
    mixture = Mixture(2 * torch.randn(4, 6, 3, generator=g), 0.5, torch.randn(4, 6, generator=g))
    losses = []
    for _ in range(300):
        one.learn(batch, rows, mixture)
        losses.append(one.loss)
    assert one.learned
    assert losses[-1] < losses[0] / 10


def test_others_are_heard_in_the_late_stage_only_by_updates_since_it_began():
    calls, spell, one = [], Spell(), SimpleNamespace(learn=lambda batch, rows, mixture: calls.append("taught"))
    mixture = Mixture(torch.zeros(2, 3), 0.5, torch.zeros(2))
    ensemble = SimpleNamespace(
        targets=lambda batch, weights: Targets(slice(2), 0.5, lambda own: mixture),
        hear=lambda: calls.append("heard"),
        exchange=lambda weights: calls.append(weights.version),
        begin_anew=lambda: calls.append("anew"),
    )
    leads = [False]
    peers = LatePeers(ensemble, one, lambda: leads[0], spell)
    weights, own = Weights(77, torch.zeros(0)), Opinion(torch.zeros(2, 3), torch.zeros(2))
    assert peers.targets(None, weights) is None
    peers.exchange(weights)
    assert calls == []
    spell.number, spell.updates = 1, 0
    peers.exchange(weights)
    spell.updates = 1
    peers.exchange(weights)
    assert peers.targets(None, weights).mix(own) is mixture
    assert calls == ["anew", 1, "heard"], "what came after the last meeting counts too"
    leads[0] = True
    assert peers.targets(None, weights).mix(own) is mixture
    assert calls[3:] == ["heard", "taught"]
    spell.number, spell.updates = 2, 1
    peers.exchange(weights)
    assert calls[5:] == ["anew", 1]


def test_entropies_are_spread_evenly_in_their_logarithm():
    late = LateEnsemble(entropy_spread=4.0)
    assert [late.entropy_of(i, 3) for i in range(3)] == pytest.approx([0.25, 1.0, 4.0])
    assert late.entropy_of(0, 1) == 1.0
    assert LATE.ensemble.exchange_every == K + D
    assert [n for n in range(1, 13) if LATE.hands_over(n)] == [2, 7, 12]
