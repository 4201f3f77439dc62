"""Q-learning's targets and loss against the papers' formulas, one transition at a time."""

import pytest
import torch

from hpcddrl.rl.q_targets import huber, q_targets

N, ACTIONS = 9, 4


def random_transitions(seed=0):
    """Return rewards, discounts (some 0, of terminated episodes), and both networks' Q of what follows."""
    g = torch.Generator().manual_seed(seed)
    discount = torch.tensor([0.9, 0.0, 0.81, 0.729, 0.0, 0.9, 0.9, 0.81, 0.9]).double()
    return (
        torch.randn(N, generator=g).double(),
        discount,
        torch.randn(N, ACTIONS, generator=g).double(),
        torch.randn(N, ACTIONS, generator=g).double(),
    )


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_targets_equal_the_papers_formulas(double, seed):
    reward, discount, own, target = random_transitions(seed)
    got = q_targets(reward=reward, discount=discount, next_q=own, next_target_q=target, double=double)
    for i in range(N):
        choosing = own if double else target
        best = max(range(ACTIONS), key=lambda a: float(choosing[i, a]))
        assert float(got[i]) == pytest.approx(float(reward[i]) + float(discount[i]) * float(target[i, best]))


def test_a_terminated_transition_bootstraps_from_nothing():
    reward, discount, own, target = random_transitions()
    for double in (False, True):
        one = q_targets(reward=reward, discount=discount, next_q=own, next_target_q=target, double=double)
        other = q_targets(reward=reward, discount=discount, next_q=-own, next_target_q=9 - target, double=double)
        ended = discount == 0
        assert torch.equal(one[ended], reward[ended])
        assert torch.equal(other[ended], reward[ended])
        assert not (one[~ended] == other[~ended]).any()


def test_double_targets_are_never_above_single_ones():
    reward, discount, own, target = random_transitions()
    single, double = (
        q_targets(reward=reward, discount=discount, next_q=own, next_target_q=target, double=d) for d in (False, True)
    )
    assert (double <= single).all()
    assert (double < single).any()


@pytest.mark.parametrize("double", [False, True])
def test_no_gradient_flows_through_targets(double):
    reward, discount, own, target = random_transitions()
    got = q_targets(
        reward=reward,
        discount=discount,
        next_q=own.requires_grad_(),
        next_target_q=target.requires_grad_(),
        double=double,
    )
    assert not got.requires_grad


@pytest.mark.parametrize("delta", [0.5, 1.0, 2.0, None])
def test_huber_is_quadratic_near_zero_and_linear_beyond(delta):
    errors = torch.tensor([-7.0, -2.0, -1.0, -0.3, 0.0, 0.4, 1.0, 1.5, 9.0], dtype=torch.float64, requires_grad=True)
    loss = huber(errors, delta)
    for error, value in zip(errors.tolist(), loss.tolist(), strict=True):
        if delta is None or abs(error) <= delta:
            assert value == pytest.approx(0.5 * error**2)
        else:
            assert value == pytest.approx(delta * (abs(error) - 0.5 * delta))
    loss.sum().backward()
    for error, slope in zip(errors.tolist(), errors.grad.tolist(), strict=True):
        clipped = error if delta is None else max(-delta, min(delta, error))
        assert slope == pytest.approx(clipped), "the error, clipped"
