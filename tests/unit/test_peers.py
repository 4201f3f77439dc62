"""What the other groups' networks say of a batch, without MPI."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcddrl.config import Ensemble, Teacher
from hpcddrl.logs.timing import Timing
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.roles.peers import EnsemblePeers, NoPeers, TeacherPeer
from hpcddrl.types import Batch, Discrete, EnvSpec, Weights

SPEC = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)
R, B = 2, 3


def network(seed):
    return PolicyValueNetwork(SPEC, "mlp", 0.1, seed, Precision())


def values(seed):
    return flatten(network(seed)).values


class Mail:
    """Stands for the exchange: what has arrived, and what was posted."""

    def __init__(self):
        self.arrived, self.posted, self.skipped = [], [], 0

    def post(self, weights):
        self.posted.append(weights.version)

    def take(self, use):
        for rank, version, flat in self.arrived:
            use(rank, version, flat)
        self.arrived = []


def peers(**options):
    """Return the peers of group 1 of 3, whose leaders are ranks 0, 2 and 4, and their mail."""
    mail, rows = Mail(), []
    control = SimpleNamespace(timing=Timing(), note=lambda table, **row: rows.append(row))
    learners = SimpleNamespace(size=1)
    made = EnsemblePeers(
        Ensemble(**({"exchange_every": 1} | options)), lambda: network(9), [0, 2, 4], 1, mail, learners, False, control
    )
    return made, mail, rows


LEARNED = Weights(1, torch.zeros(0))


def batch(steps):
    g = torch.Generator().manual_seed(0)
    empty = torch.zeros(steps, R * B)
    return Batch(
        torch.randn(R, steps + 1, B, 5, generator=g), empty, empty, empty, empty, empty, np.zeros(R), steps * R * B
    )


def test_uncoupled_groups_have_no_targets():
    assert NoPeers().targets(batch(4), LEARNED) is None


def test_there_are_no_targets_before_the_first_exchange():
    made, _, rows = peers()
    assert made.targets(batch(4), LEARNED) is None
    made.exchange(Weights(1, values(1)))
    assert made.targets(batch(4), LEARNED) is None
    assert rows[0]["peers"] == 0


def test_targets_are_the_answers_of_the_networks_that_arrived():
    made, mail, rows = peers(evaluate_every=1)
    mail.arrived = [(4, 5, values(2).numpy())]
    made.exchange(Weights(6, values(1)))
    data = batch(4)
    targets = made.targets(data, LEARNED)
    assert len(targets.peers) == 1
    assert rows[-1] == {"version": 6, "peers": 1, "age": 1.0, "skipped": 0}
    for r in range(R):
        for b in range(B):
            with torch.no_grad():
                expected = network(2)(data.observation[r, :4, b])
            torch.testing.assert_close(targets.peers[0].policy[:, r * B + b], expected.policy)
            torch.testing.assert_close(targets.peers[0].value[:, r * B + b], expected.value)
    mail.arrived = [(0, 7, values(3).numpy()), (4, 8, values(3).numpy())]
    made.exchange(Weights(8, values(1)))
    one, other = made.targets(data, LEARNED).peers
    torch.testing.assert_close(one.policy, other.policy)


def test_targets_are_constants():
    made, mail, _ = peers()
    mail.arrived = [(0, 1, values(2).numpy())]
    made.exchange(Weights(1, values(1)))
    for peer in made.targets(batch(4), LEARNED).peers:
        assert not peer.policy.requires_grad
        assert not peer.value.requires_grad


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 10])
@pytest.mark.parametrize("every", [1, 2, 4])
def test_every_update_sees_some_time_steps_and_in_turn_all(steps, every):
    made, mail, _ = peers(evaluate_every=every)
    mail.arrived = [(0, 0, values(2).numpy())]
    data, seen = batch(steps), set()
    for version in range(1, every + 1):
        made.exchange(Weights(version, values(1)))
        targets = made.targets(data, LEARNED)
        rows = range(steps)[targets.rows]
        assert len(rows) >= steps // every
        assert len(rows) > 0
        assert targets.peers[0].policy.shape == (len(rows), R * B, 3)
        seen.update(rows)
    assert seen == set(range(steps))


def test_beta_zero_asks_nobody():
    made, mail, _ = peers(beta=0.0)
    mail.arrived = [(0, 1, values(2).numpy())]
    made.exchange(Weights(1, values(1)))
    assert made.targets(batch(4), LEARNED) is None


def test_weights_are_exchanged_every_so_many_updates():
    made, mail, rows = peers(exchange_every=3)
    for version in range(1, 10):
        made.exchange(Weights(version, values(1)))
    assert mail.posted == [3, 6, 9]
    assert [row["version"] for row in rows] == [3, 6, 9]
    made.exchange(Weights(12, values(1), last=True))
    assert mail.posted == [3, 6, 9]


def test_a_peer_that_is_not_finite_is_left_as_it_was():
    made, mail, _ = peers(evaluate_every=1)
    mail.arrived = [(0, 1, values(2).numpy())]
    made.exchange(Weights(1, values(1)))
    before = made.targets(batch(4), LEARNED).peers[0].policy
    broken = values(3).numpy().copy()
    broken[7] = np.nan
    mail.arrived = [(0, 2, broken)]
    made.exchange(Weights(2, values(1)))
    assert torch.equal(made.targets(batch(4), LEARNED).peers[0].policy, before)


def test_a_teacher_counts_linearly_less_until_it_is_not_asked_any_more():
    teacher, data = TeacherPeer(Teacher(beta=2.0, anneal_frames=1000), network(5)), batch(4)
    for frames, beta in ((0, 2.0), (250, 1.5), (500, 1.0), (999, 0.002)):
        assert teacher.targets(data, Weights(1, values(1), frames)).beta == pytest.approx(beta)
    assert teacher.targets(data, Weights(1, values(1), 1000)) is None
    assert teacher.targets(data, Weights(1, values(1), 5000)) is None
    assert TeacherPeer(Teacher(beta=0.0), network(5)).targets(data, LEARNED) is None


def test_a_teacher_speaks_alone_of_every_time_step():
    teacher, data = TeacherPeer(Teacher(), network(5)), batch(4)
    targets = teacher.targets(data, LEARNED)
    assert range(4)[targets.rows] == range(4)
    assert not targets.with_own
    (opinion,) = targets.peers
    for r in range(R):
        for b in range(B):
            with torch.no_grad():
                expected = network(5)(data.observation[r, :4, b])
            torch.testing.assert_close(opinion.policy[:, r * B + b], expected.policy)
    assert not opinion.policy.requires_grad
    assert not opinion.value.requires_grad
