"""A batch in shares: the network's own answers and gradients."""

import threading

import pytest
import torch

from hpcddrl.config import Env
from hpcddrl.envs.make import probe
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.networks.shares import AnswersInShares, in_shares

SPEC = probe(Env(id="hpcddrl/Catch-v0"))
NETWORKS = {
    "policy and value": lambda: PolicyValueNetwork(SPEC, "mlp", 1.0, 0, Precision()),
    "dueling": lambda: QNetwork(SPEC, "mlp", 1.0, True, 0, Precision()),
}


def observations(count):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 255, (count, *SPEC.observation_shape), generator=generator, dtype=torch.uint8)


def gradients_of(answer, network, x):
    network.zero_grad()
    output = answer(x)
    (output.policy.square().sum() + (output.value * torch.arange(len(x))).sum()).backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("count", "shares"), [(8, 2), (7, 3), (1, 2), (2, 4)])
def test_answers_and_gradients_are_those_of_the_whole_batch(name, count, shares):
    network, x = NETWORKS[name](), observations(count)
    shared = in_shares(network, shares)
    torch.testing.assert_close(tuple(shared(x)), tuple(network(x)))
    with torch.no_grad():
        torch.testing.assert_close(tuple(shared(x)), tuple(network(x)))
    torch.testing.assert_close(gradients_of(shared, network, x), gradients_of(network, network, x))


def test_gradients_are_the_same_bit_for_bit_each_time():
    network, x = NETWORKS["policy and value"](), observations(33)
    shared = in_shares(network, 3)
    first = gradients_of(shared, network, x)
    for _ in range(20):
        assert all(map(torch.equal, first, gradients_of(shared, network, x)))


def test_two_batches_in_one_loss_have_graphs_of_their_own():
    network, x = NETWORKS["policy and value"](), observations(12)
    shared = in_shares(network, 2)
    network.zero_grad()
    (shared(x[:5]).value.sum() + shared(x[5:]).value.sum()).backward()
    torch.testing.assert_close(network.value.bias.grad, torch.tensor([12.0]))


def test_a_head_that_no_loss_mentions_gets_no_gradient():
    network, x = NETWORKS["policy and value"](), observations(6)
    network.zero_grad()
    in_shares(network, 2)(x).policy.sum().backward()
    assert float(network.value.weight.grad.abs().sum()) == 0


def test_each_share_has_a_thread():
    both = threading.Barrier(2)  # passed only by two at the same time

    class Meeting(PolicyValueNetwork):
        def forward(self, observation):
            both.wait(timeout=30)
            return super().forward(observation)

    with torch.no_grad():
        assert in_shares(Meeting(SPEC, "mlp", 1.0, 0, Precision()), 2)(observations(4)).value.shape == (4,)


def test_an_error_in_a_share_reaches_the_caller():
    network = NETWORKS["policy and value"]()
    with pytest.raises(RuntimeError, match=r"shape|mat1"):
        in_shares(network, 2)(torch.zeros(4, 3))


def test_one_share_is_the_network_itself():
    network = NETWORKS["policy and value"]()
    assert in_shares(network, 1) is network


def test_answers_alone_come_from_as_many_threads_without_gradient():
    both, network = threading.Barrier(2), NETWORKS["dueling"]()

    def meeting(observation):
        both.wait(timeout=30)
        return network(observation)

    x = observations(5)
    given = AnswersInShares(meeting, 2)(x)
    assert not given.policy.requires_grad
    torch.testing.assert_close(tuple(given), tuple(answer.detach() for answer in network(x)))
