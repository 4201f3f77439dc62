"""Both families of policies against torch.distributions, hand computations and numeric derivatives."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from hpcddrl.rl.policies import Categorical, Gaussian, policy_for
from hpcddrl.types import Continuous, Discrete

ACTIONS, DIM = 5, 2


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torch_gaussian(params):
    mean, log_std = params.chunk(2, -1)
    return Independent(Normal(mean, log_std.exp()), 1)


def torch_categorical(params):
    return TorchCategorical(logits=params)


FAMILIES = [
    pytest.param(Categorical(ACTIONS), torch_categorical, id="categorical"),
    pytest.param(Gaussian(DIM), torch_gaussian, id="gaussian"),
]


def numeric_gradient(f, x, step=1e-6):
    """Return ∂f/∂x by central differences."""
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        ends = []
        for sign in (1, -1):
            moved = x.detach().clone()
            moved.view(-1)[i] += sign * step
            ends.append(float(f(moved)))
        gradient.view(-1)[i] = (ends[0] - ends[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize(("family", "reference"), FAMILIES)
def test_log_prob_and_entropy_equal_torchs(family, reference):
    params = 2 * random(3, 4, family.size)
    action = reference(params).sample()
    torch.testing.assert_close(family.log_prob(params, action), reference(params).log_prob(action))
    torch.testing.assert_close(family.entropy(params), reference(params).entropy())


@pytest.mark.parametrize(("family", "reference"), FAMILIES)
def test_kl_equals_torchs_is_not_negative_and_vanishes_only_for_the_same_policy(family, reference):
    target, params = random(50, family.size, seed=1), random(50, family.size, seed=2)
    kl = family.kl(target, params)
    torch.testing.assert_close(kl, kl_divergence(reference(target), reference(params)))
    assert (kl > 1e-6).all()
    torch.testing.assert_close(family.kl(params, params), torch.zeros(50, dtype=torch.float64))


@pytest.mark.parametrize(("family", "reference"), FAMILIES)
def test_kl_gradient_equals_the_numeric_one_and_spares_the_target(family, reference):
    target = random(family.size, seed=3).requires_grad_()
    params = random(family.size, seed=4).requires_grad_()
    family.kl(target, params).backward()
    assert target.grad is None
    expected = numeric_gradient(lambda p: kl_divergence(reference(target.detach()), reference(p)), params)
    torch.testing.assert_close(params.grad, expected, atol=1e-7, rtol=1e-6)


def test_categorical_draws_each_action_as_often_as_its_probability():
    draws = 20_000
    probabilities = torch.tensor([0.02, 0.08, 0.2, 0.3, 0.4])
    logits = (probabilities.log() + 3.0).expand(draws, ACTIONS)
    counts = Categorical(ACTIONS).sample(logits, torch.Generator().manual_seed(0)).bincount(minlength=ACTIONS)
    expected = draws * probabilities
    chi_square = float(((counts - expected).square() / expected).sum())
    assert chi_square < 18.5  # the 99.9 % quantile with 4 degrees of freedom


def test_categorical_draws_of_different_rows_are_independent():
    draws = 20_000
    generator = torch.Generator().manual_seed(1)
    pairs = Categorical(2).sample(torch.zeros(draws, 2, 2), generator)
    counts = (2 * pairs[:, 0] + pairs[:, 1]).bincount(minlength=4)
    assert float(((counts - draws / 4).square() / (draws / 4)).sum()) < 16.3  # 99.9 %, 3 degrees of freedom


def test_gaussian_draws_have_the_mean_and_deviation_asked_for():
    draws = 40_000
    params = torch.tensor([1.0, -3.0, math.log(0.5), math.log(2.0)])
    sample = Gaussian(DIM).sample(params.expand(draws, 4), torch.Generator().manual_seed(0))
    standard = (sample - params[:2]) / params[2:].exp()
    assert standard.shape == (draws, 2)
    assert (standard.mean(0).abs() < 4 / math.sqrt(draws)).all()
    assert ((standard.square().mean(0) - 1).abs() < 4 * math.sqrt(2 / draws)).all()
    assert abs(float(standard.prod(1).mean())) < 4 / math.sqrt(draws)
    within = (standard.abs() < 1).double().mean(0)
    torch.testing.assert_close(within, torch.full_like(within, 0.6827), atol=0.01, rtol=0)


@pytest.mark.parametrize(("family", "reference"), FAMILIES)
def test_draws_depend_on_their_generator_alone(family, reference):
    params = random(64, family.size).float()
    draw = [family.sample(params, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])


def test_greedy_takes_the_likeliest_action():
    params = random(30, ACTIONS)
    assert torch.equal(Categorical(ACTIONS).greedy(params), torch_categorical(params).probs.argmax(-1))
    params = random(30, 2 * DIM)
    assert torch.equal(Gaussian(DIM).greedy(params), params[:, :DIM])


def test_categorical_mixture_equals_a_hand_computation():
    one, other = [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]
    members = torch.tensor([one, other], dtype=torch.float64).log() + torch.tensor([[5.0], [-2.0]])
    mixed = Categorical(3).mixture(members[:, None], torch.tensor([[0.25], [0.75]], dtype=torch.float64))
    expected = torch.tensor([[0.25 * a + 0.75 * b for a, b in zip(one, other, strict=True)]]).double()
    torch.testing.assert_close(mixed.softmax(-1), expected)


def test_a_member_of_weight_zero_counts_for_nothing():
    members = random(2, 4, ACTIONS)
    weights = torch.tensor([[1.0], [0.0]], dtype=torch.float64).expand(2, 4)
    mixed = Categorical(ACTIONS).mixture(members, weights)
    torch.testing.assert_close(mixed, members[0].log_softmax(-1))
    assert torch.isfinite(Categorical(ACTIONS).kl(mixed, members[1])).all()


def test_gaussian_mixture_has_the_mixtures_mean_and_variance_by_quadrature():
    members, weights = random(3, 2, seed=5), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    x, density = quadrature(members, weights)
    mean = float((density * x).sum())
    deviation = math.sqrt(float((density * (x - mean) ** 2).sum()))
    mixed = Gaussian(1).mixture(members[:, None], weights[:, None])[0]
    assert mixed.tolist() == pytest.approx([mean, math.log(deviation)])


@pytest.mark.parametrize(("family", "reference"), FAMILIES)
def test_mixture_of_equals_is_that_policy(family, reference):
    params = random(4, family.size)
    mixed = family.mixture(params.expand(3, -1, -1), torch.full((3, 4), 1 / 3, dtype=torch.float64))
    zeros = torch.zeros(4, dtype=torch.float64)
    torch.testing.assert_close(kl_divergence(reference(mixed), reference(params)), zeros)


def quadrature(members, weights):
    """Return points and probabilities of a mixture of Gaussians [n, (mean, log σ)] in one dimension."""
    x = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
    density = sum(c * Normal(m[0], m[1].exp()).log_prob(x).exp() for c, m in zip(weights, members, strict=True))
    return x, density * (x[1] - x[0])


def test_gaussian_kl_to_the_mixture_has_the_gradient_of_the_cross_entropy_with_the_true_mixture():
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    members = random(3, 2 * DIM, seed=6)  # means, then log deviations
    params = random(2 * DIM, seed=7).requires_grad_()
    family = Gaussian(DIM)
    family.kl(family.mixture(members, weights), params).backward()

    def cross_entropy(p):
        total = torch.zeros((), dtype=torch.float64)
        for d in range(DIM):  # log π is a sum over the dimensions: their marginals are enough
            x, probability = quadrature(members[:, [d, DIM + d]], weights)
            total = total - (probability * Normal(p[d], p[DIM + d].exp()).log_prob(x)).sum()
        return total

    expected = params.detach().clone().requires_grad_()
    cross_entropy(expected).backward()
    torch.testing.assert_close(params.grad, expected.grad, atol=1e-8, rtol=1e-7)


def test_policy_for_chooses_the_family_by_the_action_space():
    discrete = policy_for(Discrete(4))
    assert isinstance(discrete, Categorical)
    assert discrete.size == 4
    box = np.ones(3, np.float32)
    continuous = policy_for(Continuous(-box, box))
    assert isinstance(continuous, Gaussian)
    assert continuous.size == 6
