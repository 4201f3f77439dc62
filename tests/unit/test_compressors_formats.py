"""Networks with other numbers: 32- and 16-bit floats, 8-bit integers."""

import numpy as np
import pytest
import torch
from teachers import IMAGE, KINDS, blueprint_of, size_of, states_of, teacher_of
from torch import nn
from torch.nn.functional import conv2d

from hpcddrl.compressors.cast import CastStandIn, Float32StandIn
from hpcddrl.compressors.compressed import Blueprint, as_bytes, from_bytes
from hpcddrl.compressors.cost import cost_of
from hpcddrl.compressors.int8 import Int8StandIn
from hpcddrl.compressors.int8_ops import integer_ops, pooled
from hpcddrl.compressors.quantization import Grid, grid_of, quantised_weight, to_grid, weight_levels
from hpcddrl.config import ActorCritic, Network
from hpcddrl.networks.flat import flatten

MAKERS = {
    "fp32": lambda blueprint: Float32StandIn(blueprint.build(), blueprint.spec),
    "bf16": lambda blueprint: CastStandIn(blueprint.build(), torch.bfloat16),
    "fp16": lambda blueprint: CastStandIn(blueprint.build(), torch.float16),
    "int8": lambda blueprint: Int8StandIn(blueprint.build(), states=64),
}


def equal(one, two):
    return torch.equal(one.policy, two.policy) and torch.equal(one.value, two.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAKERS)
@torch.no_grad()
def test_what_was_packed_answers_as_what_packed_it_and_nearly_as_the_teacher(kind, name):
    blueprint = blueprint_of(kind)
    teacher, states = teacher_of(blueprint), states_of(blueprint.spec)
    learner, actor = MAKERS[name](blueprint), MAKERS[name](blueprint)
    assert len(actor.pack()) == len(learner.pack())  # known before there is a teacher
    learner.take(teacher, states)
    actor.unpack(learner.pack())
    wanted, given = teacher(states), actor(states)
    assert equal(given, learner(states))
    assert given.policy.shape == wanted.policy.shape
    assert given.policy.dtype == given.value.dtype == torch.float32
    error = (given.policy - wanted.policy).abs().mean() / wanted.policy.std()
    assert (error == 0) if name == "fp32" else (0 < error < 0.25)


@pytest.mark.parametrize("name", MAKERS)
@torch.no_grad()
def test_a_stand_in_follows_to_the_next_teacher_and_has_no_part_of_the_first(name):
    blueprint = blueprint_of("nips")
    states = states_of(blueprint.spec)
    stand_in, fresh = MAKERS[name](blueprint), MAKERS[name](blueprint)
    for seed in (0, 1):
        stand_in.take(teacher_of(blueprint, seed), states)
    fresh.take(teacher_of(blueprint, 1), states)
    assert equal(stand_in(states), fresh(states))
    assert np.array_equal(stand_in.pack(), fresh.pack())


@pytest.mark.parametrize(("name", "least", "most"), [("fp32", 4, 4), ("bf16", 2, 2), ("fp16", 2, 2), ("int8", 1, 1.02)])
def test_bytes_published_for_each_parameter(name, least, most):
    blueprint = Blueprint(Network(torso="nature"), ActorCritic(), IMAGE, seed=1)
    per_parameter = len(MAKERS[name](blueprint).pack()) / size_of(blueprint.build())
    assert least <= per_parameter <= most


def test_published_in_fp32_the_bytes_are_those_of_the_flat_vector():
    blueprint = blueprint_of("nips")
    teacher = teacher_of(blueprint)
    stand_in = MAKERS["fp32"](blueprint)
    stand_in.take(teacher, torch.empty(0))
    assert np.array_equal(stand_in.pack().view(np.float32), flatten(teacher).values.numpy())


@pytest.mark.parametrize("name", ["fp32", "bf16"])
@torch.no_grad()
def test_tuning_changes_how_fast_it_answers_not_what(name):
    blueprint = blueprint_of("nips")
    states = states_of(blueprint.spec, 4)
    stand_in = MAKERS[name](blueprint)
    stand_in.take(teacher_of(blueprint), states)
    before, packed = stand_in(states), stand_in.pack()
    stand_in.tune(states)
    assert np.array_equal(stand_in.pack(), packed)
    torch.testing.assert_close(stand_in(states).policy, before.policy, atol=0.1, rtol=0.1)


def test_bytes_of_tensors_of_any_type_come_back():
    tensors = [torch.randn(3, 5), torch.arange(7, dtype=torch.int8), torch.randn(3).bfloat16(), torch.tensor([1, 2])]
    data = as_bytes(tensors)
    assert len(data) == 60 + 7 + 6 + 16
    back = [torch.zeros_like(t) for t in tensors]
    from_bytes(data, back)
    assert all(torch.equal(a, b) for a, b in zip(tensors, back, strict=True))


def test_bytes_of_another_shape_are_noticed():
    with pytest.raises(AssertionError, match="another shape"):
        from_bytes(np.zeros(9, np.uint8), [torch.zeros(2)])


# --- the grids of bytes


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 1.0), (-2.0, -1.0), (0.5, 0.6), (0.0, 0.0)])
def test_a_grid_covers_its_range_holds_zero_and_errs_by_half_a_step_at_most(low, high):
    grid = grid_of(low, high)
    x = torch.linspace(low, high, 1001)
    back = grid.scale * (to_grid(x, grid).float() - grid.zero)
    assert (back - x).abs().max() <= grid.scale * (0.5 if low == 0 or high == 0 else 1.0) + 1e-6
    assert 0 <= grid.zero <= 255
    assert to_grid(torch.zeros(1), grid).item() == grid.zero


