"""Acting with a network at hand, and keeping what it said for learning."""

import numpy as np
import pytest
import torch

from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.rl.policies import policy_for
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.types import Discrete, EnvSpec

SPEC = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)


def local(**options):
    return LocalPolicy(PolicyValueNetwork(SPEC, "mlp", 0.1, 0, Precision()), policy_for(SPEC.action), 7, **options)


def observations(steps, seed=0):
    return np.random.default_rng(seed).normal(size=(steps, 6, 5)).astype(np.float32)


def test_it_acts_alike_whether_it_keeps_or_not():
    keeping, plain = local(keeps=True), local()
    for seen in observations(5):
        for ours, theirs in zip(keeping(seen), plain(seen), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_what_it_kept_are_the_outputs_it_acted_by_with_what_gradients_need():
    policy, seen = local(keeps=True), observations(4)
    acted = [policy(x) for x in seen]
    kept = policy.kept()
    assert kept.policy.shape == (4, 6, 3)
    assert kept.value.shape == (4, 6)
    for t in range(4):
        log_pi = kept.policy[t].log_softmax(-1).gather(-1, torch.from_numpy(acted[t].action)[:, None]).squeeze(-1)
        torch.testing.assert_close(log_pi, torch.from_numpy(acted[t].log_mu))
        np.testing.assert_array_equal(kept.value[t].detach().numpy(), acted[t].value)
    assert kept.policy.requires_grad
    assert kept.value.requires_grad


def test_what_it_kept_is_handed_over_once():
    policy, seen = local(keeps=True), observations(5)
    for x in seen[:3]:
        policy(x)
    assert len(policy.kept().value) == 3
    for x in seen[3:]:
        policy(x)
    kept = policy.kept()
    assert len(kept.value) == 2
    np.testing.assert_array_equal(kept.value[0].detach().numpy(), local()(seen[3]).value)


def test_greedy_takes_the_likeliest_action():
    policy, (seen,) = local(greedy=True), observations(1)
    acted = policy(seen)
    assert (acted.log_mu >= np.log(1 / 3) - 1e-6).all()
    np.testing.assert_array_equal(acted.action, local(greedy=True)(seen).action)


@pytest.mark.parametrize("keeps", [False, True])
def test_its_answers_are_plain_arrays(keeps):
    acted = local(keeps=keeps)(observations(1)[0])
    assert all(isinstance(column, np.ndarray) and len(column) == 6 for column in acted)
    np.testing.assert_array_equal(acted.value, acted.action_value)
