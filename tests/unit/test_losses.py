"""The losses' values, signs and gradients."""

import math

import pytest
import torch

from hpcddrl.rl.losses import (
    EPS_FLOOR,
    clipped_surrogate_loss,
    log_with_floor,
    masked_mean,
    normalised,
    policy_gradient_loss,
    value_loss,
)

VALID = torch.tensor([[1.0, 0.0], [1.0, 1.0]])


def test_masked_mean_is_over_valid_steps_alone():
    x = torch.tensor([[1.0, 100.0], [2.0, 6.0]])
    assert float(masked_mean(x, VALID)) == pytest.approx(3.0)


def test_masked_mean_of_no_valid_step_is_zero():
    assert float(masked_mean(torch.ones(2, 2), torch.zeros(2, 2))) == 0.0


def test_log_with_floor_is_log_pi_above_the_floor_and_flat_below():
    log_pi = torch.tensor([-0.1, math.log(EPS_FLOOR) - 3.0], requires_grad=True)
    floored = log_with_floor(log_pi)
    assert floored.tolist() == pytest.approx([-0.1, math.log(1e-6)])
    floored.sum().backward()
    assert log_pi.grad.tolist() == [1.0, 0.0]


def test_policy_gradient_loss_is_minus_the_mean_of_rho_times_advantage_times_log_pi():
    log_pi = torch.tensor([[-1.0, -9.0], [-2.0, -3.0]], requires_grad=True)
    advantage = torch.tensor([[2.0, 9.0], [-1.0, 0.5]], requires_grad=True)
    ratio = torch.tensor([[0.5, 9.0], [1.0, 2.0]], requires_grad=True)
    loss = policy_gradient_loss(log_pi=log_pi, advantage=advantage, ratio=ratio, valid=VALID)
    assert loss.item() == pytest.approx(-(0.5 * 2 * -1 + 1 * -1 * -2 + 2 * 0.5 * -3) / 3)
    loss.backward()
    # Descent raises log π where the advantage is positive, and lowers it where it is negative.
    torch.testing.assert_close(log_pi.grad, torch.tensor([[-1.0, 0.0], [1.0, -1.0]]) / 3)
    assert advantage.grad is None
    assert ratio.grad is None


def test_value_loss_moves_the_value_towards_a_constant_target():
    value = torch.tensor([[1.0, 5.0], [0.0, -1.0]], requires_grad=True)
    target = torch.tensor([[3.0, 9.0], [0.0, 1.0]], requires_grad=True)
    loss = value_loss(value=value, target=target, valid=VALID)
    assert loss.item() == pytest.approx(0.5 * (4 + 0 + 4) / 3)
    loss.backward()
    torch.testing.assert_close(value.grad, torch.tensor([[-2.0, 0.0], [0.0, -2.0]]) / 3)
    assert target.grad is None


def test_normalised_advantages_have_mean_0_and_deviation_1_over_the_valid_steps():
    advantage = torch.tensor([[1.0, 1e6], [2.0, 6.0]])
    valid_ones = normalised(advantage, VALID)[VALID.bool()]
    expected = (torch.tensor([1.0, 2.0, 6.0]) - 3.0) / torch.tensor([1.0, 2.0, 6.0]).std(correction=0)
    torch.testing.assert_close(valid_ones, expected)


def test_normalised_advantages_of_equal_steps_are_finite():
    assert torch.isfinite(normalised(torch.full((3, 1), 4.0), torch.ones(3, 1))).all()


def surrogate(seed=0, apart=1.0):
    """Return log π (to be differentiated), log μ, advantages and validity of random steps."""
    g = torch.Generator().manual_seed(seed)
    log_mu = -2 * torch.rand(6, 4, generator=g).double()
    log_pi = (log_mu + apart * torch.randn(6, 4, generator=g).double()).requires_grad_()
    valid = (torch.rand(6, 4, generator=g) > 0.2).double()
    return log_pi, log_mu, torch.randn(6, 4, generator=g).double(), valid


@pytest.mark.parametrize("clip", [0.1, 0.2, 0.5])
def test_clipped_surrogate_is_the_papers_and_flat_where_it_is_clipped(clip):
    log_pi, log_mu, advantage, valid = surrogate()
    loss = clipped_surrogate_loss(log_pi=log_pi, log_mu=log_mu, advantage=advantage, clip=clip, valid=valid)
    loss.backward()
    terms, clipped = [], 0
    for t in range(6):
        for b in range(4):
            slope = float(log_pi.grad[t, b])
            if not valid[t, b]:
                assert slope == 0.0
                continue
            r, a = math.exp(log_pi[t, b].item() - float(log_mu[t, b])), float(advantage[t, b])
            terms.append(min(r * a, max(1 - clip, min(1 + clip, r)) * a))
            flat = (a > 0 and r > 1 + clip) or (a < 0 and r < 1 - clip)  # it has gone far enough already
            clipped += flat
            assert slope == pytest.approx(0.0 if flat else -r * a / float(valid.sum()))
    assert loss.item() == pytest.approx(-sum(terms) / len(terms))
    assert 0 < clipped < len(terms)


def test_at_the_policy_that_acted_the_surrogates_gradient_is_the_policy_gradients():
    log_pi, _, advantage, valid = surrogate()
    ratio = torch.ones_like(advantage)
    plain = policy_gradient_loss(log_pi=log_pi, advantage=advantage, ratio=ratio, valid=valid)
    clipped = clipped_surrogate_loss(log_pi=log_pi, log_mu=log_pi.detach(), advantage=advantage, clip=0.2, valid=valid)
    (expected,), (got,) = torch.autograd.grad(plain, [log_pi]), torch.autograd.grad(clipped, [log_pi])
    torch.testing.assert_close(got, expected)


def test_the_surrogate_takes_advantages_as_constants_and_resets_for_nothing():
    log_pi, log_mu, advantage, valid = surrogate()
    log_mu = torch.where(valid > 0, log_mu, -1e4)  # e^10000 is no number, and no gradient
    loss = clipped_surrogate_loss(
        log_pi=log_pi, log_mu=log_mu, advantage=advantage.requires_grad_(), clip=0.2, valid=valid
    )
    loss.backward()
    assert advantage.grad is None
    assert torch.isfinite(log_pi.grad).all()
