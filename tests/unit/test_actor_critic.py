"""The gradient of the whole actor-critic loss against a slow transcription, and the sign of each of its terms."""

import math
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent, Normal, kl_divergence

from hpcddrl.algorithms.actor_critic import ActorCritic
from hpcddrl.config import ActorCritic as ActorCriticConfig
from hpcddrl.networks.policy_value import Output
from hpcddrl.rl.ensemble import softmax_weights
from hpcddrl.rl.policies import Categorical, Gaussian
from hpcddrl.roles.mixing import Mixer
from hpcddrl.types import Batch, Mixture, Opinion, Targets, Weights, side_by_side

R, T, B, FEATURES = 2, 5, 2, 3
N = R * B
CONFIG = ActorCriticConfig(discount=0.9, rho_bar=1.1, c_bar=0.8, trace_decay=0.95, entropy_coefficient=0.05)


class Tiny(nn.Module):
    """A network in float64, so that differences are exact enough; policy and value share a layer."""

    def __init__(self, size, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body, self.policy, self.value = nn.Linear(FEATURES, 4), nn.Linear(4, size), nn.Linear(4, 1)
        self.double()

    def forward(self, x):
        features = torch.tanh(self.body(x))
        return Output(self.policy(features), self.value(features).squeeze(-1))


class Discrete:
    """What the transcription needs to know of a categorical policy."""

    size, policy = 3, Categorical(3)

    @staticmethod
    def distribution(params):
        return TorchCategorical(logits=params)

    @staticmethod
    def mixture(params, weights):
        return TorchCategorical(probs=sum(c * p.softmax(-1) for c, p in zip(weights, params, strict=True)))

    @staticmethod
    def actions(g):
        return torch.randint(3, (T, N), generator=g)


class Box:
    """What the transcription needs to know of a Gaussian policy in two dimensions."""

    size, policy = 4, Gaussian(2)

    @staticmethod
    def distribution(params):
        return Independent(Normal(params[..., :2], params[..., 2:].exp()), 1)

    @staticmethod
    def mixture(params, weights):
        pairs = list(zip(weights, params, strict=True))
        mean = sum(c * p[:2] for c, p in pairs)
        second = sum(c * ((2 * p[2:]).exp() + p[:2] ** 2) for c, p in pairs)
        return Independent(Normal(mean, (second - mean**2).sqrt()), 1)

    @staticmethod
    def actions(g):
        return torch.randn(T, N, 2, generator=g, dtype=torch.float64)


FAMILIES = [pytest.param(Discrete, id="categorical"), pytest.param(Box, id="gaussian")]


def random_batch(family, seed=0):
    """Return a batch with terminated, truncated and reset steps in it."""
    g = torch.Generator().manual_seed(seed)
    discount, valid = torch.ones(T, N).double(), torch.ones(T, N).double()
    discount[1, 0], valid[2, 0] = 0.0, 0.0  # terminated, then reset
    valid[3, 2] = 0.0  # reset after a truncated step
    discount[T - 1, 1] = 0.0  # terminated with the rollout
    valid[0, 3] = 0.0  # the rollout opens with a reset
    return Batch(
        observation=torch.randn(R, T + 1, B, FEATURES, generator=g, dtype=torch.float64),
        action=family.actions(g),
        log_mu=-2 * torch.rand(T, N, generator=g, dtype=torch.float64),
        reward=torch.randn(T, N, generator=g, dtype=torch.float64),
        discount=discount,
        valid=valid,
        versions=torch.zeros(R * B, dtype=torch.int64).numpy(),
        steps=T * N,
    )


class Told(NamedTuple):
    """What others say, as numbers that the transcription can read."""

    rows: slice
    peers: tuple[Opinion, ...]
    beta: float
    temperature: float
    teacher: bool = False  # the first peer speaks alone

    def targets(self, family):
        if self.teacher:
            return Targets(self.rows, self.beta, lambda own: Mixture(self.peers[0].policy))
        mixer = Mixer(family.policy, lambda v, m, s: softmax_weights(v, self.temperature), 1 + len(self.peers), 0)
        groups = range(1, 1 + len(self.peers))
        return Targets(self.rows, self.beta, lambda own: mixer.mix(groups, self.peers, own))


def random_targets(family, beta=0.7, rows=slice(1, T, 2), count=2):
    g = torch.Generator().manual_seed(9)
    steps = len(range(T)[rows])
    peers = tuple(
        Opinion(
            policy=torch.randn(steps, N, family.size, generator=g, dtype=torch.float64),
            value=torch.randn(steps, N, generator=g, dtype=torch.float64),
        )
        for _ in range(count)
    )
    return Told(rows, peers, beta, temperature=0.5)


def gradient_of(network, family, batch, targets=None, config=CONFIG):
    """Return the gradient vector and the metrics that `ActorCritic` gives; whatever was in the vector is gone."""
    parameters = list(network.parameters())
    vector = torch.full((sum(p.numel() for p in parameters),), 123.0, dtype=torch.float64)
    offset = 0
    for p in parameters:
        p.grad = vector[offset : offset + p.numel()].view(p.shape)
        offset += p.numel()
    told = None if targets is None else targets.targets(family)
    metrics = ActorCritic(config, network, vector, family.policy).gradients(batch, told, Weights(0, vector)).metrics
    for p in parameters:
        p.grad = None
    return vector, metrics


class Transcription:
    """The loss, step by step, from the papers: ρ, A, v and π_ens are fixed when it is made, for one network."""

    def __init__(self, network, family, batch, targets, config):
        self.family, self.batch, self.targets, self.config = family, batch, targets, config
        with torch.no_grad():
            self.fixed = [self._constants(network, r, b) for r in range(R) for b in range(B)]
        if config.normalise_advantages:
            advantages = torch.tensor([step["A"] for env in self.fixed for step in env if step["valid"]])
            for step in (step for env in self.fixed for step in env):
                step["A"] = (step["A"] - float(advantages.mean())) / float(advantages.std(correction=0))

    def _constants(self, network, r, b):
        config, batch, n = self.config, self.batch, r * B + b
        value = [float(network(batch.observation[r, t, b][None]).value) for t in range(T + 1)]
        steps = []
        for t in range(T):
            valid = bool(batch.valid[t, n])
            output = network(batch.observation[r, t, b])
            log_pi = float(self.family.distribution(output.policy).log_prob(batch.action[t, n]))
            ratio = math.exp(log_pi - float(batch.log_mu[t, n]))
            rho, c = min(config.rho_bar, ratio), min(config.c_bar, ratio)
            plain = config.correction != "vtrace"
            steps.append(
                {
                    "valid": valid,
                    "rho_v": (1.0 if plain else rho) * valid,
                    "c": config.trace_decay * (1.0 if plain else c) * valid,
                    "rho": 1.0 if config.correction in ("none", "eps") else rho,
                    "gamma": config.discount * float(batch.discount[t, n]),
                    "r": float(batch.reward[t, n]),
                }
            )
        for s in range(T):
            steps[s]["v"] = self._target(value, steps, s)
        for s, step in enumerate(steps):
            following = steps[s + 1]["v"] if s + 1 < T else value[T]
            step["A"] = step["r"] + step["gamma"] * following - value[s]
        if self.targets is not None:
            self._mix(network, steps, value, r, b)
        return steps

    @staticmethod
    def _target(value, steps, s):
        """v_s = V_s + Σ_t (Π_{i<t} γ_i c_i) ρ_t δ_t (Espeholt et al. 2018, equation 1)."""
        total = value[s]
        for t in range(s, T):
            delta = steps[t]["r"] + steps[t]["gamma"] * value[t + 1] - value[t]
            product = math.prod(steps[i]["gamma"] * steps[i]["c"] for i in range(s, t))
            total += product * steps[t]["rho_v"] * delta
        return total

    def _mix(self, network, steps, value, r, b):
        """π_ens = Σ softmax(V / T)_i π_i, this network's own policy included."""
        targets, n = self.targets, r * B + b
        for row, t in enumerate(range(T)[targets.rows]):
            own = network(self.batch.observation[r, t, b]).policy
            params = [own, *(peer.policy[row, n] for peer in targets.peers)]
            values = torch.tensor([value[t], *(float(peer.value[row, n]) for peer in targets.peers)])
            steps[t]["ensemble"] = self.family.mixture(params, torch.softmax(values / targets.temperature, 0))

    def loss(self, network):
        config, batch = self.config, self.batch
        policy, value, entropy, kl = [], [], [], []
        for r in range(R):
            for b in range(B):
                for t, step in enumerate(self.fixed[r * B + b]):
                    if not step["valid"]:
                        continue
                    output = network(batch.observation[r, t, b][None])
                    distribution = self.family.distribution(output.policy[0])
                    log_pi = distribution.log_prob(batch.action[t, r * B + b])
                    if config.correction == "eps":
                        log_pi = log_pi.exp().clamp(min=1e-6).log()
                    policy.append(-step["rho"] * step["A"] * log_pi)
                    value.append(0.5 * (step["v"] - output.value[0]) ** 2)
                    entropy.append(distribution.entropy())
                    if "ensemble" in step:
                        kl.append(kl_divergence(step["ensemble"], distribution))
        terms = {
            "policy_loss": torch.stack(policy).mean(),
            "value_loss": torch.stack(value).mean(),
            "entropy": torch.stack(entropy).mean(),
        }
        terms["loss"] = (
            terms["policy_loss"]
            + config.value_coefficient * terms["value_loss"]
            - config.entropy_coefficient * terms["entropy"]
        )
        if self.targets is not None:
            terms["kl"] = torch.stack(kl).mean()
            terms["loss"] = terms["loss"] + self.targets.beta * terms["kl"]
        return terms


def flat_gradient(loss, network):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)]
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("correction", ["none", "eps", "ratio", "vtrace"])
@pytest.mark.parametrize("normalise", [False, True])
def test_gradient_equals_a_slow_transcription_of_the_whole_loss(family, coupled, correction, normalise):
    network, batch = Tiny(family.size), random_batch(family)
    if family is Discrete:
        with torch.no_grad():
            network.policy.bias[0] -= 20.0  # beyond the floor of ``eps``
    targets = random_targets(family) if coupled else None
    config = replace(CONFIG, correction=correction, normalise_advantages=normalise)
    expected = Transcription(network, family, batch, targets, config).loss(network)
    gradient, metrics = gradient_of(network, family, batch, targets, config)
    torch.testing.assert_close(gradient, flat_gradient(expected["loss"], network), atol=1e-7, rtol=1e-6)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value.item(), abs=1e-6), name


