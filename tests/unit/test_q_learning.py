"""The network of action values, and Q-learning's gradient against a slow transcription in double precision."""

import copy

import numpy as np
import pytest
import torch

from hpcddrl.algorithms.q_learning import QLearning
from hpcddrl.config import QLearning as QLearningConfig
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.types import Discrete, EnvSpec, Mixture, Targets, Transitions, Weights

SPEC = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)
N = 7


def network(dueling=True, seed=0):
    made = QNetwork(SPEC, "mlp", 0.1, dueling, seed, Precision())
    with torch.no_grad():  # heads start almost at 0: away from there, actions differ
        for head in filter(None, (made.advantage, made.value)):
            head.weight.mul_(100)
    return made


def slow_q(net, x):
    """Q(x, a) of one observation [5] in double precision, head by head (Wang et al. 2016, equation 9)."""
    net = copy.deepcopy(net).double()
    features = net.torso(x.double()[None])[0]
    advantage = [features @ net.advantage.weight[a] + net.advantage.bias[a] for a in range(3)]
    if net.value is None:
        return net, advantage
    value = features @ net.value.weight[0] + net.value.bias[0]
    return net, [value + a - sum(advantage) / 3 for a in advantage]


@pytest.mark.parametrize("dueling", [False, True])
def test_q_is_that_of_its_heads_and_value_the_best_of_it(dueling):
    net = network(dueling)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    q, value = net(x)
    for i in range(4):
        _, expected = slow_q(net, x[i])
        assert q[i].tolist() == pytest.approx([e.item() for e in expected], abs=1e-5)
        assert value[i].item() == max(q[i].tolist())


def test_a_dueling_networks_mean_over_the_actions_is_its_value_head():
    net = network()
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    before = net(x).policy
    with torch.no_grad():
        net.advantage.bias += 5.0  # of all actions alike: the mean advantage is taken away
    torch.testing.assert_close(net(x).policy, before)
    with torch.no_grad():
        net.value.bias += 5.0
    torch.testing.assert_close(net(x).policy, before + 5.0)


def transitions(seed=0):
    g = torch.Generator().manual_seed(seed)
    gamma = 0.9
    return Transitions(
        observation=torch.randn(N, 5, generator=g),
        next_observation=torch.randn(N, 5, generator=g),
        action=torch.randint(3, (N,), generator=g),
        reward=3 * torch.randn(N, generator=g),
        discount=torch.tensor([gamma**3, gamma**3, 0.0, gamma, gamma**2, 0.0, gamma**3]),  # ends cut some short
        weight=0.2 + 0.8 * torch.rand(N, generator=g),
        versions=np.zeros(N, np.int64),
        steps=0,
    )


def learner(dueling=True, seed=0, **choices):
    """Return a Q-learner, its network's values and gradient; the target network starts as something else."""
    net = network(dueling, seed)
    flat = flatten(net)
    algorithm = QLearning(QLearningConfig(**choices), net, network(dueling, seed=99), flat.gradient)
    return algorithm, net, flat


def slow_gradient(net, target, batch, double, huber):
    """Return the errors, the loss and its gradient by autograd from a loop over the transitions."""
    gradient, errors, total = None, [], 0.0
    for i in range(N):
        _, next_target = slow_q(target, batch.next_observation[i])
        _, next_own = slow_q(net, batch.next_observation[i])
        choosing = next_own if double else next_target
        best = max(range(3), key=lambda a: choosing[a].item())
        y = float(batch.reward[i]) + float(batch.discount[i]) * next_target[best].item()
        own, q = slow_q(net, batch.observation[i])
        error = y - q[int(batch.action[i])]
        size = error.abs()
        linear = huber is not None and size.item() > huber
        loss = float(batch.weight[i]) * (huber * (size - 0.5 * huber) if linear else 0.5 * error**2) / N
        parts = torch.cat([p.flatten() for p in torch.autograd.grad(loss, list(own.parameters()))])
        gradient = parts if gradient is None else gradient + parts
        errors.append(error.item())
        total += loss.item()
    return errors, total, gradient


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("huber", [1.0, None])
def test_gradient_and_errors_equal_a_slow_transcription(dueling, double, huber):
    algorithm, net, flat = learner(dueling, double=double, huber=huber, target_every=100)
    old, batch = copy.deepcopy(net), transitions()
    algorithm.gradients(batch, None, Weights(0, flat.values))  # copies these weights
    flat.values[:] += 0.1 * torch.randn(flat.values.shape, generator=torch.Generator().manual_seed(5))
    flat.gradient.fill_(123.0)
    learned = algorithm.gradients(batch, None, Weights(1, flat.values))
    errors, loss, expected = slow_gradient(net, old, batch, double, huber)
    torch.testing.assert_close(flat.gradient, expected.float(), atol=1e-4, rtol=1e-4)
    assert learned.errors.tolist() == pytest.approx(errors, abs=1e-4)
    assert learned.metrics["loss"] == pytest.approx(loss, rel=1e-4)
    assert learned.metrics["td_error"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)
    assert learned.metrics["weight_mean"] == pytest.approx(float(batch.weight.mean()))


