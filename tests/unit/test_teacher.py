"""The network of another run, to learn from, and what is said where there is none."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from hpcddrl.config import ActorCritic, Config, Network
from hpcddrl.logs import checkpoint
from hpcddrl.logs.checkpoint import Checkpoint
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.make import make_network
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.teacher import teacher_network
from hpcddrl.settings import dump
from hpcddrl.types import Discrete, EnvSpec

SPEC = EnvSpec((5,), np.dtype(np.float32), 1, Discrete(3), 1)


def learned(config, seed, spec=SPEC):
    return make_network(config.network, config.algorithm, spec, seed)


def make_run(path, config, seeds=(), owner="group-0000", spec=SPEC):
    """Write a run's directory with a checkpoint for each seed of its network."""
    run = RunDirectory(path)
    run.create(config)
    for version, seed in enumerate(seeds, 1):
        state = Checkpoint(
            version, 100 * version, learned(config, seed, spec).state_dict(), {}, json.dumps(dump(config))
        )
        checkpoint.write(run.checkpoints(owner), state, keep=3)
    return path


CONFIG = Config(recipe="impala", algorithm=ActorCritic(), network=Network(torso="mlp", width=0.1))


def assert_same(ours, theirs):
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_the_teacher_is_the_newest_checkpoint_of_the_first_group(tmp_path):
    path = make_run(tmp_path / "run", CONFIG, seeds=[1, 2, 3])
    make_run(tmp_path / "other", CONFIG, seeds=[7], owner="group-0001")
    (tmp_path / "other/checkpoints/group-0001").rename(path / "checkpoints/group-0001")
    assert_same(teacher_network(str(path), SPEC), learned(CONFIG, 3))


def test_the_teacher_may_be_a_server_in_shards(tmp_path):
    run = RunDirectory(make_run(tmp_path / "run", CONFIG))
    network = learned(CONFIG, 4)
    count = flatten(network).values.numel()
    for number, owned in enumerate([slice(0, count // 2), slice(count // 2, count)]):
        parts, cut = checkpoint.part(network.state_dict(), owned)
        state = Checkpoint(5, 10, parts, {}, "{}", shard=(number, 2), cut=cut)
        checkpoint.write(run.checkpoints(f"server-{number:04d}"), state, keep=1)
    assert_same(teacher_network(str(tmp_path / "run"), SPEC), learned(CONFIG, 4))


def complaint(path, spec=SPEC):
    with pytest.raises(ValueError, match=r".") as error:
        teacher_network(None if path is None else str(path), spec)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_student_without_a_teacher_is_told_how_to_name_one():
    said = complaint(None)
    assert "coupling.run is not set" in said
    assert "--set coupling.run=" in said


def test_no_run_is_named(tmp_path):
    assert f"{tmp_path / 'nowhere'}: no run here" in complaint(tmp_path / "nowhere")


def test_a_run_without_a_policy_teaches_nothing(tmp_path):
    said = complaint(make_run(tmp_path / "run", RECIPES["dqn"]()))
    assert "a run of dqn, whose network has no policy" in said


def test_a_run_that_has_saved_nothing_yet_is_named(tmp_path):
    said = complaint(make_run(tmp_path / "run", CONFIG))
    assert str(tmp_path / "run") in said
    assert "has no checkpoint" in said


@pytest.mark.parametrize("other", [SPEC._replace(action=Discrete(4)), SPEC._replace(frame_shape=(6,))])
def test_a_teacher_of_other_observations_or_actions_is_refused(other, tmp_path):
    env = dataclasses.replace(CONFIG.env, id="CartPole-v1")
    said = complaint(make_run(tmp_path / "run", dataclasses.replace(CONFIG, env=env), seeds=[1]), other)
    assert "learned CartPole-v1, whose observations or actions are not those" in said