def finite_differences(loss, network, step=1e-6):
    gradient = []
    with torch.no_grad():
        for parameter in network.parameters():
            flat = parameter.view(-1)
            for i in range(flat.numel()):
                kept = float(flat[i])
                flat[i] = kept + step
                above = float(loss(network))
                flat[i] = kept - step
                gradient.append((above - float(loss(network))) / (2 * step))
                flat[i] = kept
    return torch.tensor(gradient, dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_gradient_flows_through_targets_ratios_or_the_ensemble(family):
    """Differences of the loss with these held still give the gradient; with these free they give another one."""
    network, batch, targets = Tiny(family.size), random_batch(family), random_targets(family)
    gradient, _ = gradient_of(network, family, batch, targets)
    held = Transcription(network, family, batch, targets, CONFIG)
    expected = finite_differences(lambda net: held.loss(net)["loss"], network)
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=1e-5)

    def free(net):
        return Transcription(net, family, batch, targets, CONFIG).loss(net)["loss"]

    assert (gradient - finite_differences(free, network)).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("family", FAMILIES)
def test_peers_get_no_gradient(family):
    targets = random_targets(family)
    for peer in targets.peers:
        peer.policy.requires_grad_()
        peer.value.requires_grad_()
    gradient_of(Tiny(family.size), family, random_batch(family), targets)
    assert all(peer.policy.grad is None and peer.value.grad is None for peer in targets.peers)


