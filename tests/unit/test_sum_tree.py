"""The sum tree against plain arrays."""

import numpy as np
import pytest

from hpcddrl.replay.sum_tree import SumTree

SIZES = [1, 2, 3, 5, 64, 100, 1000]


@pytest.mark.parametrize("size", SIZES)
def test_it_agrees_with_an_array_through_many_operations(size):
    """100 000 weights set altogether, many more than once in one call, a third of them to 0."""
    rng, tree, plain = np.random.default_rng(size), SumTree(size), np.zeros(size)
    for chunk in rng.integers(1, 400, 75):
        indices = rng.integers(0, size, chunk)
        values = np.where(rng.random(chunk) < 1 / 3, 0.0, rng.exponential(size=chunk) ** 3)
        tree.set(indices, values)
        for i, value in zip(indices, values, strict=True):
            plain[i] = value
        np.testing.assert_array_equal(tree.get(np.arange(size)), plain)
        assert tree.total == pytest.approx(plain.sum(), rel=1e-12, abs=1e-12)
        if plain.any():
            prefix = rng.random(50) * plain.sum()
            found, sums = tree.find(prefix), np.cumsum(plain)
            assert (plain[found] > 0).all()
            slack = 1e-12 * plain.sum()
            assert (prefix < sums[found] + slack).all()
            assert (prefix >= sums[found] - plain[found] - slack).all()


def test_of_an_item_named_twice_the_last_weight_stays():
    tree = SumTree(4)
    tree.set(np.array([1, 2, 1, 1]), np.array([5.0, 7.0, 6.0, 1.0]))
    assert tree.get(np.arange(4)).tolist() == [0, 1, 7, 0]
    assert tree.total == 8


def test_whole_levels_and_single_nodes_give_the_same_tree():
    rng = np.random.default_rng(0)
    values = rng.random(300)
    at_once, singly = SumTree(300), SumTree(300)
    at_once.set(np.arange(300), values)
    for i in range(300):
        singly.set(np.array([i]), values[i : i + 1])
    np.testing.assert_array_equal(at_once._nodes, singly._nodes)


def test_items_are_found_by_their_share_of_the_total():
    tree = SumTree(5)
    tree.set(np.arange(5), np.array([1.0, 0.0, 2.0, 0.0, 1.0]))
    assert tree.find(np.array([0.0, 0.9, 1.0, 2.9, 3.0, 3.9])).tolist() == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("size", SIZES)
def test_an_item_without_weight_is_never_found(size):
    """Not even for a prefix sum of the total, beyond it, below 0, or between weights of very different sizes."""
    rng = np.random.default_rng(size)
    for _ in range(30):
        tree, weights = SumTree(size), np.zeros(size)
        some = rng.integers(0, size, rng.integers(1, size + 1))
        weights[some] = 10.0 ** rng.uniform(-12, 12, len(some))
        tree.set(np.arange(size), weights)
        total = tree.total
        edges = np.cumsum(weights)
        prefix = np.concatenate([[-1.0, 0.0, total, np.nextafter(total, 0), 2 * total], edges, np.nextafter(edges, 0)])
        assert (weights[tree.find(prefix)] > 0).all()


def test_many_changes_leave_no_rounding_errors_behind():
    tree, rng = SumTree(64), np.random.default_rng(0)
    for _ in range(500):
        tree.set(rng.integers(0, 64, 100), 10.0 ** rng.uniform(-9, 9, 100))
    tree.set(np.arange(64), np.zeros(64))
    assert tree.total == 0.0


@pytest.mark.parametrize(("index", "value"), [(4, 1.0), (-1, 1.0), (0, -1.0), (0, np.nan), (0, np.inf)])
def test_what_is_no_item_or_no_weight_is_refused(index, value):
    with pytest.raises(AssertionError):
        SumTree(4).set(np.array([index]), np.array([value]))


@pytest.mark.parametrize("size", SIZES)
def test_its_memory_is_known_before(size):
    assert SumTree(size).nbytes == SumTree.bytes_for(size) <= 32 * size
