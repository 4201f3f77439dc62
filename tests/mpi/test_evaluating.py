"""Evaluation under mpirun: the games are shared, and the scores those of one rank alone; beside the training, too."""

import shutil

import h5py
import pytest
from launch import hpcddrl, read_json, settings

from hpcddrl.config import Config, Env
from hpcddrl.envs.make import probe
from hpcddrl.logs.checkpoint import Checkpoint, write
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.policy_value import PolicyValueNetwork, Precision
from hpcddrl.runtime.evaluation import FIRST_SEED, Protocol, players_of, scores_of

LIMIT_S = 180.0


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


def rows_of(run, segment):
    """Return the evaluations of the learner in a segment, without what the clock had a part in."""
    with h5py.File(run / "segments" / segment / "rank-0000.h5", "r") as file:
        table = {name: column[:].tolist() for name, column in file["evaluation"].items()}
    kept = ("version", "frames", "episodes", "return", "low", "high")
    return list(zip(*(table[name] for name in kept), strict=True))


@pytest.mark.mpi
def test_games_beside_the_training_are_those_of_evaluate_and_go_on_after_a_cut(tmp_path):
    """The run is deterministic, and cut by damage to all checkpoints but the first two."""
    out, cut = tmp_path / "run", tmp_path / "cut"
    many = settings(logging__keep_checkpoints=100, logging__checkpoint_updates=4, logging__interval_s=0.1)
    arguments = ["--env", "hpcddrl/Catch-v0", "--deterministic", "--frames", "3000", "--out", out, *many]
    job = hpcddrl(2, "run", "impala", *arguments, "--evaluate-every", "1000", cwd=tmp_path, limit_s=LIMIT_S)
    assert job.rc == 0, job.text
    assert "[Evaluated " in job.stdout
    rows = rows_of(out, "0001")
    (player,) = players_of(RunDirectory(out))
    updates = player.frames / player.version
    assert [frames // 1000 for _, frames, *_ in rows] == [0, 1, 2, 3]
    assert all(frames % 1000 < updates for _, frames, *_ in rows), "at the first update behind each thousand"
    (score,) = scores_of([player], Protocol(10, greedy=True, seed=FIRST_SEED)).values()
    assert rows[-1] == (player.version, player.frames, 10, score.mean, *score.interval)
    kept = read_json(out / "summary.json")["evaluation"]["group-0000"]
    assert (kept["version"], kept["return"]) == (player.version, score.mean)

    shutil.copytree(out, cut)
    shutil.rmtree(cut / "checkpoints")
    for number in sorted((cut / "restart").iterdir())[2:]:
        (number / "node-0000.bin").write_bytes(b"damaged")
    more = hpcddrl(2, "run", "--resume", cut, cwd=tmp_path, limit_s=LIMIT_S)
    assert more.rc == 0, more.text
    assert "checkpoint 2 of " in more.stdout, more.text
    again = rows_of(cut, "0002")
    assert 0 < len(again) < len(rows)
    assert again == rows[-len(again) :]