@pytest.mark.parametrize("family", FAMILIES)
def test_peers_with_beta_zero_equal_none_bit_for_bit(family):
    network, batch = Tiny(family.size), random_batch(family)
    alone, _ = gradient_of(network, family, batch)
    coupled, _ = gradient_of(network, family, batch, random_targets(family, beta=0.0))
    assert torch.equal(alone, coupled)


def test_an_ensemble_of_this_network_alone_adds_nothing():
    network, batch = Tiny(Discrete.size), random_batch(Discrete)
    alone, _ = gradient_of(network, Discrete, batch)
    coupled, metrics = gradient_of(network, Discrete, batch, random_targets(Discrete, count=0))
    torch.testing.assert_close(coupled, alone)
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-12)
    assert metrics["weight_own"] == pytest.approx(1.0)
    assert metrics["disagreement"] == 0.0


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("correction", ["none", "eps", "ratio", "vtrace"])
@pytest.mark.parametrize("normalise", [False, True])
def test_steps_that_only_reset_contribute_nothing(correction, coupled, normalise):
    config = replace(CONFIG, correction=correction, normalise_advantages=normalise)
    network, batch = Tiny(Discrete.size), random_batch(Discrete)
    targets = random_targets(Discrete, rows=slice(None)) if coupled else None
    before, _ = gradient_of(network, Discrete, batch, targets, config)
    reset = batch.valid == 0
    batch.reward[reset], batch.action[reset], batch.log_mu[reset] = 1e3, 2, -50.0
    batch.observation[0, 2, 0] += 1.0  # an episode's last observation, which the terminated step did not bootstrap from
    if targets is not None:
        for peer in targets.peers:
            peer.policy[reset] -= 1.0
            peer.value[reset] += 1.0
    after, _ = gradient_of(network, Discrete, batch, targets, config)
    assert torch.equal(before, after)


