"""Checkpoints: whole or not at all, few are kept, nothing in them is executed."""

import os
import pickle

import pytest
import torch

from hpcddrl.logs.checkpoint import Checkpoint, newest, read, versions, write
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.types import Discrete, EnvSpec


def state(version, **fields):
    network = {"w": torch.full((3,), float(version))}
    given = {"frames": 100 * version, "network": network, "optimizer": {}, "config": "{}"}
    return Checkpoint(version=version, **(given | fields))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_checkpoint_comes_back(tmp_path):
    path = write(tmp_path / "group-0000", state(7), keep=3)
    assert path == tmp_path / "group-0000" / "version-00000007.pt"
    back = read(path)
    assert (back.version, back.frames, back.config) == (7, 700, "{}")
    assert torch.equal(back.network["w"], torch.full((3,), 7.0))


@pytest.mark.parametrize("optimizer", [torch.optim.RMSprop, torch.optim.Adam])
def test_a_network_and_its_optimizer_go_on_where_they_were(tmp_path, optimizer):
    spec = EnvSpec((4,), torch.zeros(1).numpy().dtype, 1, Discrete(2), 1)

    def start(seed):
        network = PolicyValueNetwork(spec, "mlp", 1.0, seed, Precision())
        flat = flatten(network)
        vector = torch.nn.Parameter(flat.values)
        return network, flat, vector, optimizer([vector], 1e-2)

    def step(flat, vector, stepper):
        vector.grad = torch.sin(flat.values)
        stepper.step()

    network, flat, vector, stepper = start(seed=1)
    for _ in range(3):
        step(flat, vector, stepper)
    write(tmp_path, state(3, network=network.state_dict(), optimizer=stepper.state_dict()), keep=1)
    other, other_flat, other_vector, other_stepper = start(seed=2)
    saved = newest(tmp_path)
    other.load_state_dict(saved.network)
    other_stepper.load_state_dict(saved.optimizer)
    step(flat, vector, stepper)
    step(other_flat, other_vector, other_stepper)
    assert torch.equal(flat.values, other_flat.values)


@pytest.mark.parametrize("keep", [1, 3])
def test_only_the_newest_are_kept(tmp_path, keep):
    for version in (1, 2, 10, 9_999_999, 10_000_000):
        write(tmp_path, state(version), keep)
    expected = [1, 2, 10, 9_999_999, 10_000_000][-keep:]
    assert [read(p).version for p in versions(tmp_path)] == expected
    assert newest(tmp_path).version == 10_000_000


def test_a_folder_without_checkpoints_has_no_newest(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "missing") is None


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_torn_file_is_a_value_error_that_names_it(tmp_path, size):
    path = write(tmp_path, state(1), keep=3)
    data = path.read_bytes()
    path.write_bytes(data[:size])
    with pytest.raises(ValueError, match=r"version-00000001\.pt: not a readable checkpoint"):
        read(path)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        newest(tmp_path)


@pytest.mark.parametrize("content", [{"version": 1}, {"foo": 1}, [1, 2]])
def test_a_file_of_something_else_is_a_value_error(tmp_path, content):
    path = tmp_path / "version-00000001.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        read(path)


@pytest.mark.parametrize("moment", ["torch.save", "os.fsync", "os.replace"])
def test_a_write_that_is_cut_short_leaves_the_checkpoint_before(tmp_path, monkeypatch, moment):
    write(tmp_path, state(1), keep=1)

    def cut(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(moment, cut)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, state(2), keep=1)
    monkeypatch.undo()
    assert newest(tmp_path).version == 1
    write(tmp_path, state(2), keep=1)
    assert names(tmp_path) == ["version-00000002.pt"]


def test_a_file_is_synced_before_it_takes_its_name(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda f: (calls.append("sync"), sync(f)))
    monkeypatch.setattr("os.replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    write(tmp_path, state(1), keep=1)
    assert calls == ["sync", "rename"]


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("by", ["torch", "pickle"])
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch, by):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "version-00000001.pt"
    if by == "torch":
        torch.save(state(1, optimizer=Bomb())._asdict(), path)
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        read(path)
    assert not (tmp_path / "exploded").exists()


def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_else(tmp_path, monkeypatch):
    write(tmp_path, state(1), keep=1)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, state(2), keep=1)
    assert names(tmp_path) == ["version-00000001.pt"]
