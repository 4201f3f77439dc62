"""Torsos, heads, the flat vector of parameters, and the precisions that a network computes in."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.flat import TAIL, flatten
from hpcddrl.networks.held import fill, held
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.networks.precision import choose_precision, shortest_calls
from hpcddrl.networks.torsos import SMALLEST_SIDE, TORSOS, blind_spot, torso, unseen
from hpcddrl.types import Continuous, Discrete, EnvSpec

IMAGE = EnvSpec((84, 84), np.dtype(np.uint8), 4, Discrete(6), 4)
SMALL = EnvSpec((42, 42), np.dtype(np.uint8), 2, Discrete(3), 1)
VECTOR = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)
BOX = EnvSpec((5,), np.dtype(np.float32), 1, Continuous(-np.ones(2, np.float32), np.ones(2, np.float32)), frame_skip=1)


def network(spec, name="auto", width=1.0, seed=1, precision=None):
    return PolicyValueNetwork(spec, name, width, seed, precision or Precision())


def observations(spec, count=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    if spec.frame_dtype == np.uint8:
        return torch.randint(0, 256, (count, *spec.observation_shape), dtype=torch.uint8, generator=g)
    return torch.randn(count, *spec.observation_shape, generator=g)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def channels(module):
    return [m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d)]


def units(module):
    return [m.out_features for m in module.modules() if isinstance(m, nn.Linear)]


# --- the flat vector


def loss_of(net, x):
    output = net(x)
    return output.policy[:, 0].mean() + output.value.mean()


def plain_gradients(net, x):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss_of(net, x), list(net.parameters()))])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", ["mlp", "nips", "nature", "resnet"])
def test_gradients_land_in_the_flat_vector_whatever_the_memory_format(name, channels_last):
    net, x = network(SMALL, name), observations(SMALL)
    expected = plain_gradients(net, x)
    net.precision = Precision("fp32", channels_last)
    flat = flatten(net)
    for _ in range(2):  # the second pass must find the same vector, not one that the first replaced
        flat.gradient.zero_()
        loss_of(net, x).backward()
        assert (flat.gradient - expected).norm() < 1e-4 * expected.norm()
    assert flat.buffer[-1] == 0.0


@pytest.mark.parametrize("spec", [SMALL, BOX], ids=["image", "box"])
def test_parameters_are_views_of_the_flat_vector_in_their_order(spec):
    net, x = network(spec), observations(spec)
    before = [p.detach().clone() for p in net.parameters()]
    answer = net(x)
    flat = flatten(net)
    assert flat.values.shape == flat.gradient.shape == (parameters(net),)
    assert flat.buffer.shape == (parameters(net) + TAIL,)
    assert torch.equal(flat.values, torch.cat([p.flatten() for p in before]))
    torch.testing.assert_close(net(x).value, answer.value)
    flat.values.zero_()
    assert all(not p.any() for p in net.parameters())
    next(net.parameters()).data.fill_(3.0)
    assert (flat.values[: before[0].numel()] == 3.0).all()


def test_a_state_dict_loads_into_the_flat_vector():
    one, other = network(VECTOR, seed=1), network(VECTOR, seed=2)
    flat = flatten(one)
    one.load_state_dict(other.state_dict())
    assert torch.equal(flat.values, torch.cat([p.detach().flatten() for p in other.parameters()]))


def test_an_optimizer_over_the_flat_vector_steps_the_network_as_one_over_its_parameters():
    one, other, x = network(SMALL, "nips"), network(SMALL, "nips"), observations(SMALL)
    flat = flatten(one)
    whole = nn.Parameter(flat.values)
    by_vector = torch.optim.RMSprop([whole], 1e-3)
    by_parameter = torch.optim.RMSprop(other.parameters(), 1e-3)
    for _ in range(3):
        flat.gradient.zero_()
        loss_of(one, x).backward()
        whole.grad = flat.gradient
        by_vector.step()
        by_parameter.zero_grad()
        loss_of(other, x).backward()
        by_parameter.step()
    expected = torch.cat([p.detach().flatten() for p in other.parameters()])
    torch.testing.assert_close(flat.values, expected)
    assert not torch.equal(expected, flatten(network(SMALL, "nips")).values)


# --- torsos


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("nips", 4 * 16 * 64 + 16 + 16 * 32 * 16 + 32 + 9 * 9 * 32 * 256 + 256),
        ("nature", 4 * 32 * 64 + 32 + 32 * 64 * 16 + 64 + 64 * 64 * 9 + 64 + 7 * 7 * 64 * 512 + 512),
    ],
)
def test_torsos_on_atari_have_the_papers_size(name, count):
    net = network(IMAGE, name)
    last = {"nips": 256, "nature": 512}[name]
    assert parameters(net) == count + 7 * (last + 1)  # six actions and a value
    assert parameters(net) / 1e6 == pytest.approx({"nips": 0.68, "nature": 1.69}[name], abs=0.005)


def test_layers_of_the_papers():
    assert channels(network(IMAGE, "nips")) == [16, 32]
    assert channels(network(IMAGE, "nature")) == [32, 64, 64]
    assert channels(network(IMAGE, "resnet")) == [16] * 5 + [32] * 10
    assert units(network(IMAGE, "resnet"))[0] == 256
    assert units(network(VECTOR, "mlp").torso) == [128, 128]


@pytest.mark.parametrize("name", sorted(TORSOS))
def test_width_scales_every_layer(name):
    one, half = network(SMALL, name), network(SMALL, name, width=0.5)
    assert channels(half) == [c // 2 for c in channels(one)]
    assert units(half.torso) == [u // 2 for u in units(one.torso)]


@pytest.mark.parametrize("name", sorted(TORSOS))
def test_a_tiny_width_leaves_one_unit_a_layer(name):
    net = network(SMALL, name, width=1e-6)
    assert set(channels(net) + units(net.torso)) == {1}
    assert net(observations(SMALL)).value.shape == (6,)


@pytest.mark.parametrize(
    ("shape", "expected"), [((4, 64, 70), True), ((4, 63, 84), False), ((4, 84, 63), False), ((8,), False)]
)
def test_auto_takes_convolutions_for_images_of_64_pixels_and_more(shape, expected):
    assert bool(channels(torso("auto", shape, 1.0))) is expected


@pytest.mark.parametrize("name", sorted(SMALLEST_SIDE))
def test_torsos_work_on_the_smallest_images_they_claim(name):
    side = SMALLEST_SIDE[name]
    assert torso(name, (2, side, side + 3), 1.0)(torch.zeros(1, 2, side, side + 3)).shape[0] == 1


@pytest.mark.parametrize("name", ["nips", "nature"])
def test_too_small_images_are_an_error_that_names_the_way_out(name):
    side = SMALLEST_SIDE[name] - 1
    with pytest.raises(
        ValueError, match=rf"^network.torso = '{name}': .*at least {side + 1}×{side + 1}.*{side}×60.*use mlp$"
    ):
        torso(name, (4, side, 60), 1.0)


@pytest.mark.parametrize("name", ["nips", "nature", "resnet"])
def test_convolutions_over_vectors_are_an_error(name):
    with pytest.raises(ValueError, match=r"vectors of 8; use mlp$"):
        torso(name, (8,), 1.0)


# --- initialisation and outputs


def values_of(net):
    return flatten(net).values


@pytest.mark.parametrize("spec", [SMALL, VECTOR, BOX], ids=["image", "vector", "box"])
def test_same_seed_same_weights_and_the_global_generator_is_left_alone(spec):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one = values_of(network(spec, seed=3))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, values_of(network(spec, seed=3)))
    assert not torch.equal(one, values_of(network(spec, seed=4)))


def test_policy_starts_near_uniform():
    policy = network(IMAGE)(observations(IMAGE)).policy.softmax(-1)
    torch.testing.assert_close(policy, torch.full_like(policy, 1 / 6), atol=0.02, rtol=0)


def test_continuous_policy_has_a_mean_and_a_deviation_that_no_state_changes():
    output = network(BOX)(observations(BOX))
    assert output.policy.shape == (6, 4)
    assert output.value.shape == (6,)
    deviations = output.policy[:, 2:].exp()
    torch.testing.assert_close(deviations, torch.full_like(deviations, 0.6))
    assert output.policy[:, :2].std(0).min() > 0


def torso_input(net, x):
    seen = []
    net.torso.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(x)
    return seen[0]


def test_pixels_are_divided_by_255():
    x = observations(SMALL)
    torch.testing.assert_close(torso_input(network(SMALL), x), x.float() / 255)


@pytest.mark.parametrize("shape", [(5,), (4, 6), (2, 4, 6)])
def test_observations_that_are_no_pixels_are_not_scaled(shape):
    spec = EnvSpec(shape, np.dtype(np.float32), 1, Discrete(2), 1)
    x = observations(spec)
    assert torch.equal(torso_input(network(spec), x), x)


@pytest.mark.parametrize(
    ("frame", "depth", "shape"),
    [((5,), 1, (5,)), ((5,), 3, (15,)), ((84, 84), 4, (4, 84, 84)), ((3, 42, 40), 2, (6, 42, 40))],
)
def test_observation_shape_puts_the_frames_side_by_side(frame, depth, shape):
    assert EnvSpec(frame, np.dtype(np.uint8), depth, Discrete(2), 1).observation_shape == shape


# --- precision

PRECISIONS = [Precision(name, last) for name in ("fp32", "bf16") for last in (False, True)]


@pytest.mark.parametrize("precision", PRECISIONS[1:], ids=str)
@pytest.mark.parametrize("name", ["nips", "nature", "resnet"])
def test_every_precision_is_close_to_plain_fp32(name, precision):
    net, x = network(SMALL, name), observations(SMALL)
    features = []
    net.torso.register_forward_hook(lambda module, inputs, output: features.append(output.detach().float()))
    gradient = plain_gradients(net, x)
    net.precision = precision
    output, close = net(x), plain_gradients(net, x)
    assert output.policy.dtype == output.value.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in net.parameters())
    error = 2e-2 if precision.name == "bf16" else 1e-4
    assert (features[1] - features[0]).norm() < error * features[0].norm()
    assert (close - gradient).norm() < 5 * error * gradient.norm()


def test_bf16_computes_in_bf16():
    net, x = network(SMALL, "nips"), observations(SMALL)
    assert torso_input(network(SMALL, precision=Precision("bf16")), x).dtype == torch.bfloat16
    plain = net(x).value
    net.precision = Precision("bf16")
    assert not torch.equal(net(x).value, plain)


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize(
    ("wanted", "candidates"), [("auto", PRECISIONS), ("fp32", PRECISIONS[:2]), ("bf16", PRECISIONS[2:])]
)
def test_choose_precision_returns_one_of_its_candidates_and_the_rate_of_each(wanted, candidates, trains):
    chosen, rates = choose_precision(network(SMALL), SMALL, wanted, batch=4, trains=trains, seconds=0.005)
    assert chosen in candidates
    assert len(rates) == len(candidates)
    assert all(math.isfinite(rate) and rate > 0 for rate in rates.values())


@pytest.mark.parametrize(("wanted", "name"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")])
def test_choose_precision_times_nothing_on_vectors(wanted, name):
    assert choose_precision(network(VECTOR), VECTOR, wanted, 4, trains=True) == (Precision(name), {})


def test_choose_precision_prefers_plain_fp32_when_the_others_gain_too_little(monkeypatch):
    rates = dict(zip(PRECISIONS, [100.0, 105.0, 109.0, 101.0], strict=True))
    monkeypatch.setattr("hpcddrl.networks.precision._answering", lambda net, precision, x: precision)
    shortest = lambda calls, seconds: {c: 4 / rates[c] for c in calls}  # noqa: E731
    monkeypatch.setattr("hpcddrl.networks.precision.shortest_calls", shortest)
    net = network(SMALL)
    assert choose_precision(net, SMALL, "auto", 4, trains=False)[0] == PRECISIONS[0]
    for better, worse in pairwise(reversed(PRECISIONS)):
        rates[better], rates[worse] = 150.0, 100.0
        assert choose_precision(net, SMALL, "auto", 4, trains=False)[0] == better
        rates[better] = 100.0


@pytest.fixture
def calls_that_take(monkeypatch):
    """Return what makes calls of given seconds, by a clock that they alone move; each notes its name in a list."""
    clock = [0.0]
    monkeypatch.setattr("hpcddrl.networks.precision.time.perf_counter", lambda: clock[0])

    def make(order, **seconds):
        def calling(name, takes):
            def once():
                order.append(name)
                clock[0] += next(takes)

            return once

        return {name: calling(name, iter(takes)) for name, takes in seconds.items()}

    return make


def test_the_shortest_call_counts_however_long_the_others_take(calls_that_take):
    order = []
    calls = calls_that_take(order, a=[50, 9, 2, 1, 8, 3, 9, 9], b=[1, 4, 4, 4, 5, 6, 7, 8])
    assert shortest_calls(calls, seconds=0.0, prepare=order.append) == {"a": 1, "b": 4}
    assert order == ["a", "a", "a", "b", "b", "b", *"aabb" * 2]


@pytest.mark.parametrize(("first", "later", "calls"), [(6.0, 4.0, 1), (0.9, 6.0, 2), (4.0, 4.0, 4)])
def test_what_is_many_times_slower_gets_no_more_turns(first, later, calls, calls_that_take):
    """Beside a's second: b's first call of 6 s is enough; so is the next, where the first was short; 4 s are not."""
    order = []
    shortest = shortest_calls(calls_that_take(order, a=[1.0] * 8, b=[first, *[later] * 8]), seconds=0.0)
    assert shortest == {"a": 1, "b": first if calls == 1 else later}
    assert (order.count("a"), order.count("b")) == (4, calls)


@pytest.mark.parametrize("name", ["nips", "nature", "resnet", "mlp"])
@pytest.mark.parametrize("side", [36, 42, 43, 84])
def test_what_strides_leave_out_changes_no_feature(name, side):
    torch.manual_seed(0)
    image = torch.rand(1, 2, side, side, requires_grad=True)
    torso(name, (2, side, side), width=1.0)(image).sum().backward()
    reached = (image.grad.abs().sum((0, 1)) > 0).nonzero().max(0).values + 1
    assert (side - reached).tolist() == [unseen(name, side)] * 2


def test_a_blind_spot_is_told_with_a_way_out():
    assert blind_spot("nips", (4, 84, 84)) is None
    assert blind_spot("auto", (5,)) is None
    line = blind_spot("nature", (4, 84, 42))
    assert line is not None
    assert all(part in line for part in ("network.torso = 'nature'", "last 0 rows and 6 columns", "84×42", "resnet"))


def test_choose_precision_leaves_the_weights_alone():
    net = network(SMALL)
    before = values_of(network(SMALL))
    choose_precision(net, SMALL, "auto", 4, trains=True, seconds=0.0)
    assert torch.equal(values_of(net), before)
    assert not flatten(net).gradient.any()


# --- weights that are only answered with


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["nips", "resnet"])
def test_held_weights_answer_as_the_network_does(name, precision):
    net, x = network(SMALL, name, precision=precision), observations(SMALL)
    answers = held(net, precision)
    with torch.no_grad():
        expected, got = net(x), answers(x)
    torch.testing.assert_close(got.policy, expected.policy)
    torch.testing.assert_close(got.value, expected.value)
    stored = {p.dtype for p in answers.torso.parameters()}
    assert stored == {torch.bfloat16 if precision.name == "bf16" else torch.float32}
    assert answers.policy.weight.dtype == torch.float32


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_vector_fills_held_weights(precision):
    one, other, x = (
        network(SMALL, "nips", seed=1),
        network(SMALL, "nips", seed=2, precision=precision),
        observations(SMALL),
    )
    answers = held(one, precision)
    fill(answers, flatten(other).values)
    with torch.no_grad():
        torch.testing.assert_close(answers(x).policy, other(x).policy)
        assert not torch.equal(one(x).policy, other(x).policy)
