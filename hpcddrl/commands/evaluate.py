"""``evaluate``: play a run's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--episodes", default=30, type=click.IntRange(min=1), help="Full games to play for each checkpoint.")
@click.option("--sampled", is_flag=True, help="Draw actions from the policy instead of taking the likeliest.")
@click.option("--seed", default=2_000_000_000, type=int, help="First seed of the environments; far from training's.")
def evaluate(run: Path, episodes: int, sampled: bool, seed: int) -> None:
    """Play the newest checkpoint of every group of RUN, without learning; print mean returns with 95 % intervals.

    RUN may also be a file that `export` has written. Of a run on several environments the first is played.
    """
    if run.is_file():
        _exported(run, episodes, sampled, seed)
        return
    from hpcddrl.logs.run_dir import RunDirectory
    from hpcddrl.runtime.evaluation import evaluate_run

    scores = evaluate_run(RunDirectory(run), episodes, greedy=not sampled, seed=seed)
    for owner, score in scores.items():
        low, high = score.interval
        click.echo(
            f"{owner} version {score.version} ({score.frames:,} frames): return {score.mean:.2f} "
            f"[{low:.2f}, {high:.2f}] over {len(score.returns)} episodes, {'sampled' if sampled else 'greedy'}"
        )
    path = run / "evaluation.json"
    path.write_text(json.dumps({owner: score._asdict() for owner, score in scores.items()}, indent=2) + "\n")
    click.echo(f"written to {path}")


def _exported(path: Path, episodes: int, sampled: bool, seed: int) -> None:
    from hpcddrl.runtime.evaluation import Score, returns_of
    from hpcddrl.runtime.export import policy_of, read

    config, network = read(path)
    score = Score(0, 0, returns_of(config, network, policy_of(config), episodes, greedy=not sampled, seed=seed))
    low, high = score.interval
    click.echo(
        f"{path.name}: return {score.mean:.2f} [{low:.2f}, {high:.2f}] over {episodes} episodes, "
        f"{'sampled' if sampled else 'greedy'}"
    )
