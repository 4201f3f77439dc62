"""Who is drawn how often, against the formulas of Schaul et al. 2015."""

import numpy as np
import pytest
import torch

from hpcddrl.replay.priorities import Proportional, RankBased, Uniform, importance_weights

SIZE = 200
KINDS = [Uniform, Proportional, RankBased]
every_kind = pytest.mark.parametrize("kind", KINDS)


def some_errors(seed=0, size=SIZE):
    return np.random.default_rng(seed).exponential(size=size) + 0.01


def exact(kind, errors, alpha):
    """Transcribe P(i) of the paper's equation 1 and section 3.3."""
    if kind is Proportional:
        weights = [(error + 1e-6) ** alpha for error in errors]
    else:
        ranking = sorted(range(len(errors)), key=lambda i: -errors[i])
        weights = [(1 / (1 + ranking.index(i))) ** alpha for i in range(len(errors))]
    return np.array(weights) / sum(weights)


def p_value(counts, probability):
    """Return how likely counts this far from the expected ones are, by Pearson's χ² test."""
    expected = counts.sum() * probability
    assert expected.min() > 5  # below, the test is not exact
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2.0), torch.tensor(statistic / 2)))


def drawn(priorities, batches=400, n=512, seed=1):
    rng = np.random.default_rng(seed)
    return np.concatenate([priorities.draw(n, rng)[0] for _ in range(batches)])


@pytest.mark.parametrize("alpha", [0.0, 0.4, 0.7, 1.0])
@pytest.mark.parametrize("kind", [Proportional, RankBased])
@pytest.mark.parametrize("n", [1, 64])  # without and with strata
def test_draws_follow_the_exact_distribution(kind, alpha, n):
    errors = some_errors()
    priorities = kind(SIZE, alpha=alpha)
    priorities.set(np.arange(SIZE), errors)
    counts = np.bincount(drawn(priorities, 4_000 if n == 1 else 2_000, n), minlength=SIZE)
    if n == 1:  # few draws: put together what is expected too rarely for the test
        probability, groups = exact(kind, errors, alpha), np.arange(SIZE) // 20
        counts, probability = np.bincount(groups, counts), np.bincount(groups, probability)
    else:
        probability = exact(kind, errors, alpha)
    assert p_value(counts, probability) > 1e-3


@pytest.mark.parametrize("kind", [Proportional, RankBased])
def test_the_check_would_catch_a_wrong_exponent(kind):
    errors = some_errors()
    priorities = kind(SIZE, alpha=0.7)
    priorities.set(np.arange(SIZE), errors)
    counts = np.bincount(drawn(priorities), minlength=SIZE)
    assert p_value(counts, exact(kind, errors, 0.7)) > 1e-3
    assert p_value(counts, exact(kind, errors, 0.65)) < 1e-3
    assert p_value(counts, exact(RankBased if kind is Proportional else Proportional, errors, 0.7)) < 1e-3


def test_uniform_draws_ignore_errors():
    priorities = Uniform(SIZE)
    priorities.set(np.arange(SIZE), some_errors())
    counts = np.bincount(drawn(priorities), minlength=SIZE)
    assert p_value(counts, np.full(SIZE, 1 / SIZE)) > 1e-3


@pytest.mark.parametrize("kind", [Proportional, RankBased])
def test_each_draw_comes_with_its_exact_probability(kind):
    errors = some_errors(2)
    priorities = kind(SIZE, alpha=0.6)
    priorities.set(np.arange(SIZE), errors)
    slots, probability = priorities.draw(1000, np.random.default_rng(0))
    np.testing.assert_allclose(probability, exact(kind, errors, 0.6)[slots], rtol=1e-12)


@pytest.mark.parametrize("kind", [Proportional, RankBased])
def test_stratified_draws_take_one_from_each_equal_share(kind):
    """Counts then differ from their expectation by less than one, either side."""
    errors = some_errors(3)
    priorities = kind(SIZE, alpha=0.7)
    priorities.set(np.arange(SIZE), errors)
    slots, _ = priorities.draw(1000, np.random.default_rng(0))
    counts = np.bincount(slots, minlength=SIZE)
    assert np.abs(counts - 1000 * exact(kind, errors, 0.7)).max() < 2
    assert (np.diff(slots) >= 0).all()


