"""Pruning: zeros that stay, and channels that go."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from teachers import KINDS, SMALL, VECTOR, blueprint_of, kl_between, size_of, states_of, teacher_of
from torch import nn

from hpcddrl.compressors.channels import prune, streams, strongest
from hpcddrl.compressors.cost import cost_of
from hpcddrl.compressors.layers import weighted
from hpcddrl.compressors.make import make_compressor, make_stand_in
from hpcddrl.compressors.pruning import SparseStandIn, mask_of, sparsity_after
from hpcddrl.config.compression import Channels, Distillation, Magnitude

QUICK = Distillation(steps=3, batch_size=16)


def zeros_of(network):
    return [float((layer.weight == 0).double().mean()) for layer in weighted(network)]


# --- magnitudes


def test_a_mask_drops_the_smallest_of_a_layer():
    weight = torch.tensor([[0.5, -0.1, 3.0], [-2.0, 0.2, 0.3]])
    assert mask_of(weight, 0.5).tolist() == [[True, False, True], [True, False, False]]
    assert mask_of(weight, 0.0).all()


def test_each_round_drops_the_same_part_of_what_is_left():
    left = [1 - sparsity_after(done, 4, 0.8) for done in range(5)]
    assert left[0] == 1.0
    assert left[4] == pytest.approx(0.2)
    assert [b / a for a, b in pairwise(left)] == pytest.approx([0.2**0.25] * 4)


def test_dropped_weights_stay_zero_while_the_others_learn():
    blueprint = blueprint_of("nips")
    teacher, states = teacher_of(blueprint), states_of(SMALL)
    compressor = make_compressor(Magnitude(sparsity=0.7, rounds=2, distillation=QUICK), blueprint)
    first = compressor.follow(teacher, states)
    network = compressor.shape.network
    assert zeros_of(network) == pytest.approx([0.7] * 5, abs=0.02)
    before = [layer.weight.detach().clone() for layer in weighted(network)]
    second = compressor.shape.distil(teacher_of(blueprint, seed=1), states)
    for old, layer in zip(before, weighted(network), strict=True):
        assert torch.equal(old == 0, layer.weight == 0)
        assert not torch.equal(old, layer.weight)
    assert (first, second) == (6, 3)


def test_rounds_raise_the_sparsity_step_by_step():
    blueprint = blueprint_of("mlp on vectors")
    compressor = make_compressor(Magnitude(sparsity=0.9, rounds=3, distillation=QUICK), blueprint)
    seen, constrain = [], compressor.shape.constrain

    def watched():
        constrain()
        seen.append(zeros_of(compressor.shape.network)[1])

    compressor.shape.constrain = watched
    compressor.follow(teacher_of(blueprint), states_of(blueprint.spec))
    assert sorted(seen) == seen
    assert sorted({round(s, 2) for s in seen}) == pytest.approx([1 - 0.1 ** (n / 3) for n in (1, 2, 3)], abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_zeros_are_published_as_a_bit_and_the_rest_comes_back_exactly(kind):
    blueprint, sparsity = blueprint_of(kind), 0.75
    network = teacher_of(blueprint)
    for layer in weighted(network):
        layer.weight.mul_(mask_of(layer.weight, sparsity))
    learner, actor = (SparseStandIn(blueprint.build(), sparsity) for _ in range(2))
    learner.take(network, torch.empty(0))
    data = learner.pack()
    assert len(data) == len(actor.pack())
    actor.unpack(data)
    states = states_of(blueprint.spec, 4)
    assert torch.equal(actor(states).policy, network(states).policy)
    weights = sum(layer.weight.numel() for layer in weighted(network))
    expected = weights / 8 + 4 * (0.25 * weights + size_of(network) - weights)
    assert len(data) == pytest.approx(expected, rel=0.01)


# --- channels


def masked_copy(blueprint, teacher, smaller):
    """Return the teacher with zeros in the place of all that a narrower network has no room for."""
    masked = blueprint.build()
    masked.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        for wide, narrow in zip(streams(masked), streams(smaller), strict=True):
            kept = strongest(wide, len(narrow.writers[0].weight))
            gone = [c for c in range(len(wide.writers[0].weight)) if c not in kept.tolist()]
            for writer in wide.writers:
                writer.weight[gone] = 0.0
                writer.bias[gone] = 0.0
    return masked


def with_whole_numbers(network):
    """Make all sums exact in float64, whatever their order, so that equal means equal."""
    with torch.no_grad():
        for p in network.double().parameters():
            p.copy_((4 * p).round().clamp(-2, 2))
    return network


@pytest.mark.parametrize("kind", ["mlp on images", "nips", "nature, Q", "resnet"])
@torch.no_grad()
def test_without_channels_a_torso_is_that_with_zeros_in_their_place(kind):
    blueprint = blueprint_of(kind)
    teacher, smaller = with_whole_numbers(teacher_of(blueprint)), blueprint.build(width=0.25).double()
    masked = masked_copy(blueprint, teacher, smaller).double()
    prune(teacher, smaller)
    x = torch.randint(0, 3, (3, *SMALL.observation_shape)).double()
    torsos = [nn.Sequential(*(m for m in n.torso if not isinstance(m, nn.Tanh))) for n in (masked, smaller)]
    wide, narrow = (torso(x) for torso in torsos)
    kept = strongest(streams(teacher)[-1], narrow.shape[1])
    assert torch.equal(wide[:, kept], narrow)
    assert narrow.abs().max() > 0
    heads = [(m, s) for m, s in zip(masked.children(), smaller.children(), strict=True) if isinstance(m, nn.Linear)]
    assert heads
    for head, small in heads:
        assert torch.equal(head(wide), small(narrow))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_without_channels_a_network_answers_as_that_with_zeros(kind):
    blueprint = blueprint_of(kind)
    teacher, smaller = teacher_of(blueprint), blueprint.build(width=0.2)
    masked, states = masked_copy(blueprint, teacher, smaller), states_of(blueprint.spec, 8)
    prune(teacher, smaller)
    for wanted, given in zip(masked(states), smaller(states), strict=True):
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)
    assert (masked(states).policy - teacher(states).policy).abs().max() > 1e-3  # something went


def test_a_residual_blocks_channels_go_from_all_who_add_to_them():
    network = teacher_of(blueprint_of("resnet"))
    section = streams(network)[0]
    assert len(section.writers) == 3  # a convolution and two blocks
    assert len(section.readers) == 3  # two blocks and the next convolution
    inner = streams(network)[1]
    assert (len(inner.writers), len(inner.readers)) == (1, 1)


def test_the_strongest_channels_stay():
    network = teacher_of(blueprint_of("nips"))
    first = streams(network)[0]
    with torch.no_grad():
        first.writers[0].weight[[1, 4]] *= 100.0
    assert strongest(first, 2).tolist() == [1, 4]


def test_half_the_channels_are_a_quarter_of_the_work_inside():
    blueprint = blueprint_of("nature, Q", width=1.0)
    compressor = make_compressor(Channels(keep=0.5, distillation=QUICK), blueprint)
    teacher = teacher_of(blueprint)
    compressor.follow(teacher, states_of(SMALL))
    whole, pruned = cost_of(teacher, SMALL), cost_of(compressor.shape.network, SMALL)
    assert 0.25 * whole.macs < pruned.macs < 0.4 * whole.macs  # the first layer's inputs are the observation's
    assert len(compressor.stand_in.pack()) < 0.3 * 4 * whole.parameters


def test_channels_are_distilled_further_each_time():
    blueprint = blueprint_of("nips")
    compressor = make_compressor(Channels(keep=0.5, distillation=QUICK), blueprint)
    teacher, states = teacher_of(blueprint), states_of(SMALL)
    found = []
    for _ in range(2):
        compressor.follow(teacher, states)
        found.append(kl_between(teacher, compressor.shape.network, states, SMALL))
    assert found[1] < found[0], "the second time it went on from the first"
    actor = make_stand_in(Channels(keep=0.5), blueprint)
    actor.unpack(compressor.stand_in.pack())
    with torch.no_grad():
        assert torch.equal(actor(states).policy, compressor.shape.network(states).policy)


# --- as the teacher learns


PRUNED = {
    "magnitude": Magnitude(sparsity=0.8, rounds=2, distillation=QUICK),
    "channels": Channels(keep=0.5, distillation=QUICK),
}


def signs_of_life(shape):
    """Return what tells two prunings apart: which weights are 0, and the distiller's moments."""
    state = shape.state()
    moments = [entry["exp_avg"] for entry in state["distiller"]["moments"].values()]
    return [layer.weight == 0 for layer in weighted(shape.network)], moments


