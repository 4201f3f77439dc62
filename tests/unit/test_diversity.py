"""How different policies are, and the guard against their collapse."""

import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from hpcddrl.rl.diversity import between_others, guard, pairwise_disagreement, pairwise_divergence
from hpcddrl.rl.ensemble import uniform_weights
from hpcddrl.rl.policies import Categorical, Gaussian


def torch_gaussian(params):
    return Independent(Normal(params[..., :2], params[..., 2:].exp()), 1)


FAMILIES = [
    pytest.param(Categorical(4), lambda params: TorchCategorical(logits=params), id="categorical"),
    pytest.param(Gaussian(2), torch_gaussian, id="gaussian"),
]


def members(n=3, seed=0):
    return torch.randn(n, 5, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("family", "reference"), FAMILIES)
def test_divergence_and_disagreement_equal_loops_over_pairs_and_states(family, reference):
    policies = members()
    divergence, disagreement = pairwise_divergence(family, policies), pairwise_disagreement(family, policies)
    for i in range(3):
        for j in range(3):
            states = [(policies[i, s, n], policies[j, s, n]) for s in range(5) for n in range(6)]
            kls = [float(kl_divergence(reference(a), reference(b))) for a, b in states]
            assert float(divergence[i, j]) == pytest.approx(sum(kls) / len(kls), abs=1e-9)
            differ = [float(family.differ(a, b)) for a, b in states]
            assert float(disagreement[i, j]) == pytest.approx(sum(differ) / len(differ))
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    assert between_others(divergence) == pytest.approx(sum(float(divergence[p]) for p in pairs) / 6)


def test_discrete_policies_differ_where_their_likeliest_actions_do():
    one, other = torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([[9.0, -1.0], [1.0, 1.5]])
    assert Categorical(2).differ(one, other).tolist() == [False, True]


def test_gaussian_policies_differ_where_their_means_are_further_apart_than_both_deviations():
    def params(mean, deviation):
        return torch.cat([torch.tensor(mean), torch.tensor(deviation).log()])

    narrow, wide = params([0.0, 0.0], [0.1, 0.1]), params([0.0, 0.5], [0.1, 1.0])
    assert not Gaussian(2).differ(narrow, wide)
    assert Gaussian(2).differ(narrow, params([0.0, 0.5], [0.1, 0.4]))
    assert not Gaussian(2).differ(narrow, narrow)


def test_one_member_is_no_pair():
    assert between_others(torch.zeros(1, 1)) == 0.0


def test_the_guard_is_one_above_the_least_divergence_and_falls_to_zero_with_it():
    assert [guard(d, 0.1) for d in (5.0, 0.1, 0.05, 0.0)] == [1.0, 1.0, 0.5, 0.0]
    assert guard(0.0, 0.0) == 1.0


def distil(least, steps=400, beta=5.0):
    """Let three policies of one state be drawn to goals of their own, weakly, and to their mixture; return how far
    they are apart, and the guards on the way."""
    family = Categorical(3)
    goals = 2 * torch.eye(3)
    policies = goals.clone().requires_grad_()
    guards = []
    for _ in range(steps):
        apart = between_others(pairwise_divergence(family, policies.detach()[:, None]))
        guards.append(guard(apart, least))
        mixture = family.mixture(policies.detach(), uniform_weights(torch.zeros(3)))
        own = family.kl(goals, policies).sum()
        loss = own + beta * guards[-1] * family.kl(mixture.expand(3, 3), policies).sum()
        (gradient,) = torch.autograd.grad(loss, policies)
        with torch.no_grad():
            policies -= 0.1 * gradient
    return apart, guards


def test_the_guard_fires_when_groups_collapse_onto_each_other_and_holds_them_apart():
    free, unguarded = distil(least=0.0)
    held, guards = distil(least=0.5)
    assert free < 0.1, "this β does not pull them together"
    assert set(unguarded) == {1.0}
    assert guards[0] == 1.0
    assert min(guards) < 0.8
    assert held > 3 * free
