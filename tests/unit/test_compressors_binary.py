"""Signs: their gradients, the kernel against floats, and networks of them."""

import pytest
import torch
from teachers import KINDS, blueprint_of, size_of, states_of, teacher_of
from torch import nn
from torch.nn.functional import conv2d

from hpcddrl.compressors import kernel as kernel_module
from hpcddrl.compressors.binary import BinaryConv2d, BinaryLinear, binarise, scales, sign
from hpcddrl.compressors.cost import cost_of
from hpcddrl.compressors.kernel import NoKernelError, packed_signs, xnor_kernel
from hpcddrl.compressors.make import make_compressor, make_stand_in
from hpcddrl.compressors.xnor_network import XnorStandIn
from hpcddrl.config.compression import Binary, Distillation
from hpcddrl.networks.torsos import Residual


@pytest.fixture(scope="session")
def xnor():
    return xnor_kernel()


# --- the mathematics


def test_signs_are_one_or_minus_one_and_their_gradient_passes_within_one():
    x = torch.tensor([-2.0, -1.0, -0.3, 0.0, 0.5, 1.0, 1.01], requires_grad=True)
    signs = sign(x)
    assert signs.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    (signs * torch.arange(1.0, 8.0)).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


def slow_convolution(layer, x):
    """XNOR-Net's product with loops: α K Σ sign(x − t) sign(w) + b, padding worth nothing."""
    n, channels, height, width = x.shape
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    out = [(side + 2 * padding - kernel) // stride + 1 for side in (height, width)]
    y = torch.zeros(n, layer.out_channels, *out)
    for image in range(n):
        for i in range(out[0]):
            for j in range(out[1]):
                window = [
                    (
                        c,
                        a,
                        b,
                        float(x[image, c, i * stride + a - padding, j * stride + b - padding] - layer.threshold[c]),
                    )
                    for c in range(channels)
                    for a in range(kernel)
                    for b in range(kernel)
                    if 0 <= i * stride + a - padding < height and 0 <= j * stride + b - padding < width
                ]
                k = sum(abs(v) for *_, v in window) / (channels * kernel * kernel)
                for o in range(layer.out_channels):
                    dot = sum(
                        (1 if v >= 0 else -1) * (1 if layer.weight[o, c, a, b] >= 0 else -1) for c, a, b, v in window
                    )
                    alpha = float(layer.weight[o].abs().mean())
                    y[image, o, i, j] = dot * k * alpha + float(layer.bias[o])
    return y


@pytest.mark.parametrize("padding", [0, 1])
@torch.no_grad()
def test_a_binary_convolution_is_xnor_nets(padding):
    torch.manual_seed(0)
    layer = BinaryConv2d(nn.Conv2d(3, 2, 3, stride=2, padding=padding))
    layer.threshold.normal_()
    x = torch.randn(1, 3, 6, 5)
    torch.testing.assert_close(layer(x), slow_convolution(layer, x))


@torch.no_grad()
def test_a_binary_linear_layer_is_a_convolution_of_one_pixel():
    torch.manual_seed(0)
    linear = BinaryLinear(nn.Linear(7, 4))
    linear.threshold.normal_()
    convolution = BinaryConv2d(nn.Conv2d(7, 4, 1))
    for own, given in zip(convolution.parameters(), linear.parameters(), strict=True):
        own.copy_(given.view(own.shape))
    x = torch.randn(5, 7)
    torch.testing.assert_close(linear(x), convolution(x.view(5, 7, 1, 1)).flatten(1))


def test_gradients_reach_weights_thresholds_and_inputs_straight_through():
    torch.manual_seed(0)
    layer = BinaryLinear(nn.Linear(3, 2)).double()
    with torch.no_grad():
        layer.weight[0, 0], layer.weight[0, 1], layer.weight[0, 2] = 1.5, -0.5, 0.25
    x = torch.tensor([[0.4, -0.2, 3.0]], dtype=torch.double, requires_grad=True)
    layer(x)[0, 0].backward()
    k, alpha = float(x.detach().abs().mean()), float(layer.weight[0].detach().abs().mean())
    x_sign, w_sign = [1, -1, 1], [1, -1, 1]
    dot = 3
    for i in range(3):
        through = x_sign[i] * k * alpha * (abs(layer.weight[0, i].item()) <= 1)
        assert layer.weight.grad[0, i].item() == pytest.approx(through + dot * k * w_sign[i] / 3)  # α is a mean of |w|
        inward = w_sign[i] * k * alpha * (abs(x[0, i].item()) <= 1) + dot * alpha * x_sign[i] / 3  # and K of |x|
        assert x.grad[0, i].item() == pytest.approx(inward)
        assert layer.threshold.grad[i].item() == pytest.approx(-inward)
    assert layer.bias.grad.tolist() == [1, 0]


# --- the kernel


@pytest.mark.parametrize("seed", range(40))
@torch.no_grad()
def test_the_kernel_is_the_float_product_exactly(xnor, seed):
    g = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high + 1, (1,), generator=g))

    n, channels, outputs, kernel, stride = draw(1, 3), draw(1, 150), draw(1, 70), draw(1, 4), draw(1, 3)
    padding, height, width = draw(0, kernel - 1), draw(kernel, 11), draw(kernel, 11)
    x, weight = (
        torch.randn(n, channels, height, width, generator=g),
        torch.randn(outputs, channels, kernel, kernel, generator=g),
    )
    threshold = 0.3 * torch.randn(channels, generator=g)
    x[0, 0, 0, 0] = threshold[0]  # counts as +1
    expected = conv2d(sign(x - threshold.view(1, -1, 1, 1)), sign(weight), None, stride, padding)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = xnor(x.contiguous(memory_format=layout), threshold, packed_signs(weight >= 0, stride, padding))
        assert torch.equal(got, expected)