def test_what_a_grid_does_not_cover_becomes_its_end():
    assert to_grid(torch.tensor([-9.0, 9.0]), grid_of(-1, 1)).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("processor", "levels"),
    [
        ({"architecture": "x86_64", "avx2": True}, 63),
        ({"architecture": "x86_64", "avx2": True, "avx_vnni": True}, 127),
        ({"architecture": "x86_64", "avx512_vnni": True}, 127),
        ({"architecture": "aarch64"}, 127),
    ],
)
def test_weights_are_coarser_where_sums_of_two_products_would_be_clipped(processor, levels, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert weight_levels() == levels
    assert 2 * 255 * levels <= (2**15 - 1 if levels == 63 else 2**31 - 1)


@pytest.mark.parametrize("levels", [63, 127])
def test_a_weights_error_is_at_most_half_a_step_of_its_own_output(levels):
    weight = torch.randn(6, 3, 2, 2) * torch.logspace(-3, 2, 6).view(-1, 1, 1, 1)
    weight[4] = 0.0
    values, scale = quantised_weight(weight, levels)
    error = (values * scale.view(-1, 1, 1, 1) - weight).abs().flatten(1).amax(1)
    assert (error <= 0.5001 * scale).all()
    assert values.dtype == torch.int8
    assert values.flatten(1).abs().amax(1).tolist() == [levels, levels, levels, levels, 0, levels]


# --- integer kernels


def integers_by_floats(modules, ops, x):
    """What a torso's convolutions do to bytes, with floats that hold the same integers exactly."""
    grid = Grid(1 / 255, 0)
    for op, (layer, relu) in zip(ops, modules, strict=True):
        weight, scale, bias, output = op.numbers()
        real = conv2d(grid.scale * (x - grid.zero).double(), (weight * scale.view(-1, 1, 1, 1)).double(),
                        bias.double(), layer.stride, layer.padding)  # fmt: skip
        grid = Grid(float(output[0]), int(output[1]))
        x = ((real.relu() if relu else real) / grid.scale).round().add(grid.zero).clamp(0, 255)
    return x


@torch.no_grad()
def test_integer_convolutions_are_those_of_floats_to_the_last_byte():
    blueprint = blueprint_of("nature, Q")
    teacher, states = teacher_of(blueprint), states_of(blueprint.spec, 8)
    ops = integer_ops(teacher.torso)[:3]
    x = states.float() / 255
    for op in ops:
        x = op.calibrate(x)
    grid, q = Grid(1 / 255, 0), states.contiguous(memory_format=torch.channels_last)
    for op in ops:
        grid = op.prepare(grid)
        q = op(q)
    convolutions = [(m, True) for m in teacher.torso if isinstance(m, nn.Conv2d)]
    expected = integers_by_floats(convolutions, ops, states)
    assert (q.double() - expected).abs().max() <= 1  # a half may be rounded either way
    assert (q.double() == expected).double().mean() > 0.999
    assert q.float().std() > 10


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"), [(3, 2, 1, 21), (3, 2, 1, 42), (2, 2, 0, 9), (3, 1, 1, 5)]
)
def test_pooled_bytes_are_what_torch_pools(kernel, stride, padding, side):
    q = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    pool = nn.MaxPool2d(kernel, stride, padding)
    assert torch.equal(pooled(q, Grid(1.0, 0), pool).float(), pool(q.float()))


def test_calibration_without_data_says_so():
    blueprint = blueprint_of("nips")
    with pytest.raises(ValueError, match=r"int8.*there are none.*choose fp32 or cast"):
        MAKERS["int8"](blueprint).take(teacher_of(blueprint), states_of(blueprint.spec, 0))


@torch.no_grad()
def test_eight_bits_err_less_where_activations_were_calibrated_on_the_states():
    blueprint = blueprint_of("mlp on vectors")
    teacher, states = teacher_of(blueprint), states_of(blueprint.spec, 256)
    errors = []
    for calibration in (states, 0.05 * states):
        stand_in = MAKERS["int8"](blueprint)
        stand_in.take(teacher, calibration)
        errors.append(float((stand_in(states).policy - teacher(states).policy).abs().mean()))
    assert errors[0] < 0.2 * errors[1]


# --- what an answer costs


def test_the_costs_of_the_published_networks():
    """Of the torsos as published, with 6 actions; convolutions counted by hand."""
    nips = cost_of(Blueprint(Network(torso="nips"), ActorCritic(), IMAGE, 1).build(), IMAGE)
    assert nips.macs == 20 * 20 * 16 * 4 * 64 + 9 * 9 * 32 * 16 * 16 + 2592 * 256 + 256 * 7
    nature = cost_of(Blueprint(Network(torso="nature"), ActorCritic(), IMAGE, 1).build(), IMAGE)
    convolutions = 20 * 20 * 32 * 4 * 64 + 9 * 9 * 64 * 32 * 16 + 7 * 7 * 64 * 64 * 9
    assert nature.macs == convolutions + 3136 * 512 + 512 * 7
    assert nature.parameters == size_of(Blueprint(Network(torso="nature"), ActorCritic(), IMAGE, 1).build())
    assert nature.binary_macs == 0
