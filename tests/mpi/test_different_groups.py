"""Groups with other networks than each other: what a learner takes for a peer's policy is that of its checkpoint."""

import json
from pathlib import Path

import h5py
import pytest
import torch
from launch import python, settings

from hpcddrl.envs.make import probe
from hpcddrl.logs import checkpoint
from hpcddrl.networks.make import make_network
from hpcddrl.settings import load

pytestmark = pytest.mark.mpi

PROGRAM = Path(__file__).parent / "programs" / "mixed.py"
EVERY, UPDATE, TEMPERATURE = 4, 14, 0.3
OPTIONS = settings(
    topology__groups=2,
    topology__actors_per_group=0,
    env__num_envs=2,
    coupling__exchange_every=EVERY,
    coupling__mixing__temperature=TEMPERATURE,
    coupling__evaluate_every=2,
    group_settings__1__network__torso="resnet",
    group_settings__1__network__width=0.25,
    group_settings__1__algorithm__unroll_length=5,
    logging__keep_checkpoints=1000,
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("different")
    arguments = ["--env", "hpcddrl/Catch-v0", "--deterministic", "--frames", "800", "--out", folder / "run"]
    done = python(2, PROGRAM, folder, str(UPDATE), "group_ensemble", *arguments, *OPTIONS, cwd=folder, limit_s=90)
    assert done.rc == 0, done.text
    return folder


def logged(folder, group):
    """Return the version of each member's weights that is logged at the last exchange before the update."""
    with h5py.File(folder / f"run/segments/0001/rank-{group:04d}.h5", "r") as file:
        versions, members, theirs = (file[f"peers/{name}"][:] for name in ("version", "group", "peer_version"))
    rows = versions == UPDATE // EVERY * EVERY
    return dict(zip(members[rows].astype(int), theirs[rows].astype(int), strict=True))


def network_at(folder, group, version):
    """Rebuild a group's network from its checkpoint of one version and the configuration that is in it."""
    state = checkpoint.read(folder / f"run/checkpoints/group-{group:04d}/version-{version:08d}.pt")
    config = load(json.loads(state.config))
    network = make_network(config.network, config.algorithm, probe(config.env), seed=0)
    network.load_state_dict(state.network)
    return network


@pytest.mark.parametrize("group", [0, 1])
def test_the_ensemble_is_that_of_the_peers_checkpoints_at_the_logged_versions(ran, group):
    note = torch.load(ran / f"mixed-{group}.pt")
    (peer,) = note["groups"]
    assert peer == 1 - group
    version = logged(ran, group)[peer]
    assert version == UPDATE // EVERY * EVERY, "in a deterministic run a round's weights are of that round"
    own, other = network_at(ran, group, UPDATE), network_at(ran, peer, version)
    assert own.state_dict().keys() != other.state_dict().keys(), "the networks differ"
    observation = note["observation"]  # [R, S, B, …]
    policies, values = [], []
    with torch.no_grad():
        for network in (own, other):
            rows = [[network(observation[r, s]) for r in range(len(observation))] for s in range(observation.shape[1])]
            policies.append(torch.stack([torch.cat([output.policy for output in row]) for row in rows]).softmax(-1))
            values.append(torch.stack([torch.cat([output.value for output in row]) for row in rows]))
    torch.testing.assert_close(note["own"][1], values[0], atol=1e-5, rtol=1e-4)
    powers = [(value / TEMPERATURE).exp() for value in values]
    c = torch.stack([power / sum(powers) for power in powers])
    torch.testing.assert_close(note["weights"], c, atol=1e-5, rtol=1e-4)
    expected = sum(weight.unsqueeze(-1) * policy for weight, policy in zip(c, policies, strict=True))
    torch.testing.assert_close(note["mixture"].softmax(-1), expected, atol=1e-5, rtol=1e-4)
