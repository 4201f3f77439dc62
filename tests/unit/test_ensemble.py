"""The weights c of the ensemble's members, and how much the ensemble counts."""

import math
import statistics

import pytest
import torch

from hpcddrl.rl.ensemble import (
    best_group_weights,
    best_weights,
    climb,
    no_moments,
    plateaued,
    softmax_weights,
    standardised,
    uniform_weights,
    updated_moments,
)

VALUES = torch.tensor([[[1.0, -2.0]], [[0.0, 3.0]], [[2.5, 0.5]]])  # 3 members, 1 × 2 states


def rules(values, moments):
    """Return c by every rule."""
    scaled = standardised(values, moments)
    return {
        "softmax": softmax_weights(values, 0.7),
        "softmax, normalised": softmax_weights(scaled, 0.7),
        "uniform": uniform_weights(values),
        "best": best_weights(values),
        "best, normalised": best_weights(scaled),
    }


def batches(count, members=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 5.0, 0.2]).view(-1, 1, 1)[:members]
    return [scale * torch.randn(members, 4, 5, generator=generator) + 3 * scale for _ in range(count)]


def moments_of(seen, decay=0.99):
    moments = no_moments(len(seen[0]))
    for values in seen:
        moments = updated_moments(moments, range(len(values)), values, decay)
    return moments


def test_every_rules_weights_are_not_negative_and_sum_to_one_over_the_members():
    seen = batches(3)
    for name, c in rules(seen[-1], moments_of(seen)).items():
        assert c.shape == seen[-1].shape, name
        assert (c >= 0).all(), name
        torch.testing.assert_close(c.sum(0), torch.ones(4, 5), msg=name)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_softmax_weights_equal_a_hand_computation(temperature):
    powers = [math.exp(v / temperature) for v in (1.0, 0.0, 2.5)]
    expected = torch.tensor([p / sum(powers) for p in powers])
    torch.testing.assert_close(softmax_weights(VALUES, temperature)[:, 0, 0], expected)


def test_a_shift_of_all_values_changes_nothing_and_a_scale_does():
    c = softmax_weights(VALUES, 1.0)
    torch.testing.assert_close(softmax_weights(VALUES + 7.0, 1.0), c)
    torch.testing.assert_close(softmax_weights(VALUES * 3.0, 3.0), c)
    assert not torch.allclose(softmax_weights(VALUES * 3.0, 1.0), c)


def test_a_high_temperature_weighs_all_alike_and_a_low_one_takes_the_best():
    torch.testing.assert_close(softmax_weights(VALUES, 1e6), uniform_weights(VALUES), atol=1e-5, rtol=0)
    torch.testing.assert_close(softmax_weights(VALUES, 1e-2), best_weights(VALUES))


def test_the_best_member_of_each_state_has_all_the_weight_and_the_first_of_equals():
    assert best_weights(VALUES).tolist() == [[[0.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]]
    assert best_weights(torch.zeros(3, 1)).flatten().tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("scores", "best"),
    [([1.0, 3.0, 2.0], 1), ([math.nan, -5.0, -9.0], 1), ([-math.inf, -5.0, math.nan], 1), ([math.nan] * 3, 0)],
)
def test_the_group_with_the_best_score_has_all_the_weight_on_every_state(scores, best):
    c = best_group_weights(VALUES, torch.tensor(scores))
    assert (c[best] == 1.0).all()
    assert (c.sum(0) == 1.0).all()


def test_large_values_do_not_overflow():
    assert torch.isfinite(softmax_weights(VALUES * 1e6, 1.0)).all()


