"""Goals that random play never meets are reached with hindsight, and not without it from as many frames."""

import pytest
from launch import hpcddrl, read_json, settings

pytestmark = [pytest.mark.slow, pytest.mark.mpi, pytest.mark.timeout(1200)]

LIMIT_S = 400  # on one core
SEEDS = pytest.mark.parametrize("seed", [1, 2, 3])
LEARNS = settings(
    algorithm__discount=0.98,
    algorithm__double="true",
    algorithm__exploration__end=0.05,
    algorithm__exploration__frames=50_000,
    algorithm__target_every=200,
    experience__batch_size=128,
    experience__learning_starts=1000,
    logging__interval_s=2,
    optimization__learning_rate=1e-3,
)


def run(folder, seed, *options):
    """Learn as long as the options say; return the summary."""
    arguments = ["--seed", str(seed), "--seconds", str(LIMIT_S), "--out", folder, *LEARNS, *options]
    done = hpcddrl(1, "run", "dqn", *arguments, cwd=folder.parent, limit_s=LIMIT_S + 60)
    assert done.rc == 0, done.text
    summary = read_json(folder / "summary.json")
    print(f"{summary['return_mean']:.2f} after {summary['frames']:,.0f} frames, {summary['wall_s']:.0f} s,", end=" ")
    return summary


def with_and_without(folder, seed, target, *options):
    """Reach a mean return with hindsight; return that run's summary, and that of twice the frames without."""
    hindsight = settings(experience__hindsight="future")
    reached = run(folder / "with", seed, "--target-return", str(target), *options, *hindsight)
    without = run(folder / "without", seed, "--frames", str(2 * reached["frames"]), *options)
    return reached, without


@SEEDS
def test_fifteen_bits(seed, tmp_path):
    """32,768 states, 15 steps, and a reward in none but one: −15 is what random play returns, −6.5 the best."""
    reached, without = with_and_without(tmp_path, seed, -8.5, "--env", "hpcddrl/BitFlip-v0")
    assert reached["exit_reason"] == "target_return", reached
    assert without["exit_reason"] == "frames", without
    assert without["return_mean"] < -14.5


@SEEDS
def test_a_maze(seed, tmp_path):
    """From its pixels, to a dead end 14 cells away within 56 steps, which random play finds once in 150 episodes."""
    maze = ["--env", "hpcddrl/Maze-v0", "--set", 'env.options={"cells": 4, "maze": 5}']
    explores = {"algorithm__exploration__end": 0.3, "algorithm__exploration__frames": 20_000}
    learns = settings(algorithm__target_every=50, experience__batch_size=64, **explores)
    reached, without = with_and_without(tmp_path, seed, -38, *maze, *learns)
    assert reached["exit_reason"] == "target_return", reached
    assert without["exit_reason"] == "frames", without
    assert without["return_mean"] < -53
