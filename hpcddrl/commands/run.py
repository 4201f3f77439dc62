"""``run``: train."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hpcddrl.config import Config
from hpcddrl.recipes import DEFAULT, RECIPES
from hpcddrl.settings import dump, override


@click.command(context_settings={"show_default": True})
@click.argument("recipe", required=False)
@click.option("--env", help="Gymnasium id, built-in (hpcddrl/Catch-v0) or module:Class.")
@click.option("--frames", type=float, help="Environment frames to end after, all ranks together (4e6 works).")
@click.option("--seconds", type=float, help="Seconds to end after.")
@click.option("--target-return", type=float, help="Mean return of the last 100 episodes to end at.")
@click.option("--seed", type=int, help="Of networks, environments and actions.")
@click.option("--out", type=click.Path(path_type=Path), help="Directory of the run [runs/<recipe>-<env>-<time>].")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run's directory.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field of the configuration.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Of learners and of inference on them.")
@click.option("--deterministic", is_flag=True, help="Fixed order and lag: same seed and ranks, same weights.")
@click.option("--evaluate-every", type=float, help="Frames from one evaluation beside the training to the next.")
@click.option("--tensorboard", is_flag=True, help="Write scalars for TensorBoard beside the run, to <run>/tensorboard.")
@click.option("--trace", is_flag=True, help="Write a timeline of all ranks for ui.perfetto.dev when the run ends.")
@click.option("--show-config", is_flag=True, help="Print the resolved configuration, with every field for --set.")
def run(recipe: str | None, resume: Path | None, out: Path | None, show_config: bool, **options: Any) -> int:
    """Train with RECIPE (group_ensemble if none is named) on as many ranks as the launcher started.

    \b
    mpirun -n 4 python -m hpcddrl run impala --env ALE/Pong-v5 --seconds 900
    mpirun -n 6 python -m hpcddrl run --set topology.groups=2 --set topology.learners_per_group=2
    python -m hpcddrl run paac --env CartPole-v1 --target-return 450

    Stop it with USR1 (kill -USR1 <pid of mpirun>): it writes everything and exits 75; --resume goes on from there, on
    as many ranks or on others. The run ends at the first of
    --frames, --seconds and --target-return that is reached; without any, after 40M frames.
    """  # noqa: D301 (click wants the character itself)
    config = _resumed(resume, recipe, out) if resume is not None else recipe_named(recipe or DEFAULT)
    config = with_options(config, **options)
    if show_config:
        import json

        click.echo(json.dumps(dump(config), indent=2))
        return 0
    from hpcddrl.runtime.job import run_job

    return run_job(config, resume or out, resume is not None)


def recipe_named(name: str) -> Config:
    """Return the recipe of this name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.3) or list(RECIPES)
        raise ValueError(f"recipe {name!r}: there is none; nearest: {', '.join(near)} (python -m hpcddrl list)")
    return RECIPES[name]()


def _resumed(path: Path, recipe: str | None, out: Path | None) -> Config:
    from hpcddrl.logs.run_dir import RunDirectory

    config = RunDirectory(path).config()
    if out is not None:
        raise ValueError(f"--out {out}: a resumed run goes on in its own directory; leave --out away")
    if recipe is not None and recipe != config.recipe:
        raise ValueError(f"recipe {recipe!r}: {path} is a run of {config.recipe}; name that or none")
    return config


def with_options(
    config: Config,
    env: str | None,
    frames: float | None,
    seconds: float | None,
    target_return: float | None,
    seed: int | None,
    settings: tuple[str, ...],
    deterministic: bool,
    evaluate_every: float | None,
    tensorboard: bool,
    trace: bool,
    device: str | None = None,
) -> Config:
    """Return the configuration with the options of ``run`` in it.

    Raises:
        ValueError: a setting is not one, or its value is not allowed.
    """
    given = {
        "env.id": env,
        "budget.frames": frames,
        "budget.seconds": seconds,
        "budget.target_return": target_return,
        "seed": seed,
        "device.learner": device,
        "device.inference": "auto" if device == "cuda" else device,  # it follows the learner where it can
        "deterministic": True if deterministic else None,
        "evaluation.every_frames": evaluate_every,
        "logging.tensorboard": True if tensorboard else None,
        "logging.trace": True if trace else None,
    }
    options = [
        f"{field}={str(value).lower() if isinstance(value, bool) else value}"
        for field, value in given.items()
        if value is not None
    ]
    another_end = seconds is not None or target_return is not None
    if another_end and not deterministic and config.optimization.decay == "constant":  # nothing else needs the frames
        config = replace(config, budget=replace(config.budget, frames=None))
    return override(config, [*options, *settings])
