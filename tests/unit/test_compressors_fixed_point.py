"""Fixed-point formats, and who gets how many bits."""

import itertools
import math

import numpy as np
import pytest
import torch
from teachers import KINDS, blueprint_of, size_of, states_of, teacher_of

from hpcddrl.compressors.fixed_point import (
    Q,
    best_format,
    bit_widths,
    fixed,
    integers,
    noise,
    packed_bits,
    unpacked_bits,
)
from hpcddrl.compressors.fixed_point_network import FixedPointStandIn
from hpcddrl.compressors.layers import weighted
from hpcddrl.config.compression import FixedPoint


@pytest.mark.parametrize("q", [Q(2, 0), Q(8, 5), Q(4, -2), Q(6, 9)])
def test_fixed_numbers_are_the_nearest_of_those_that_the_format_has(q):
    numbers = [i / 2.0**q.fraction for i in range(-(2 ** (q.bits - 1)), 2 ** (q.bits - 1))]
    x = 3 * numbers[0] + (3 * numbers[-1] - 3 * numbers[0]) * torch.rand(
        200, generator=torch.Generator().manual_seed(0)
    )
    for given, got in zip(x.tolist(), fixed(x, q).tolist(), strict=True):
        assert got in numbers
        assert abs(given - got) == pytest.approx(min(abs(given - n) for n in numbers))


def test_a_bit_is_worth_about_six_decibels():
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    decibels = [-10 * math.log10(noise(x, best_format(x, bits))) for bits in (6, 8, 10, 12)]
    steps = [(b - a) / 2 for a, b in itertools.pairwise(decibels)]
    assert all(4 < step < 6.5 for step in steps)


def test_the_best_format_clips_a_rare_large_number_if_that_is_quieter():
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    x[0] = 17.0
    assert best_format(x, 4).fraction > 4 - 1 - 5
    assert noise(x, best_format(x, 4)) <= min(noise(x, Q(4, f)) for f in range(-2, 3))
    assert best_format(torch.zeros(3), 5).bits == 5
    assert noise(torch.zeros(3), Q(5, 0)) == 0.0


# --- widths


def brute_force(sizes, noises, least, budget):
    """Try all widths."""
    best = None
    for choice in itertools.product(*(range(len(row)) for row in noises)):
        if sum(row[c] for row, c in zip(noises, choice, strict=True)) <= budget:
            bits = sum(size * (least + c) for size, c in zip(sizes, choice, strict=True))
            best = bits if best is None else min(best, bits)
    return best


@pytest.mark.parametrize("seed", range(8))
def test_widths_need_as_few_bits_as_any_that_meet_the_budget(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 50, 4).tolist()
    noises = np.sort(10 ** rng.uniform(-4, 0, (4, 6)), axis=1)[:, ::-1].tolist()
    budget = 10 ** rng.uniform(-3, 0)
    widths = bit_widths(sizes, noises, 2, budget)
    best = brute_force(sizes, noises, 2, budget)
    if best is None:
        assert widths == [7] * 4
    else:
        assert sum(row[w - 2] for row, w in zip(noises, widths, strict=True)) <= budget
        assert sum(size * w for size, w in zip(sizes, widths, strict=True)) == best


def test_where_every_layer_loses_alike_the_widths_are_lins():
    """β_i − β_j = 10 log₁₀(ρ_j / ρ_i) / κ (Lin et al. 2016): whole bits where κ = 6.02 dB and sizes are powers of 4."""
    sizes, expected = [4**5, 4**3, 4**2, 4], [5, 7, 8, 9]
    noises = [[4.0**-bits for bits in range(2, 17)] for _ in sizes]
    kappa, budget = 10 * math.log10(4), sum(4.0**-bits for bits in expected)
    assert bit_widths(sizes, noises, 2, budget * (1 + 1e-9)) == expected
    for i, j in itertools.combinations(range(4), 2):
        assert expected[i] - expected[j] == pytest.approx(10 * math.log10(sizes[j] / sizes[i]) / kappa)


