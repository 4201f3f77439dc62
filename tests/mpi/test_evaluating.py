"""Evaluation under mpirun: the games are shared, and the scores are those of one rank alone."""

import pytest
from launch import hpcddrl, read_json

from hpcddrl.config import Config, Env
from hpcddrl.envs.make import probe
from hpcddrl.logs.checkpoint import Checkpoint, write
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.policy_value import PolicyValueNetwork, Precision
from hpcddrl.runtime.evaluation import Protocol, players_of, scores_of


@pytest.mark.mpi
def test_ranks_share_the_games_and_find_the_same_scores(tmp_path):
    config = Config(recipe="test", env=Env(id="hpcddrl/Catch-v0"))
    run = RunDirectory(tmp_path / "run")
    run.create(config)
    for group in range(2):
        net = PolicyValueNetwork(probe(config.env), "auto", 1.0, group, Precision())
        write(run.checkpoints(f"group-{group:04d}"), Checkpoint(1, 1, net.state_dict(), {}, "{}"), keep=1)
    alone = scores_of(players_of(run), Protocol(25, greedy=False, seed=9))
    job = hpcddrl(3, "evaluate", run.path, "--episodes", "25", "--sampled", "--seed", "9", cwd=tmp_path)
    assert job.rc == 0, job.text
    assert job.stdout.count("group-0001 version 1") == 1, "rank 0 alone prints"
    kept = read_json(run.path / "evaluation.json")
    assert {owner: score["returns"] for owner, score in kept.items()} == {o: s.returns for o, s in alone.items()}
