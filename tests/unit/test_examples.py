"""The examples of the documentation do what their pages say, and stay short."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from teachers import blueprint_of, size_of, states_of, teacher_of

from hpcddrl.compressors.compressed import Compressor
from hpcddrl.compressors.student import Whole
from hpcddrl.config import Env
from hpcddrl.envs.make import make, probe
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.policies import policy_for
from hpcddrl.types import Batch, Discrete, Weights

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
LINES = 100


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert len(path.read_text().splitlines()) < LINES


# --- an environment


def test_the_environment_can_be_named_and_played():
    envs = make(Env(id="lights:Lights", options={"lamps": 4}), 3, [1, 2, 3], 0.99, threads=1)
    assert envs.spec.frame_shape == (4,)
    assert envs.spec.action == Discrete(4)
    first = envs.reset()
    assert first.any(axis=1).all(), "a row with something to do"
    again = make(Env(id="lights:Lights", options={"lamps": 4}), 3, [1, 2, 3], 0.99, threads=1).reset()
    np.testing.assert_array_equal(first, again)


def test_pressing_switches_neighbours_and_darkness_ends_the_episode():
    from lights import Lights

    env = Lights(lamps=5, presses=2)
    env.reset(seed=0)
    env._lit[:] = [True, True, False, False, False]
    assert env.step(np.int64(0))[1:4] == (0.9, True, False)
    env.reset(seed=0)
    env._lit[:] = [True, False, False, False, False]
    observation, reward, terminated, truncated, _ = env.step(np.int64(3))
    assert observation.tolist() == [1, 0, 1, 1, 1]
    assert (reward, terminated, truncated) == (-0.1, False, False)
    assert env.step(np.int64(3))[2:4] == (False, True), "cut off, not ended"


# --- a part of an algorithm


@pytest.fixture
def learning():
    spec = probe(Env(id="CartPole-v1"))
    network = PolicyValueNetwork(spec, "mlp", 0.25, 0, Precision())
    return spec, network, flatten(network)


def batch_of(reward, observations):
    """Return a rollout of one step in two environments that takes action 1 in both, with these rewards."""
    return Batch(
        observation=observations,
        action=torch.ones(1, 2, dtype=torch.int64),
        log_mu=torch.full((1, 2), -0.7),
        reward=torch.tensor([reward]),
        discount=torch.zeros(1, 2),
        valid=torch.ones(1, 2),
        versions=np.zeros(2, np.int64),
        steps=2,
    )


def test_the_gradient_is_the_formulas(learning):
    from advantage_weighted import AdvantageWeighted

    spec, network, flat = learning
    policy, states = policy_for(spec.action), torch.randn(1, 2, 2, 4, generator=torch.Generator().manual_seed(1))
    part = AdvantageWeighted(network, flat.gradient, policy, temperature=0.5, most=3.0)
    found = part.gradients(batch_of([1.0, -0.5], states), None, Weights(0, flat.values))
    gradient = flat.gradient.clone()

    network.zero_grad(set_to_none=False)
    output = network(states[0, 0])
    log_pi = torch.log_softmax(output.policy, -1)[:, 1]
    rho = torch.exp(log_pi + 0.7).clamp(max=1).detach()
    reward = torch.tensor([1.0, -0.5])
    value = output.value
    target = (value + rho * (reward - value)).detach()
    weight = torch.exp((reward - value).detach() / 0.5).clamp(max=3.0)
    loss = -(weight * log_pi).mean() + 0.5 * (target - value).square().mean()
    loss.backward()
    assert found.metrics["loss"] == pytest.approx(float(loss.detach()), abs=1e-6)
    torch.testing.assert_close(gradient, flat.gradient)
    assert gradient.abs().max() > 0


def test_descent_prefers_the_better_state_action(learning):
    from advantage_weighted import AdvantageWeighted

    spec, network, flat = learning
    policy, states = policy_for(spec.action), torch.randn(1, 2, 2, 4, generator=torch.Generator().manual_seed(2))

    def probability():
        with torch.no_grad():
            return torch.softmax(network(states[0, 0]).policy, -1)[:, 1]

    before = probability()
    AdvantageWeighted(network, flat.gradient, policy, temperature=0.2).gradients(
        batch_of([2.0, -2.0], states), None, Weights(0, flat.values)
    )
    with torch.no_grad():
        flat.values.sub_(0.01 * flat.gradient)
    risen = probability() - before
    assert risen[0] > 0
    assert risen[0] > risen[1]


# --- a compressor


@pytest.mark.parametrize("kind", ["nips", "mlp, Gaussian"])
@torch.no_grad()
def test_what_was_packed_answers_as_what_packed_it_in_a_sixteenth_of_the_bytes(kind):
    from ternary import TernaryStandIn

    blueprint = blueprint_of(kind)
    teacher, states = teacher_of(blueprint), states_of(blueprint.spec)
    compressor = Compressor(Whole(blueprint.build()), TernaryStandIn(blueprint.build()))
    actor = TernaryStandIn(blueprint.build())
    assert len(actor.pack()) == len(compressor.stand_in.pack()), "known before there is a teacher"
    compressor.follow(teacher, states)
    actor.unpack(compressor.stand_in.pack())
    wanted, given = compressor.stand_in(states), actor(states)
    torch.testing.assert_close(given.policy, wanted.policy)
    torch.testing.assert_close(given.value, wanted.value)
    others = sum(p.numel() for p in teacher.parameters() if p.dim() == 1)
    assert len(actor.pack()) <= size_of(teacher) / 4 + 4 * others + 40
    matrices = [p for p in actor._network.parameters() if p.dim() > 1]
    assert all(len(m.unique()) <= 3 for m in matrices)


@torch.no_grad()
def test_ternary_weights_are_like_the_teachers():
    from ternary import ternary

    weight = torch.randn(200, 50, generator=torch.Generator().manual_seed(0))
    signs, scale = ternary(weight)
    cosine = torch.nn.functional.cosine_similarity((signs * scale).flatten(), weight.flatten(), 0)
    assert 0.85 < cosine < 0.95
    assert set(signs.unique().tolist()) == {-1, 0, 1}
    assert "ternary" in sys.modules
