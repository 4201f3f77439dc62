"""DC-ASGD: the formulas against a slow transcription, and what they are for on a quadratic of known Hessian."""

import math
from collections import deque

import numpy as np
import pytest
import torch

from hpcddrl.rl.delay_compensation import adaptive_strength, compensated, mean_square
from hpcddrl.roles.applying import AdaptiveStrength


def test_the_constant_form_adds_the_diagonal_of_the_outer_product_times_the_way_gone():
    g, w, backup = np.random.default_rng(0).normal(size=(3, 7))
    expected = [g[i] + 0.3 * g[i] * g[i] * (w[i] - backup[i]) for i in range(7)]
    got = compensated(torch.tensor(g), torch.tensor(w), torch.tensor(backup), 0.3)
    assert got.tolist() == pytest.approx(expected)


def test_the_adaptive_form_divides_by_the_root_of_the_mean_square():
    """The mean square takes the gradient in first, then λ is made of it."""
    rng = np.random.default_rng(0)
    strength, ms = AdaptiveStrength(2.0, 0.95, 1e-7, 5), np.zeros(5)
    for _ in range(20):
        g = rng.normal(size=5)
        for i in range(5):
            ms[i] = 0.95 * ms[i] + (1 - 0.95) * g[i] ** 2
        expected = [2.0 / math.sqrt(ms[i] + 1e-7) for i in range(5)]
        assert strength(torch.tensor(g, dtype=torch.float32)).tolist() == pytest.approx(expected, rel=1e-5)


def test_a_fresh_gradient_is_left_as_it_is():
    g, w = torch.randn(5), torch.randn(5)
    assert torch.equal(compensated(g, w, w, 2.0), g)


RATES = [0.025, 0.035, 0.05, 0.071, 0.1]
SEEDS, DIMENSIONS, STEPS = 64, 10, 400


def final_loss(delay, rate, kind):
    """Return the mean loss over the last quarter of SGD whose gradients are ``delay`` updates old, 64 runs at once.

    The loss is the negative log-likelihood of y ~ N(√H w, I), H diagonal from 1 to 0.1, and the truth is 0: a quadratic
    of Hessian H whose stochastic gradients √H (√H w − y) have E[g gᵀ] = H at the optimum, which is what the
    compensation builds on; so λ = 1 is exact in the mean there.
    """
    noise, h = torch.Generator().manual_seed(0), torch.logspace(0, -1, DIMENSIONS)
    w, ms = torch.ones(SEEDS, DIMENSIONS), torch.zeros(SEEDS, DIMENSIONS)
    old, losses = deque([w], maxlen=delay + 1), []
    for _ in range(STEPS):
        backup = old[0]
        g = h * backup - h.sqrt() * torch.randn(SEEDS, DIMENSIONS, generator=noise)
        if kind == "constant":
            step = compensated(g, w, backup, 1.0)
        elif kind == "adaptive":
            ms = mean_square(ms, g, 0.95)
            step = compensated(g, w, backup, adaptive_strength(1.0, ms, 1e-7))
        else:
            step = g
        w = w - rate * step
        old.append(w)
        losses.append(float(0.5 * (h * w * w).sum(1).mean()))
    return float(np.mean(losses[STEPS * 3 // 4 :]))


@pytest.mark.parametrize("delay", [2, 4, 8, 16])
def test_compensation_ends_lower_than_plain_asynchronous_sgd(delay):
    """At the same rate wherever the delay matters, and each at its own best rate; the more the longer the delay."""
    plain, constant, adaptive = (
        {rate: final_loss(delay, rate, kind) for rate in RATES} for kind in ("none", "constant", "adaptive")
    )
    least = 0.02 * math.log2(delay)  # share of the plain loss that it saves at least
    for lower in (constant, adaptive):
        for rate in (0.05, 0.071, 0.1):
            assert lower[rate] < (1 - least) * plain[rate]
        assert min(lower.values()) < (1 - least / 2) * min(plain.values())