@pytest.mark.parametrize("features", [1, 8, 63, 64, 65, 512, 3137])
@torch.no_grad()
def test_the_kernel_takes_vectors_of_any_length(xnor, features):
    g = torch.Generator().manual_seed(features)
    x, weight = torch.randn(4, features, generator=g), torch.randn(9, features, generator=g)
    got = xnor(x.view(4, -1, 1, 1), torch.zeros(features), packed_signs(weight.view(9, -1, 1, 1) >= 0, 1, 0))
    assert torch.equal(got.flatten(1), sign(x) @ sign(weight).T)


@torch.no_grad()
def test_signs_are_packed_to_bits_of_words():
    signs = torch.ones(2, 3, 1, 1, dtype=torch.bool)
    signs[1, 0] = False
    packed = packed_signs(signs, 1, 0)
    assert packed.words.tolist() == [[0b111, 0b110]]
    assert packed.tap_sums.tolist() == [[3, 1]]


# --- networks


def learned(kind):
    blueprint = blueprint_of(kind)
    compressor = make_compressor(Binary(distillation=Distillation(steps=2, batch_size=8)), blueprint)
    compressor.follow(teacher_of(blueprint), states_of(blueprint.spec, 16))
    return blueprint, compressor


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_acts_by_the_kernel_answers_exactly_as_what_was_distilled(kind, xnor):
    blueprint, compressor = learned(kind)
    states = states_of(blueprint.spec, 9, seed=1)
    actor = make_stand_in(Binary(), blueprint)
    assert not actor.simulated
    assert len(actor.pack()) == len(compressor.stand_in.pack())
    actor.unpack(compressor.stand_in.pack())
    compressor.shape.network.precision = actor._network.precision
    distilled = compressor.shape.network(states)
    for wanted, first, second in zip(distilled, compressor.stand_in(states), actor(states), strict=True):
        assert torch.equal(wanted, first)
        assert torch.equal(wanted, second)


def test_binary_layers_are_published_as_a_bit_a_weight():
    blueprint = blueprint_of("nature, Q", width=1.0)
    stand_in, plain = XnorStandIn(blueprint.build()), blueprint.build()
    network = blueprint.build()
    layers = binarise(network)
    inner = sum(layer.weight.numel() for layer in layers)
    floats = size_of(network) - inner + sum(len(layer.weight) for layer in layers)  # and an α for each output
    assert len(stand_in.pack()) == inner // 8 + 4 * floats
    assert len(layers) == 3
    assert cost_of(network, blueprint.spec).binary_macs > 0
    cost, whole = cost_of(network, blueprint.spec), cost_of(plain, blueprint.spec)
    assert cost.macs + cost.binary_macs == whole.macs