@every_kind
def test_what_is_not_set_or_was_removed_is_not_drawn(kind):
    priorities, rng = kind(SIZE), np.random.default_rng(0)
    held = np.zeros(SIZE, bool)
    for _ in range(60):
        slots = rng.choice(SIZE, 20, replace=False)
        if rng.random() < 0.5:
            priorities.set(slots, rng.random(20))
            held[slots] = True
        else:
            priorities.remove(slots)
            held[slots] = False
        if held.any():
            drawn_now, probability = priorities.draw(400, rng)
            assert held[drawn_now].all()
            assert (probability > 0).all()


@every_kind
def test_without_an_error_a_slot_is_as_likely_as_the_largest_yet(kind):
    priorities = kind(4)
    priorities.set(np.array([0, 1]), np.array([3.0, 5.0]))
    priorities.remove(np.array([1]))  # the largest yet, and gone
    priorities.set(np.array([2]))
    priorities.set(np.array([3]), np.array([5.0]))
    slots, probability = priorities.draw(4000, np.random.default_rng(0))
    likelihood = dict(zip(slots.tolist(), probability.tolist(), strict=True))
    assert set(likelihood) == {0, 2, 3}
    assert likelihood[2] >= likelihood[3] * 0.5
    if kind is Proportional:
        assert likelihood[2] == likelihood[3] > likelihood[0]


def test_ranks_are_those_of_the_last_sort():
    priorities, rng = RankBased(100, alpha=1.0, sort_after=0.5), np.random.default_rng(0)
    priorities.set(np.arange(50), np.arange(50.0, 0.0, -1.0))  # slot i has rank i + 1
    priorities.draw(1, rng)
    priorities.set(np.array([60, 70]), np.array([1000.0, 40.5]))
    priorities.set(np.array([49, 5]), np.array([49.5, 45.0]))  # the latter has its own rank again
    some = np.array([0, 60, 70, 10, 49, 5])
    weights = priorities._tree.get(some)
    priorities.draw(1, rng)  # too few changes for a sort
    np.testing.assert_allclose(weights, [1, 1, 1 / 11, 1 / 11, 1 / 2, 1 / 6])
    np.testing.assert_array_equal(priorities._tree.get(some), weights)
    priorities.set(np.arange(20, 45), np.zeros(25))  # more than half
    priorities.draw(1, rng)
    np.testing.assert_allclose(
        priorities._tree.get(np.array([60, 0, 49, 1, 70, 10])), 1 / np.array([1, 2, 3, 4, 13, 14])
    )


def test_with_any_change_ranks_can_be_exact():
    priorities, rng, errors = RankBased(SIZE, 0.7, sort_after=0.0), np.random.default_rng(4), some_errors()
    priorities.set(np.arange(SIZE), errors)
    for _ in range(10):
        slots = rng.choice(SIZE, 7, replace=False)
        errors[slots] = rng.exponential(size=7)
        priorities.set(slots, errors[slots])
        drawn_now, probability = priorities.draw(100, rng)
        np.testing.assert_allclose(probability, exact(RankBased, errors, 0.7)[drawn_now], rtol=1e-12)


def test_rank_based_priorities_do_not_care_how_large_an_outlier_is():
    outcomes = []
    for outlier in (10.0, 1e9):
        priorities = RankBased(5)
        priorities.set(np.arange(5), np.array([1.0, 2.0, outlier, 3.0, 4.0]))
        outcomes.append(priorities.draw(20, np.random.default_rng(0)))
    np.testing.assert_array_equal(outcomes[0], outcomes[1])


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_importance_weights_are_the_papers(beta):
    probability = np.array([0.5, 0.1, 0.01, 0.1])
    expected = [(1000 * p) ** -beta for p in probability]
    expected = [w / max(expected) for w in expected]
    weights = importance_weights(probability, beta)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_full_correction_makes_the_mean_over_draws_that_over_all():
    """Σ P(i) w(i) x(i) is proportional to Σ x(i) / N when β is 1."""
    errors, x = some_errors(5), np.random.default_rng(6).normal(size=SIZE)
    probability = exact(Proportional, errors, 0.8)
    weights = importance_weights(probability, 1.0).astype(float)
    assert (probability * weights * x).sum() / (probability * weights).sum() == pytest.approx(x.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Proportional(4, alpha=-1.0), "alpha = -1.0"),
        (lambda: Proportional(4, alpha=float("nan")), "alpha = nan"),
        (lambda: Proportional(4, epsilon=0.0), "epsilon = 0.0"),
        (lambda: RankBased(4, alpha=-1.0), "alpha = -1.0"),
        (lambda: RankBased(4, sort_after=-1.0), "sort_after = -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_named(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@every_kind
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_their_memory_is_known_before(kind, size):
    assert kind(size).nbytes == kind.bytes_for(size)
