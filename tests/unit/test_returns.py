"""Value targets against slow transcriptions of the papers' formulas."""

import pytest
import torch

from hpcddrl.rl.returns import Ratios, importance_ratios, value_targets

CORRECTIONS = ["none", "eps", "ratio", "vtrace"]


def rollout(steps=7, envs=3, seed=0, ends=0.2):
    """Return value, reward, discount, log_pi, log_mu; some steps terminate."""
    g = torch.Generator().manual_seed(seed)
    value = torch.randn(steps + 1, envs, generator=g, dtype=torch.float64)
    reward = torch.randn(steps, envs, generator=g, dtype=torch.float64)
    discount = 0.9 * (torch.rand(steps, envs, generator=g) >= ends).double()
    log_pi = -2 * torch.rand(steps, envs, generator=g, dtype=torch.float64)
    log_mu = -2 * torch.rand(steps, envs, generator=g, dtype=torch.float64)
    return value, reward, discount, log_pi, log_mu


def paper_vtrace(value, reward, discount, rho, c):
    """v_s = V_s + Σ_t (Π_{i=s}^{t-1} γ_i c_i) ρ_t (r_t + γ_t V_{t+1} − V_t), Espeholt et al. 2018, equation 1."""
    steps, envs = reward.shape
    target = torch.zeros_like(reward)
    for b in range(envs):
        for s in range(steps):
            v = float(value[s, b])
            for t in range(s, steps):
                product = 1.0
                for i in range(s, t):
                    product *= float(discount[i, b] * c[i, b])
                delta = reward[t, b] + discount[t, b] * value[t + 1, b] - value[t, b]
                v += product * float(rho[t, b] * delta)
            target[s, b] = v
    return target


def n_step_return(value, reward, discount, s, n, b):
    """R = r_s + γ_s r_{s+1} + … + (γ_s … γ_{s+n-1}) V_{s+n}."""
    total, product = 0.0, 1.0
    for t in range(s, s + n):
        total += product * float(reward[t, b])
        product *= float(discount[t, b])
    return total + product * float(value[s + n, b])


def ratios_of(log_pi, log_mu, correction="vtrace", **options):
    return importance_ratios(
        log_pi=log_pi, log_mu=log_mu, valid=torch.ones_like(log_pi), correction=correction, **options
    )