@pytest.mark.parametrize("name", PRUNED)
def test_a_teacher_is_pruned_again_at_each_doubling_and_the_better_stays(name):
    blueprint = blueprint_of("nips")
    compressor, states = make_compressor(PRUNED[name], blueprint), states_of(SMALL)
    once = {"magnitude": 6, "channels": 3}[name]
    shape, steps = compressor.shape, [compressor.follow(blueprint.build(), states)]  # which has learned nothing
    for seed in (1, 2, 3, 4):
        teacher, unlike = teacher_of(blueprint, seed), copy.deepcopy(shape)
        steps.append(compressor.follow(teacher, states))
        unlike.distil(teacher, states)
        kl, without = (kl_between(teacher, network, states, SMALL) for network in (shape.network, unlike.network))
        assert kl <= without + 1e-6
    assert steps == [once, 3 + once, 3, 3 + once, 3]


@pytest.mark.parametrize("name", PRUNED)
def test_what_is_pruned_anew_brings_its_optimizer_and_goes_on_after_a_restart(name):
    blueprint, states = blueprint_of("nips"), states_of(SMALL)
    shape, teacher = make_compressor(PRUNED[name], blueprint).shape, teacher_of(blueprint, 1)
    shape.follow(blueprint.build(), states)
    with torch.no_grad():
        for p in shape.network.parameters():
            p.zero_()  # nothing is worse than what is left of the first
    made, another = [], shape.another
    shape.another = lambda network: made.append(another(network)) or made[-1]
    shape.follow(teacher, states)
    for own, others in zip(signs_of_life(shape), signs_of_life(made[0]), strict=True):
        assert own
        assert all(map(torch.equal, own, others))
    assert shape.state()["follows"] == 2
    again = make_compressor(PRUNED[name], blueprint).shape
    again.restore(copy.deepcopy(shape.state()))
    for _ in range(2):  # the 3rd and the 4th, which prunes
        assert again.follow(teacher, states) == shape.follow(teacher, states)
    assert all(map(torch.equal, again.network.parameters(), shape.network.parameters()))


def test_what_is_left_stays_where_the_new_is_worse():
    blueprint, states = blueprint_of("mlp on vectors"), states_of(VECTOR)
    long = Distillation(steps=200, batch_size=32)
    shape, teacher = make_compressor(Channels(keep=0.3, distillation=long), blueprint).shape, teacher_of(blueprint)
    shape.follow(teacher, states)
    made, another = [], shape.another
    shape.another = lambda network: made.append(another(network)) or made[-1]
    shape.follow(teacher, states)
    kept = next(shape.network.parameters())
    assert not torch.equal(kept, next(made[0].network.parameters())), "twice as long taught, and kept"


def test_a_gaussians_deviation_is_pruned_of_nothing():
    blueprint = blueprint_of("mlp, Gaussian")
    teacher, smaller = teacher_of(blueprint), blueprint.build(width=0.25)
    prune(teacher, smaller)
    assert np.array_equal(smaller.log_std.detach(), teacher.log_std.detach())