def test_errors_are_signed_target_minus_q():
    algorithm, _, flat = learner()
    batch = transitions()._replace(discount=torch.zeros(N))
    high = algorithm.gradients(batch._replace(reward=torch.full((N,), 50.0)), None, Weights(0, flat.values)).errors
    low = algorithm.gradients(batch._replace(reward=torch.full((N,), -50.0)), None, Weights(0, flat.values)).errors
    assert (high > 0).all()
    assert (low < 0).all()
    np.testing.assert_allclose(high - low, 100.0, rtol=1e-5)


def test_a_step_down_the_gradient_brings_q_nearer_to_the_target():
    algorithm, _, flat = learner(target_every=10)
    batch, weights = transitions(), Weights(0, flat.values)
    before = algorithm.gradients(batch, None, weights).metrics["loss"]
    flat.values[:] -= 1e-2 * flat.gradient
    assert algorithm.gradients(batch, None, weights).metrics["loss"] < before


def copied_at(versions, every):
    """Return the versions at which the target weights changed, to those of the moment."""
    net, target = network(), network(seed=99)
    flat = flatten(net)
    algorithm = QLearning(QLearningConfig(target_every=every), net, target, flat.gradient)
    changed = []
    for version in versions:
        flat.values[:] += 0.01
        before = copy.deepcopy(target.state_dict())
        algorithm.gradients(transitions(), None, Weights(version, flat.values))
        if any(not torch.equal(before[name], tensor) for name, tensor in target.state_dict().items()):
            changed.append(version)
            assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in target.state_dict().items())
    return changed


def test_target_weights_are_copied_every_so_many_versions_and_not_between():
    assert copied_at(range(12), every=5) == [0, 5, 10]
    assert copied_at(range(100, 112), every=5) == [100, 105, 110], "after a resume"
    assert copied_at([0, 3, 4, 9, 13, 14, 21], every=5) == [0, 9, 14, 21], "of a server, who counts others' updates too"
    assert copied_at([0, 0, 0, 1], every=1) == [0, 1], "a refused gradient is no update"


def test_target_weights_are_a_copy_that_gets_no_gradient():
    net, target = network(), network(seed=99)
    flat = flatten(net)
    algorithm = QLearning(QLearningConfig(target_every=100), net, target, flat.gradient)
    algorithm.gradients(transitions(), None, Weights(0, flat.values))
    kept = copy.deepcopy(target.state_dict())
    flat.values[:] += 1.0
    assert all(torch.equal(kept[name], tensor) for name, tensor in target.state_dict().items())
    assert all(p.grad is None or not p.grad.any() for p in target.parameters())


# --- drawn to what others say

TAU = 0.3


def drawn_to(mixture, rows, beta=0.7):
    return Targets(rows, beta, lambda own: Mixture(mixture))


def gradient_with(targets, tau=TAU):
    net = network()
    flat = flatten(net)
    algorithm = QLearning(QLearningConfig(), net, network(seed=99), flat.gradient, tau)
    learned = algorithm.gradients(transitions(), targets, Weights(0, flat.values))
    return learned, flat.gradient.clone(), net


def test_the_divergence_from_the_softmax_of_q_adds_its_gradient():
    rows, batch = slice(1, N, 2), transitions()
    mixture = torch.randn(len(range(N)[rows]), 3, generator=torch.Generator().manual_seed(5)).log_softmax(-1)
    _, alone, _ = gradient_with(None)
    learned, drawn, net = gradient_with(drawn_to(mixture, rows))
    total = 0.0
    for row, i in enumerate(range(N)[rows]):
        _, q = slow_q(net, batch.observation[i])
        powers = [(value / TAU).exp() for value in q]
        log_pi = [(power / sum(powers)).log() for power in powers]
        total = total + sum(p.exp() * (p - log_pi[a]) for a, p in enumerate(mixture[row]))
    mean = total / len(mixture)
    assert learned.metrics["kl"] == pytest.approx(float(mean.detach()), rel=1e-4)
    extra = torch.autograd.grad(reference_kl(net, batch, rows, mixture), list(net.parameters()))
    torch.testing.assert_close(drawn, alone + 0.7 * torch.cat([g.flatten() for g in extra]), atol=1e-5, rtol=1e-4)


def reference_kl(net, batch, rows, mixture):
    log_pi = (net(batch.observation[rows]).policy / TAU).log_softmax(-1)
    return torch.nn.functional.kl_div(log_pi, mixture, log_target=True, reduction="batchmean")


def test_a_group_is_heard_with_its_own_softmax_of_q_and_its_greatest_q():
    heard = []

    def mix(own):
        heard.append(own)
        return Mixture(own.policy)

    learned, drawn, net = gradient_with(Targets(slice(0, N, 3), 0.7, mix))
    with torch.no_grad():
        q = net(transitions().observation[0:N:3]).policy
    torch.testing.assert_close(heard[0].policy, q / TAU)
    torch.testing.assert_close(heard[0].value, q.amax(-1))
    assert not heard[0].policy.requires_grad
    assert learned.metrics["kl"] == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(drawn, gradient_with(None)[1])
