"""The losses' values, signs and gradients."""

import math

import pytest
import torch

from hpcddrl.rl.losses import (
    EPS_FLOOR,
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
