"""The weights c = softmax(V / T) of the ensemble's members."""

import math

import pytest
import torch

from hpcddrl.rl.ensemble import mixture_weights

VALUES = torch.tensor([[[1.0, -2.0]], [[0.0, 3.0]], [[2.5, 0.5]]])  # 3 members, 1 × 2 states


@pytest.mark.parametrize("temperature", [0.1, 1.0, 30.0])
def test_weights_are_positive_and_sum_to_one_over_the_members(temperature):
    c = mixture_weights(VALUES, temperature)
    assert c.shape == VALUES.shape
    assert (c > 0).all()
    torch.testing.assert_close(c.sum(0), torch.ones(1, 2))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_weights_equal_a_hand_computation(temperature):
    powers = [math.exp(v / temperature) for v in (1.0, 0.0, 2.5)]
    expected = torch.tensor([p / sum(powers) for p in powers])
    torch.testing.assert_close(mixture_weights(VALUES, temperature)[:, 0, 0], expected)


def test_a_shift_of_all_values_changes_nothing_and_a_scale_does():
    c = mixture_weights(VALUES, 1.0)
    torch.testing.assert_close(mixture_weights(VALUES + 7.0, 1.0), c)
    torch.testing.assert_close(mixture_weights(VALUES * 3.0, 3.0), c)
    assert not torch.allclose(mixture_weights(VALUES * 3.0, 1.0), c)


def test_a_high_temperature_weighs_all_alike_and_a_low_one_takes_the_best():
    torch.testing.assert_close(mixture_weights(VALUES, 1e6), torch.full((3, 1, 2), 1 / 3), atol=1e-5, rtol=0)
    assert mixture_weights(VALUES, 1e-2).argmax(0).tolist() == [[2, 1]]


def test_large_values_do_not_overflow():
    assert torch.isfinite(mixture_weights(VALUES * 1e6, 1.0)).all()
