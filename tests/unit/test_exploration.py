"""Exploring by ε: its schedules, and that actions are drawn as often as their probabilities say."""

import math

import pytest
import torch

from hpcddrl.rl.exploration import EpsilonGreedy, linear_epsilon, spread_epsilons

ACTIONS = 4


def fixed(*epsilons):
    return EpsilonGreedy(lambda: torch.tensor(epsilons))


def values(rows, seed=0):
    return torch.randn(rows, ACTIONS, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 256])
def test_epsilons_spread_as_in_the_paper(count):
    got = spread_epsilons(0.4, 7.0, count)
    for i in range(count):
        exponent = 1.0 if count == 1 else 1 + 7 * i / (count - 1)
        assert float(got[i]) == pytest.approx(0.4**exponent, rel=1e-5)
    assert float(got[0]) == pytest.approx(0.4)
    assert (got[1:] < got[:-1]).all()


def test_a_linear_epsilon_falls_to_its_end_and_stays_there():
    now = [0, 25, 50, 100, 1000]
    assert [linear_epsilon(1.0, 0.2, 100, n) for n in now] == pytest.approx([1.0, 0.8, 0.6, 0.2, 0.2])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 1.0])
def test_probabilities_are_those_of_the_definition_and_sum_to_one(epsilon):
    policy, q = fixed(epsilon), values(5)
    total = torch.zeros(5)
    for a in range(ACTIONS):
        probability = policy.log_prob(q, torch.full((5,), a)).exp()
        for row in range(5):
            best = a == max(range(ACTIONS), key=lambda b: float(q[row, b]))
            expected = epsilon / ACTIONS + (1 - epsilon if best else 0.0)
            assert float(probability[row]) == pytest.approx(expected, abs=1e-7)
        total += probability
    torch.testing.assert_close(total, torch.ones(5))


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0])
def test_actions_are_drawn_as_often_as_their_probabilities_say(epsilon):
    draws = 20_000
    policy, q = fixed(epsilon), values(1).expand(draws, ACTIONS)
    actions = policy.sample(q, torch.Generator().manual_seed(3))
    seen = torch.bincount(actions, minlength=ACTIONS).tolist()
    wanted = [draws * math.exp(policy.log_prob(q[:1], torch.tensor([a])).item()) for a in range(ACTIONS)]
    chi_square = sum((s - w) ** 2 / w for s, w in zip(seen, wanted, strict=True))
    assert chi_square < 16.3, "99.9 % of such draws are below, with three degrees of freedom"


def test_every_row_has_its_own_epsilon():
    draws = 4000
    policy, q = fixed(0.0, 0.2, 1.0), values(3)
    g, best = torch.Generator().manual_seed(0), q.argmax(-1)
    differ = sum((policy.sample(q, g) != best).double() for _ in range(draws)) / draws
    expected = [epsilon * (1 - 1 / ACTIONS) for epsilon in (0.0, 0.2, 1.0)]
    assert differ.tolist() == pytest.approx(expected, abs=0.03)
    assert float(differ[0]) == 0.0
    other = (best + 1) % ACTIONS
    assert policy.log_prob(q, other).exp().tolist() == pytest.approx([e / ACTIONS for e in (0.0, 0.2, 1.0)])


def test_the_epsilon_in_force_is_asked_for_each_time():
    now = [1.0]
    policy, q = EpsilonGreedy(lambda: torch.tensor(now)), values(200)
    g = torch.Generator().manual_seed(0)
    assert not torch.equal(policy.sample(q, g), q.argmax(-1))
    now[0] = 0.0
    assert torch.equal(policy.sample(q, g), q.argmax(-1))


def test_the_greedy_action_and_the_value_of_any():
    policy, q = fixed(1.0), values(6)
    assert torch.equal(policy.greedy(q), q.argmax(-1))
    action = torch.tensor([0, 1, 2, 3, 0, 1])
    got = policy.action_value(q, q.amax(-1), action)
    assert got.tolist() == [float(q[i, a]) for i, a in enumerate(action.tolist())]