@pytest.mark.parametrize("rho_bar", [0.7, 1.0, 10.0])
@pytest.mark.parametrize("c_bar", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("trace_decay", [0.0, 0.9, 1.0])
def test_vtrace_equals_the_papers_double_sum(rho_bar, c_bar, trace_decay):
    value, reward, discount, log_pi, log_mu = rollout(seed=int(10 * rho_bar + c_bar))
    ratio = (log_pi - log_mu).exp()
    rho, c = ratio.clamp(max=rho_bar), trace_decay * ratio.clamp(max=c_bar)
    expected = paper_vtrace(value, reward, discount, rho, c)
    ratios = ratios_of(log_pi, log_mu, rho_bar=rho_bar, c_bar=c_bar, trace_decay=trace_decay)
    got = value_targets(value=value, reward=reward, discount=discount, ratios=ratios)
    torch.testing.assert_close(got.target, expected)
    following = torch.cat([expected[1:], value[-1:]])
    torch.testing.assert_close(got.advantage, reward + discount * following - value[:-1])


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_on_policy_data_give_n_step_returns_whatever_the_correction(correction):
    value, reward, discount, log_pi, _ = rollout(seed=1)
    got = value_targets(value=value, reward=reward, discount=discount, ratios=ratios_of(log_pi, log_pi, correction))
    for s in range(7):
        for b in range(3):
            expected = n_step_return(value, reward, discount, s, 7 - s, b)
            assert float(got.target[s, b]) == pytest.approx(expected)
            assert float(got.advantage[s, b]) == pytest.approx(expected - float(value[s, b]))


@pytest.mark.parametrize("trace_decay", [0.0, 0.3, 0.95, 1.0])
def test_trace_decay_gives_lambda_returns(trace_decay):
    value, reward, discount, log_pi, _ = rollout(seed=2)
    ratios = ratios_of(log_pi, log_pi, "none", trace_decay=trace_decay)
    got = value_targets(value=value, reward=reward, discount=discount, ratios=ratios).target
    for s in range(7):
        for b in range(3):
            longest = 7 - s
            returns = [n_step_return(value, reward, discount, s, n, b) for n in range(1, longest + 1)]
            expected = trace_decay ** (longest - 1) * returns[-1] + sum(
                (1 - trace_decay) * trace_decay ** (n - 1) * returns[n - 1] for n in range(1, longest)
            )
            assert float(got[s, b]) == pytest.approx(expected)


@pytest.mark.parametrize("correction", ["none", "eps"])
def test_no_correction_ignores_who_acted(correction):
    *_, log_pi, log_mu = rollout(seed=3)
    got = ratios_of(log_pi, log_mu, correction, trace_decay=0.8)
    assert torch.equal(got.value, torch.ones_like(log_pi))
    assert torch.equal(got.policy, torch.ones_like(log_pi))
    assert torch.equal(got.trace, torch.full_like(log_pi, 0.8))


def test_ratio_weighs_only_the_policy_gradient_with_one_clipped_step():
    *_, log_pi, log_mu = rollout(seed=4)
    got = ratios_of(log_pi, log_mu, "ratio", rho_bar=1.2, c_bar=0.1)
    torch.testing.assert_close(got.policy, (log_pi - log_mu).exp().clamp(max=1.2))
    assert torch.equal(got.value, torch.ones_like(log_pi))
    assert torch.equal(got.trace, torch.ones_like(log_pi))


def test_vtrace_clips_rho_and_c_apart():
    log_pi, log_mu = torch.tensor([[0.0, -1.0, -1.0]]), torch.tensor([[-1.0, 0.0, -1.0]])
    got = ratios_of(log_pi, log_mu, rho_bar=2.0, c_bar=0.9, trace_decay=0.5)
    e = 2.718281828
    torch.testing.assert_close(got.value, torch.tensor([[2.0, 1 / e, 1.0]]))
    torch.testing.assert_close(got.policy, got.value)
    torch.testing.assert_close(got.trace, 0.5 * torch.tensor([[0.9, 1 / e, 0.9]]))


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_reset_steps_weigh_nothing_even_if_their_ratio_overflows(correction):
    log_pi, log_mu = torch.tensor([[-0.5], [0.0]]), torch.tensor([[-0.5], [-1e4]])
    valid = torch.tensor([[1.0], [0.0]])
    got = importance_ratios(log_pi=log_pi, log_mu=log_mu, valid=valid, correction=correction)
    for ratio in got:
        assert ratio.squeeze(1).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_two_episodes_in_one_rollout_equal_the_two_apart(correction, terminated):
    first, second = 4, 3
    total = first + 1 + second  # the step between them only resets
    value, reward, discount, log_pi, log_mu = rollout(total, 2, seed=5, ends=0.0)
    valid = torch.ones_like(reward)
    valid[first] = 0.0
    if terminated:
        discount[first - 1] = 0.0

    def targets(begin, end):
        span = slice(begin, end)
        ratios = importance_ratios(
            log_pi=log_pi[span],
            log_mu=log_mu[span],
            valid=valid[span],
            correction=correction,
            trace_decay=0.9,
        )
        return value_targets(value=value[begin : end + 1], reward=reward[span], discount=discount[span], ratios=ratios)

    together, one, other = targets(0, total), targets(0, first), targets(first + 1, total)
    for name in ("target", "advantage"):
        whole = getattr(together, name)
        torch.testing.assert_close(whole[:first], getattr(one, name))
        torch.testing.assert_close(whole[first + 1 :], getattr(other, name))


def column(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)[:, None]


def steps_with_reset_at(t, steps):
    """Return ratios of 1, and 0 on the step that only resets."""
    valid = torch.ones(steps, 1, dtype=torch.float64)
    valid[t] = 0.0
    return Ratios(value=valid, trace=valid, policy=valid)


def test_truncated_step_bootstraps_from_its_own_final_observation():
    value = column(0.3, 7.0, 100.0, 0.5)  # x_0, the episode's last, the next episode's first, …
    got = value_targets(
        value=value,
        reward=column(2.0, 50.0, 3.0),
        discount=column(0.9, 0.9, 0.9),
        ratios=steps_with_reset_at(1, 3),
    )
    assert float(got.target[0]) == pytest.approx(2.0 + 0.9 * 7.0)
    assert float(got.advantage[0]) == pytest.approx(2.0 + 0.9 * 7.0 - 0.3)


def test_terminated_step_bootstraps_from_zero():
    got = value_targets(
        value=column(0.3, 7.0, 100.0, 0.5),
        reward=column(2.0, 50.0, 3.0),
        discount=column(0.0, 0.9, 0.9),
        ratios=steps_with_reset_at(1, 3),
    )
    assert float(got.target[0]) == pytest.approx(2.0)
    assert float(got.advantage[0]) == pytest.approx(2.0 - 0.3)


@pytest.mark.parametrize("terminated", [True, False])
def test_nothing_of_the_next_episode_reaches_the_one_before(terminated):
    value, reward, discount, *_ = rollout(6, 1, seed=6, ends=0.0)
    if terminated:
        discount[2] = 0.0
    ratios = steps_with_reset_at(3, 6)
    before = value_targets(value=value, reward=reward, discount=discount, ratios=ratios)
    value[4:] += 10.0
    reward[3:] -= 10.0
    after = value_targets(value=value, reward=reward, discount=discount, ratios=ratios)
    assert torch.equal(before.target[:3], after.target[:3])
    assert torch.equal(before.advantage[:3], after.advantage[:3])
    assert not torch.equal(before.target[4:], after.target[4:])


@pytest.mark.parametrize("length", [1, 2, 5])
def test_terminal_reward_is_not_dropped(length):
    """A reward that comes with the end alone reaches every step before it (NVlabs/GA3C issue 31 lost it)."""
    reward = torch.zeros(length, 1, dtype=torch.float64)
    reward[-1] = 1.0
    discount = torch.full_like(reward, 0.9)
    discount[-1] = 0.0
    got = value_targets(
        value=torch.zeros(length + 1, 1, dtype=torch.float64),
        reward=reward,
        discount=discount,
        ratios=ratios_of(reward, reward),
    )
    expected = torch.tensor([0.9 ** (length - 1 - t) for t in range(length)], dtype=torch.float64)
    torch.testing.assert_close(got.target[:, 0], expected)
    torch.testing.assert_close(got.advantage[:, 0], expected)


def test_targets_are_constants_to_the_gradient():
    value, reward, discount, log_pi, log_mu = rollout(seed=7)
    ratios = ratios_of(log_pi.requires_grad_(), log_mu)
    got = value_targets(value=value.requires_grad_(), reward=reward, discount=discount, ratios=ratios)
    assert not got.target.requires_grad
    assert not got.advantage.requires_grad