def test_a_batch_of_resets_alone_gives_no_gradient():
    batch = random_batch(Discrete)._replace(valid=torch.zeros(T, N).double())
    gradient, metrics = gradient_of(Tiny(Discrete.size), Discrete, batch)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert metrics["loss"] == 0.0


def descend(network, gradient, rate=1e-3):
    offset = 0
    with torch.no_grad():
        for p in network.parameters():
            p -= rate * gradient[offset : offset + p.numel()].view(p.shape)
            offset += p.numel()


def bandit(reward):
    """Return a batch in which action 1 always ended an episode with ``reward``."""
    batch = random_batch(Discrete, seed=4)
    return batch._replace(
        action=torch.ones(T, N, dtype=torch.int64),
        reward=torch.full((T, N), reward).double(),
        discount=torch.zeros(T, N).double(),
        valid=torch.ones(T, N).double(),
    )


def all_params(network, batch):
    with torch.no_grad():
        return network(batch.observation[:, :-1].flatten(0, 2))


@pytest.mark.parametrize("correction", ["none", "eps", "ratio", "vtrace"])
@pytest.mark.parametrize(("reward", "sign"), [(5.0, 1), (-5.0, -1)])
def test_an_update_raises_the_probability_of_an_action_with_positive_advantage(reward, sign, correction):
    """The sign that the proposal's printed L_teacher lacks."""
    network, batch = Tiny(Discrete.size), bandit(reward)
    config = replace(CONFIG, correction=correction, value_coefficient=0.0, entropy_coefficient=0.0)
    before = all_params(network, batch).policy.log_softmax(-1)[:, 1]
    gradient, _ = gradient_of(network, Discrete, batch, config=config)
    descend(network, gradient)
    after = all_params(network, batch).policy.log_softmax(-1)[:, 1]
    assert sign * float((after - before).mean()) > 0


@pytest.mark.parametrize("reward", [5.0, -5.0])
def test_an_update_moves_the_value_towards_the_return(reward):
    network, batch = Tiny(Discrete.size), bandit(reward)
    before = all_params(network, batch).value
    gradient, _ = gradient_of(network, Discrete, batch, config=replace(CONFIG, entropy_coefficient=0.0))
    descend(network, gradient)
    after = all_params(network, batch).value
    assert ((after - reward).abs() < (before - reward).abs()).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_entropy_term_raises_the_entropy(family):
    network, batch = Tiny(family.size), random_batch(family)
    batch = batch._replace(valid=torch.ones(T, N).double())
    plain, _ = gradient_of(network, family, batch, config=replace(CONFIG, entropy_coefficient=0.0))
    bonus, _ = gradient_of(network, family, batch, config=replace(CONFIG, entropy_coefficient=1.0))
    before = family.policy.entropy(all_params(network, batch).policy).mean()
    descend(network, bonus - plain)
    assert family.policy.entropy(all_params(network, batch).policy).mean() > before


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ensemble_term_moves_the_policy_towards_its_peers(family):
    network, batch, targets = Tiny(family.size), random_batch(family), random_targets(family)
    alone, before = gradient_of(network, family, batch)
    coupled, before = gradient_of(network, family, batch, targets)
    descend(network, coupled - alone)
    _, after = gradient_of(network, family, batch, targets)
    assert after["kl"] < before["kl"]


