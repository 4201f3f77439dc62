"""Every recipe solves Catch, from three seeds, and one solves CartPole, within a stated time."""

import pytest
from launch import hpcddrl, read_json, settings

from hpcddrl.logs import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.mpi, pytest.mark.timeout(900)]

LIMIT_S = 240  # on two cores


def learn(folder, ranks, recipe, env, target, seed, *options):
    """Train until the mean return over the last 100 episodes is ``target``; return the summary."""
    out = folder / "run"
    budget = ["--target-return", str(target), "--seconds", str(LIMIT_S)]
    arguments = ["--env", env, "--seed", str(seed), "--out", out, *budget, *settings(logging__interval_s=2), *options]
    done = hpcddrl(ranks, "run", recipe, *arguments, cwd=folder, limit_s=LIMIT_S + 120)
    assert done.rc == 0, done.text
    summary = read_json(out / "summary.json")
    assert summary["exit_reason"] == "target_return", f"reached {summary['return_mean']} only\n{done.text}"
    assert summary["return_mean"] >= target
    print(
        f"{recipe} on {env}, seed {seed}: {summary['return_mean']:.2f} after {summary['frames']:,.0f} frames,", end=" "
    )
    print(f"{summary['wall_s']:.0f} s, {summary['updates']:,.0f} updates")
    return out, summary


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("recipe", "ranks"), [("impala", 4), ("a3c", 4), ("paac", 4), ("group_ensemble", 4)])
def test_catch_is_solved(recipe, ranks, seed, tmp_path):
    out, _ = learn(tmp_path, ranks, recipe, "hpcddrl/Catch-v0", 0.9, seed)
    if recipe == "group_ensemble":
        assert len(list((out / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cartpole_is_solved(seed, tmp_path):
    out, _ = learn(tmp_path, 3, "impala", "CartPole-v1", 450, seed)
    state = checkpoint.newest(out / "checkpoints/group-0000")
    assert all(tensor.isfinite().all() for tensor in state.network.values())


def test_what_was_learned_shows_in_evaluation(tmp_path):
    """Greedy play of the saved weights, on seeds that training never saw, is at least as good."""
    out, _ = learn(tmp_path, 2, "impala", "hpcddrl/Catch-v0", 0.9, 1)
    done = hpcddrl(1, "evaluate", out, "--episodes", "50", cwd=tmp_path)
    assert done.rc == 0, done.text
    score = read_json(out / "evaluation.json")["group-0000"]
    assert len(score["returns"]) == 50
    assert sum(score["returns"]) / 50 >= 0.85