# --- normalised values


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.99])
def test_moments_equal_those_of_all_values_with_the_weights_of_their_batches(decay):
    seen = batches(6)
    moments = moments_of(seen, decay)
    shares = [0.0] * len(seen)
    for n in range(len(seen)):
        new = max(1 / (n + 1), 1 - decay)
        shares = [share * (1 - new) for share in shares]
        shares[n] = new
    assert sum(shares) == pytest.approx(1.0)
    for member in range(3):
        numbers = [values[member].double().flatten() for values in seen]
        mean = sum(share * float(x.mean()) for share, x in zip(shares, numbers, strict=True))
        square = sum(share * float(((x - mean) ** 2).mean()) for share, x in zip(shares, numbers, strict=True))
        assert float(moments.mean[member]) == pytest.approx(mean)
        assert float(moments.variance[member]) == pytest.approx(square)


def test_the_first_batches_make_a_plain_mean_and_deviation():
    seen = batches(5)
    moments, numbers = moments_of(seen), [float(v) for values in seen for v in values[1].flatten()]
    assert float(moments.mean[1]) == pytest.approx(statistics.fmean(numbers))
    assert float(moments.variance[1]) == pytest.approx(statistics.pvariance(numbers))


def test_moments_of_members_that_were_not_there_stay():
    before = moments_of(batches(2))
    after = updated_moments(before, [0, 2], torch.zeros(2, 4), 0.9)
    assert [float(x[1]) for x in after] == [float(x[1]) for x in before]
    assert after.batches.tolist() == [3.0, 2.0, 3.0]


@pytest.mark.parametrize("rule", ["softmax, normalised", "best, normalised", "uniform"])
@pytest.mark.parametrize(("shift", "scale"), [(100.0, 1.0), (0.0, 1000.0), (-7.0, 0.01)])
def test_an_over_estimating_critic_or_another_reward_scale_changes_nothing(rule, shift, scale):
    seen = batches(4)
    other = [values.clone() for values in seen]
    for values in other:
        values[1] = scale * values[1] + shift
    plain, moved = (rules(values[-1], moments_of(values))[rule] for values in (seen, other))
    torch.testing.assert_close(moved, plain, atol=1e-4, rtol=1e-4)


def test_without_normalising_such_a_critic_takes_all_the_weight():
    seen = batches(1)[0]
    seen[1] += 1000.0
    assert (rules(seen, moments_of([seen]))["softmax"][1] == 1.0).all()
    assert (rules(seen, moments_of([seen]))["softmax, normalised"][1] < 0.9).any()


def test_members_whose_spread_is_unknown_get_zero_and_so_equal_weights():
    values = batches(1)[0]
    assert torch.equal(standardised(values, no_moments(3)), torch.zeros_like(values))
    constant = moments_of([torch.full((3, 4), 5.0)])
    assert torch.equal(standardised(torch.full((3, 4), 9.0), constant), torch.zeros(3, 4))


# --- how much it counts


def test_climb_is_zero_then_linear_then_one():
    assert [climb(f, 100.0, 50.0) for f in (0, 100, 110, 125, 150, 1e9)] == [0.0, 0.0, 0.2, 0.5, 1.0, 1.0]


RISING = [-21.0, -20.0, -15.0, -8.0, 0.0, 8.0]


@pytest.mark.parametrize(
    ("returns", "patience", "gain", "expected"),
    [
        (RISING, 2, 0.05, False),
        ([*RISING, 8.5, 8.2], 2, 0.05, True),
        ([*RISING, 8.5, 8.2], 3, 0.05, False),  # the rise to 8 is among the last three
        ([*RISING, 8.5, 12.0], 2, 0.05, False),  # a gain of 4 of 33
        ([*RISING, 8.5, 12.0], 2, 0.5, True),
        ([*RISING, 2.0, 1.0], 2, 0.0, True),  # it fell
        ([5.0], 1, 0.05, False),  # nothing before it
        ([5.0, 5.0], 1, 0.05, True),
        ([], 1, 0.05, False),
    ],
)
def test_a_plateau_is_when_the_last_windows_gain_little(returns, patience, gain, expected):
    assert plateaued(returns, patience, gain) is expected
    assert plateaued([100 * r - 3 for r in returns], patience, gain) is expected, "it depends on the rewards' scale"