def test_many_layers_take_no_time_and_a_larger_budget_fewer_bits():
    sizes = [16 * 16 * 9] * 5 + [32 * 32 * 9] * 9 + [3872 * 256, 256 * 6, 256]
    noises = [[(1 + 0.1 * i) * 4.0**-bits for bits in range(3, 13)] for i in range(len(sizes))]
    totals = [
        sum(s * w for s, w in zip(sizes, bit_widths(sizes, noises, 3, budget), strict=True))
        for budget in (1e-4, 1e-3, 1e-2)
    ]
    assert totals[0] > totals[1] > totals[2]


@pytest.mark.parametrize("bits", [2, 3, 8, 13, 16])
@pytest.mark.parametrize("count", [1, 7, 64, 101])
def test_a_stream_of_bits_comes_back(bits, count):
    half = 2 ** (bits - 1)
    values = torch.randint(-half, half, (count,), generator=torch.Generator().manual_seed(bits)).int()
    values[0] = -half
    data = packed_bits(values, bits)
    assert len(data) == math.ceil(bits * count / 8)
    assert torch.equal(unpacked_bits(data, bits, count), values)


# --- networks


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_fixed_point_network_keeps_its_noise_budget_and_comes_back_from_its_bytes(kind):
    blueprint, config = blueprint_of(kind, width=0.25), FixedPoint(sqnr_db=30.0)
    teacher, states = teacher_of(blueprint), states_of(blueprint.spec)
    learner, actor = (FixedPointStandIn(blueprint.build(), config) for _ in range(2))
    most = len(actor.pack())
    learner.take(teacher, states)
    actor.unpack(learner.pack())
    wanted, given = teacher(states), actor(states)
    assert torch.equal(given.policy, learner(states).policy)
    assert 0 < (given.policy - wanted.policy).abs().mean() < 0.3 * wanted.policy.std()
    assert len(learner.pack()) < most < 2 * size_of(teacher)
    assert actor.widths == learner.widths
    layers = zip(weighted(teacher), weighted(learner._network), strict=True)
    lost = [float((a.weight - b.weight).square().sum() / a.weight.square().sum()) for a, b in layers]
    assert sum(lost) == pytest.approx(10**-3, rel=0.7)
    assert sum(lost) < 1.2 * 10**-3  # large layers' noise is measured on a sample


@torch.no_grad()
def test_weights_and_outputs_have_few_values():
    blueprint = blueprint_of("nips", width=0.25)
    stand_in = FixedPointStandIn(blueprint.build(), FixedPoint(activation_bits=4))
    states = states_of(blueprint.spec)
    stand_in.take(teacher_of(blueprint), states)
    for layer, width in zip(weighted(stand_in._network), stand_in.widths, strict=True):
        assert len(layer.weight.unique()) <= 2**width
        q = best_format(layer.weight, width)
        assert torch.equal(integers(layer.weight, q).float() * 2.0**-q.fraction, layer.weight)
    first = next(weighted(stand_in._network.torso))
    seen = []
    first.register_forward_hook(lambda _, __, output: seen.append(output))
    stand_in(states)
    assert 2 < len(seen[0].unique()) <= 16


def test_more_decibels_take_more_bits():
    blueprint = blueprint_of("nips", width=0.25)
    sizes = []
    for decibels in (15.0, 25.0, 35.0):
        stand_in = FixedPointStandIn(blueprint.build(), FixedPoint(sqnr_db=decibels))
        stand_in.take(teacher_of(blueprint), states_of(blueprint.spec, 4))
        sizes.append(len(stand_in.pack()))
    assert sorted(sizes) == sizes
    assert len(set(sizes)) == 3


def test_calibration_without_data_says_so():
    blueprint = blueprint_of("nips")
    with pytest.raises(ValueError, match=r"fixed_point.*there are none"):
        FixedPointStandIn(blueprint.build(), FixedPoint()).take(teacher_of(blueprint), states_of(blueprint.spec, 0))
