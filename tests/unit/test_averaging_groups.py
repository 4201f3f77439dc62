"""Groups that go on from the mean of their weights, without MPI."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcddrl.comm.exchange import Arrived
from hpcddrl.config import Averaging
from hpcddrl.logs.schema import COLUMNS
from hpcddrl.logs.timing import Timing
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.flat import architecture, flatten
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.roles.averaging import AveragingPeers
from hpcddrl.roles.meetings import Meetings
from hpcddrl.roles.members import Members
from hpcddrl.types import Discrete, EnvSpec, Weights

SPEC = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)


def network(seed):
    return PolicyValueNetwork(SPEC, "mlp", 0.1, seed, Precision())


def values(seed):
    return flatten(network(seed)).values


class Mail:
    """Stands for the exchange."""

    skipped = nbytes = 0
    gone = frozenset()

    def __init__(self):
        self.arrived, self.posted = [], []

    def post(self, weights, score, tuning, to):
        self.posted.append((weights.version, weights.flat.clone()))

    def look(self):
        pass

    def take(self, use):
        for rank, seed in self.arrived:
            use(
                Arrived(
                    rank, 1 + len(self.posted), architecture(network(seed)), np.nan, (1.0, 1.0), values(seed).numpy()
                )
            )
        self.arrived = []


@pytest.fixture
def group():
    """The peers of group 1 of 3, who meet every two updates, their mail and rows."""
    mail, rows = Mail(), []

    def note(table, **row):
        assert {f"{table}/{name}" for name in row} <= set(COLUMNS)
        rows.append(row)

    control = SimpleNamespace(timing=Timing(), note=note)
    line = SimpleNamespace(size=1)
    config = Averaging(exchange_every=2)
    members = Members([network(9)] * 3, 1.0)
    return AveragingPeers(Meetings(config, members, [0, 2, 4], 1, mail, line, 1, False, control)), mail, rows


def test_weights_become_the_mean_of_this_groups_and_those_that_came(group):
    peers, mail, rows = group
    mail.arrived = [(0, 2), (4, 3)]
    flat = values(1)
    peers.exchange(Weights(2, flat))
    torch.testing.assert_close(flat, (values(1) + values(2) + values(3)) / 3)
    assert torch.equal(mail.posted[0][1], values(1)), "its own are told as they were learned"
    assert rows[-1]["peers"] == 2
    assert rows[-1]["moved"] == pytest.approx(float((flat - values(1)).norm()))


def test_a_peers_weights_count_once(group):
    peers, mail, rows = group
    mail.arrived = [(0, 2)]
    flat = values(1)
    peers.exchange(Weights(2, flat))
    once = flat.clone()
    peers.exchange(Weights(4, flat))
    assert torch.equal(flat, once)
    assert (rows[-1]["peers"], rows[-1]["moved"]) == (0, 0.0)


def test_between_meetings_nothing_changes_and_nothing_is_said_of_batches(group):
    peers, mail, _ = group
    mail.arrived = [(0, 2)]
    flat = values(1)
    peers.exchange(Weights(3, flat))
    assert torch.equal(flat, values(1))
    assert mail.posted == []
    assert peers.targets(None, Weights(3, flat)) is None


def test_the_module_that_learns_sees_the_mean(group):
    peers, mail, _ = group
    own = network(1)
    flat = flatten(own).values
    mail.arrived = [(0, 2)]
    peers.exchange(Weights(2, flat))
    expected = torch.lerp(next(network(1).parameters()), next(network(2).parameters()), 0.5)
    torch.testing.assert_close(next(own.parameters()).detach(), expected.detach())