def test_metrics_say_how_old_the_data_are():
    network, batch = Tiny(Discrete.size), random_batch(Discrete)
    _, metrics = gradient_of(network, Discrete, batch)
    ratios = []
    for n in range(N):
        for t in range(T):
            if batch.valid[t, n]:
                params = network(batch.observation[n // B, t, n % B]).policy.detach()
                log_pi = params.log_softmax(-1)[batch.action[t, n]]
                ratios.append(math.exp(log_pi - batch.log_mu[t, n]))
    assert metrics["rho_mean"] == pytest.approx(sum(ratios) / len(ratios))
    assert metrics["rho_clipped"] == pytest.approx(sum(r > CONFIG.rho_bar for r in ratios) / len(ratios))
    assert 0 < metrics["rho_clipped"] < 1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("coupled", [False, True])
def test_learning_from_the_forward_passes_that_acted_equals_repeating_them(family, coupled):
    network, batch = Tiny(family.size), random_batch(family)
    targets = random_targets(family) if coupled else None
    expected, metrics = gradient_of(network, family, batch, targets)
    steps = [network(batch.observation[:, t].flatten(0, 1)) for t in range(T)]  # one at a time, as they acted
    kept = Output(torch.stack([s.policy for s in steps]), torch.stack([s.value for s in steps]))
    got, again = gradient_of(network, family, batch._replace(output=kept), targets)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)
    assert again == pytest.approx(metrics)


def test_what_stands_side_by_side_is_what_acting_kept():
    network, batch = Tiny(Discrete.size), random_batch(Discrete)
    together = side_by_side(network(batch.observation.flatten(0, 2)).value, R, B)
    for t in range(T):
        torch.testing.assert_close(network(batch.observation[:, t].flatten(0, 1)).value, together[t])


@pytest.mark.parametrize("coupled", [False, True])
def test_a_summed_loss_is_as_many_means_as_there_are_valid_steps(coupled):
    network, batch = Tiny(Discrete.size), random_batch(Discrete)
    targets = random_targets(Discrete) if coupled else None
    mean, of_mean = gradient_of(network, Discrete, batch, targets)
    total, of_sum = gradient_of(network, Discrete, batch, targets, replace(CONFIG, reduction="sum"))
    count = float(batch.valid.sum())
    assert count < T * N
    torch.testing.assert_close(total, count * mean)
    assert of_sum["loss"] == pytest.approx(count * of_mean["loss"])


def ga3c_loss(network, batch, config, over):
    """GA3C's code: Σ over what its `_accumulate_rewards` leaves of each environment's experiences.

    An episode that is over starts from a return of 0, any other from the value of what follows; going back, the last
    experience of an episode that is over is left away with its reward.
    """
    terms = []
    for n in range(N):
        r, b = n // B, n % B
        outputs = [network(batch.observation[r, t, b][None]) for t in range(T + 1)]
        reward_sum = 0.0 if over[n] else outputs[T].value[0].item()
        for t in reversed(range(T - 1 if over[n] else T)):
            reward_sum = config.discount * reward_sum + float(batch.reward[t, n])
            value, probabilities = outputs[t].value[0], outputs[t].policy[0].softmax(-1)
            log_pi = torch.log(probabilities[batch.action[t, n]].clamp(min=1e-6))
            entropy = -(probabilities * torch.log(probabilities)).sum()
            terms.append(
                -log_pi * (reward_sum - value.item())
                - config.entropy_coefficient * entropy
                + config.value_coefficient * 0.5 * (reward_sum - value) ** 2
            )
    return torch.stack(terms)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_leaving_terminal_steps_away_is_what_ga3cs_code_does(reduction):
    over = [True, False, True, False]
    network, batch = Tiny(Discrete.size), random_batch(Discrete)
    batch = batch._replace(valid=torch.ones(T, N).double(), discount=torch.ones(T, N).double())
    batch.discount[T - 1] = torch.tensor([0.0 if ended else 1.0 for ended in over])
    config = ActorCriticConfig(discount=0.9, correction="eps", learn_from_terminal=False, reduction=reduction)
    gradient, _ = gradient_of(network, Discrete, batch, config=config)
    terms = ga3c_loss(network, batch, config, over)
    assert len(terms) == T * N - 2
    expected = terms.sum() if reduction == "sum" else terms.mean()
    torch.testing.assert_close(gradient, flat_gradient(expected, network))
    batch.reward[T - 1, 0] += 100.0  # nobody hears of it
    again, _ = gradient_of(network, Discrete, batch, config=config)
    torch.testing.assert_close(again, gradient)
    heard, _ = gradient_of(network, Discrete, batch, config=replace(config, learn_from_terminal=True))
    assert (heard - gradient).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_alone_adds_its_divergence_exactly(family):
    network, batch = Tiny(family.size), random_batch(family)
    targets = random_targets(family, rows=slice(T), count=1)._replace(teacher=True)
    alone, _ = gradient_of(network, family, batch)
    taught, metrics = gradient_of(network, family, batch, targets)
    divergences = []
    for t in range(T):
        for n in range(N):
            if batch.valid[t, n]:
                own = family.distribution(network(batch.observation[n // B, t, n % B]).policy)
                teacher = family.distribution(targets.peers[0].policy[t, n])
                divergences.append(kl_divergence(teacher, own))
    mean = torch.stack(divergences).mean()
    assert metrics["kl"] == pytest.approx(mean.item())
    assert metrics["weight_own"] == 0.0
    torch.testing.assert_close(taught, alone + targets.beta * flat_gradient(mean, network))
