"""What a teacher's network says of a batch, and what any network's opinion is."""

import numpy as np
import pytest
import torch

from hpcddrl.config import Teacher
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.roles.peers import NoPeers, TeacherPeer, opinion
from hpcddrl.types import Batch, Discrete, EnvSpec, Opinion, Transitions, Weights

SPEC = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)
R, B = 2, 3
LEARNED = Weights(1, torch.zeros(0))


def network(seed):
    return PolicyValueNetwork(SPEC, "mlp", 0.1, seed, Precision())


def batch(steps):
    g = torch.Generator().manual_seed(0)
    empty = torch.zeros(steps, R * B)
    return Batch(
        torch.randn(R, steps + 1, B, 5, generator=g), empty, empty, empty, empty, empty, np.zeros(R), steps * R * B
    )


def drawn(count):
    observation = torch.randn(count, 5, generator=torch.Generator().manual_seed(1))
    empty = torch.zeros(count)
    return Transitions(observation, observation, empty.long(), empty, empty, empty, np.zeros(count), 0)


def test_uncoupled_groups_have_no_targets():
    assert NoPeers().targets(batch(4), LEARNED) is None


@pytest.mark.parametrize("rows", [slice(0, 4), slice(1, 4, 2)])
def test_an_opinion_is_the_networks_answer_to_those_time_steps(rows):
    data, found = batch(4), opinion(network(2), batch(4), rows)
    assert not found.policy.requires_grad
    for row, t in enumerate(range(4)[rows]):
        for r in range(R):
            with torch.no_grad():
                expected = network(2)(data.observation[r, t])
            torch.testing.assert_close(found.policy[row, r * B : (r + 1) * B], expected.policy)
            torch.testing.assert_close(found.value[row, r * B : (r + 1) * B], expected.value)


def test_an_opinion_of_transitions_is_of_their_first_observations():
    found = opinion(network(2), drawn(7), slice(2, 7, 3))
    with torch.no_grad():
        expected = network(2)(drawn(7).observation[[2, 5]])
    torch.testing.assert_close(found.policy, expected.policy)


def test_action_values_stand_for_their_softmax_and_the_greatest():
    values = QNetwork(SPEC, "mlp", 0.1, True, 4, Precision())
    found = opinion(values, drawn(7), slice(7), 0.2)
    with torch.no_grad():
        q = values(drawn(7).observation).policy
    torch.testing.assert_close(found.policy.softmax(-1), (q / 0.2).softmax(-1))
    torch.testing.assert_close(found.value, q.amax(-1))


def teacher(config):
    timing = Timing()
    return TeacherPeer(config, network(5), timing), timing


def test_a_teacher_counts_linearly_less_until_it_is_not_asked_any_more():
    (made, _), data = teacher(Teacher(beta=2.0, anneal_frames=1000)), batch(4)
    for frames, beta in ((0, 2.0), (250, 1.5), (500, 1.0), (999, 0.002)):
        assert made.targets(data, Weights(1, torch.zeros(0), frames)).beta == pytest.approx(beta)
    assert made.targets(data, Weights(1, torch.zeros(0), 1000)) is None
    assert made.targets(data, Weights(1, torch.zeros(0), 5000)) is None
    assert teacher(Teacher(beta=0.0))[0].targets(data, LEARNED) is None


def test_a_teacher_speaks_alone_of_every_time_step():
    made, timing = teacher(Teacher())
    data = batch(4)
    targets = made.targets(data, LEARNED)
    assert range(4)[targets.rows] == range(4)
    mixture = targets.mix(Opinion(torch.zeros(4, R * B, 3), torch.zeros(4, R * B)))
    torch.testing.assert_close(mixture.policy, opinion(network(5), data, slice(4)).policy)
    assert mixture.own_weight == 0.0
    assert not mixture.policy.requires_grad
    assert timing.totals()[Phase.PEERS] > 0