def test_weights_stay_centred_and_clamped_and_thresholds_start_at_the_inputs_means():
    blueprint, compressor = learned("nips")
    layers = [m for m in compressor.shape.network.modules() if isinstance(m, BinaryConv2d | BinaryLinear)]
    for layer in layers:
        assert layer.weight.abs().max() <= 1
        assert layer.weight.mean(1).abs().max() < 1e-6
    seen = []
    layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    compressor.shape.network(states_of(blueprint.spec, 16))
    above = (seen[0] >= layers[0].threshold.view(1, -1, 1, 1)).float().mean()
    assert 0.2 < above < 0.8  # the signs say something, though a ReLU comes before


@torch.no_grad()
def test_without_a_compiler_it_is_simulated_and_says_why(xnor, monkeypatch, tmp_path):
    blueprint, compressor = learned("nips")
    xnor_kernel.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    try:
        with pytest.raises(NoKernelError, match="no C\\+\\+ compiler"):
            xnor_kernel()
        actor = make_stand_in(Binary(), blueprint)
        assert actor.simulated
        assert "no C++ compiler" in actor.why_simulated
        monkeypatch.setenv("CXX", "/bin/false")
        with pytest.raises(NoKernelError, match=r"/bin/false .* failed"):
            xnor_kernel()
        monkeypatch.setenv("CXX", "/nowhere/c++")
        with pytest.raises(NoKernelError, match="could not compile"):
            xnor_kernel()
        assert not list(tmp_path.rglob("*.so"))
    finally:
        xnor_kernel.cache_clear()
    actor.unpack(compressor.stand_in.pack())
    states = states_of(blueprint.spec, 5)
    assert torch.equal(actor(states).policy, compressor.stand_in(states).policy)


def test_a_kernel_that_was_compiled_is_not_compiled_again(xnor, monkeypatch):
    xnor_kernel.cache_clear()
    monkeypatch.setattr(kernel_module, "_compile", lambda target: pytest.fail("compiled again"))
    assert xnor_kernel() is not None


@torch.no_grad()
def test_the_scale_of_an_output_is_the_mean_of_its_weights_sizes():
    weight = torch.tensor([[1.0, -3.0], [0.5, 0.5]])
    assert scales(weight).tolist() == [2.0, 0.5]


def test_every_torso_has_layers_to_binarise():
    counts = {kind: len(binarise(blueprint_of(kind).build())) for kind in KINDS}
    assert counts == {
        "mlp on vectors": 1, "mlp, Gaussian": 1, "mlp on images": 1, "nips": 2, "nature, Q": 3, "resnet": 15,
    }  # fmt: skip


def test_layers_that_begin_as_zeros_learn_too_and_alike_each_time():
    """A residual block is the identity if its second convolution is 0, whose scale would let no gradient through."""
    blueprint, made = blueprint_of("resnet", width=0.25), []
    for _ in range(2):
        compressor = make_compressor(Binary(distillation=Distillation(steps=3, batch_size=8)), blueprint)
        network, teacher, states = compressor.shape.network, blueprint.build(), states_of(blueprint.spec, 16)
        for block in teacher.torso.modules():
            if isinstance(block, Residual):
                nn.init.zeros_(block.second.weight)
        compressor.follow(teacher, states)
        blocks = [module for module in network.torso.modules() if isinstance(module, Residual)]
        assert blocks
        begun = [block.second.weight.detach().clone() for block in blocks]
        for _ in range(3):
            compressor.follow(teacher, states)
        network.zero_grad()
        network(states).policy.square().sum().backward()
        for block, before in zip(blocks, begun, strict=True):
            assert block.second.weight.any()
            assert not torch.equal(block.second.weight, before)
            assert float(block.first.weight.grad.abs().sum()) > 0
        made.append(compressor.stand_in.pack().tobytes())
    assert made[0] == made[1]
