"""``submit``: write a job script like those in jobs/slurm, and give it to Slurm."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

import hpcddrl
from hpcddrl.commands.run import recipe_named, run, with_options

SCRIPTS = Path(hpcddrl.__file__).parents[1] / "jobs" / "slurm"
FAILED = 1
OWN = {"out": "the job's directory is runs/<name>-<job>", "resume": "use RESUME=RUN with the script that was written"}


@click.command(
    context_settings={
        "show_default": True,
        "ignore_unknown_options": True,
        "token_normalize_func": lambda name: name.replace("_", "-"),
    }
)
@click.argument("recipe")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF RUN]...")
@click.option("--name", help="Of the job [RECIPE].")
@click.option("--nodes", default=1, type=click.IntRange(min=1), help="Nodes of the job.")
@click.option("--tasks-per-node", default=1, type=click.IntRange(min=1), help="Ranks on each.")
@click.option("--cpus-per-task", default=1, type=click.IntRange(min=1), help="Processors of each rank.")
@click.option("--gpus-per-node", type=click.IntRange(min=1), help="GPUs to ask for, which learners take in turn.")
@click.option("--mem-gb", type=click.FloatRange(min=0, min_open=True), help="Memory on each node.")
@click.option("--timeout-min", default=240, type=click.IntRange(min=1), help="Minutes that the job may take.")
@click.option("--slurm-partition", help="Partition.")
@click.option("--slurm-account", help="Account to charge.")
@click.option("--slurm-qos", help="Quality of service.")
@click.option("--slurm-constraint", help="Features that nodes must have.")
@click.option("--slurm-exclude", help="Nodes to stay away from.")
@click.option("--slurm-signal-delay-s", default=120, type=click.IntRange(min=60), help="From the warning to the limit.")
@click.option("--slurm-array-parallelism", type=click.IntRange(min=1), help="Most elements of an array at a time.")
@click.option("--slurm-additional-parameters", multiple=True, metavar="KEY=VALUE", help="Any other option of sbatch.")
@click.option("--seeds", default="", help='An array of jobs with these seeds, "1 2 3".')
@click.option("--games", default="", help='An array of jobs on these games, "ALE/Pong-v5 ALE/Breakout-v5".')
@click.option("--folder", default="submitted", type=click.Path(path_type=Path), help="For the script and its output.")
@click.option("--scripts", default=SCRIPTS, type=click.Path(path_type=Path), help="Folder of common.sh and env.sh.")
@click.option("--dry-run", is_flag=True, help="Print the script, write and submit nothing.")
def submit(
    recipe: str, options: tuple[str, ...], folder: Path, scripts: Path, dry_run: bool, name: str | None, **asked: Any
) -> int:
    """Write a job script that trains RECIPE, and submit it to Slurm; what is not listed here are options of `run`.

    \b
    python -m hpcddrl submit group_ensemble --nodes 2 --tasks-per-node 8 --timeout-min 120 --frames 4e6
    python -m hpcddrl submit impala --tasks_per_node=16 --slurm_partition=cpu --seeds "1 2 3" --mem_gb=64
    python -m hpcddrl submit ppo --nodes 4 --tasks-per-node 32 --dry-run

    Names are submitit's, with - or _. The script is as those in jobs/slurm: it warns, requeues and resumes, and takes
    what is particular to the site from env.sh there. Its run is runs/<name>-<job>.
    """  # noqa: D301 (click wants the character itself)
    _check(recipe, options, asked["nodes"] * asked["tasks_per_node"])
    if not (scripts / "common.sh").exists():
        raise ValueError(f"--scripts {scripts}: no common.sh there; name the folder jobs/slurm of the sources")
    folder = folder.resolve()
    text = script(recipe, options, name or recipe, folder, scripts.resolve(), asked)
    if dry_run:
        click.echo(text, nl=False)
        return 0
    return _submit(text, folder / f"{name or recipe}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.sh")


def _check(recipe: str, options: tuple[str, ...], ranks: int) -> None:
    """Find now what the job would find when it starts: unknown options and settings, layouts that do not fit.

    Raises:
        ValueError: in one line; click's own errors name options.
    """
    config = recipe_named(recipe)
    given = run.make_context("run", [recipe, *options]).params
    for option, instead in OWN.items():
        if given.pop(option) is not None:
            raise ValueError(f"--{option}: {instead}")
    if given.pop("recipe") != recipe or given.pop("show_config"):
        raise ValueError("options of run: only those that train")
    from hpcddrl.runtime.checks import fitted

    fitted(with_options(config, **given), ranks)


def script(recipe: str, options: tuple[str, ...], name: str, folder: Path, scripts: Path, asked: dict[str, Any]) -> str:
    """Return the text of a job script.

    Args:
        recipe: to train.
        options: of ``run``.
        name: of the job.
        folder: for its output.
        scripts: where common.sh is.
        asked: the other options of ``submit``, by name.

    Raises:
        ValueError: a limit on an array where there is none, or an additional parameter without a value.
    """
    runs = max(1, len(asked["seeds"].split())) * max(1, len(asked["games"].split()))
    lines = [f"#SBATCH --{option}" for option in _header(name, folder, runs, asked)]
    python = Path(sys.prefix)
    values = {
        "VENV": str(python) if (python / "bin" / "activate").exists() else "",
        "SEEDS": asked["seeds"],
        "GAMES": asked["games"],
    }
    sets = [f"export {key}=${{{key}-{shlex.quote(value)}}}" for key, value in values.items() if value]
    words = shlex.join(options) + " " if options else ""
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# Written by  python -m hpcddrl submit {recipe}",
            *lines,
            "",
            *sets,
            f". {shlex.quote(str(scripts / 'common.sh'))} || exit 2",
            "",
            f"arm {recipe} {recipe}",
            f'train {words}"$@"',
            "",
        ]
    )


def _header(name: str, folder: Path, runs: int, asked: dict[str, Any]) -> list[str]:
    limit = asked["slurm_array_parallelism"]
    if limit and runs == 1:
        raise ValueError("--slurm-array-parallelism: there is one run; name --seeds or --games, or leave it away")
    optional = {
        "gpus-per-node": asked["gpus_per_node"],
        "mem": asked["mem_gb"] and f"{round(1024 * asked['mem_gb'])}M",
        "partition": asked["slurm_partition"],
        "account": asked["slurm_account"],
        "qos": asked["slurm_qos"],
        "constraint": asked["slurm_constraint"],
        "exclude": asked["slurm_exclude"],
        "array": f"0-{runs - 1}" + (f"%{limit}" if limit else "") if runs > 1 else None,
    }
    more = [parameter.partition("=") for parameter in asked["slurm_additional_parameters"]]
    for key, equals, _ in more:
        if not equals:
            raise ValueError(f"--slurm-additional-parameters {key}: no value; write KEY=VALUE, such as mail-type=END")
    return [
        f"job-name={name}",
        f"nodes={asked['nodes']}",
        f"ntasks={asked['nodes'] * asked['tasks_per_node']}",
        f"ntasks-per-node={asked['tasks_per_node']}",
        f"cpus-per-task={asked['cpus_per_task']}",
        f"time={asked['timeout_min']}",
        f"signal=B:USR1@{asked['slurm_signal_delay_s']}",
        "requeue",
        "open-mode=append",
        f"output={folder}/{'%x-%A_%a' if runs > 1 else '%x-%j'}.out",
        *(f"{key}={value}" for key, value in optional.items() if value is not None),
        *(f"{key.removeprefix('--').replace('_', '-')}={value}" for key, _, value in more),
    ]


def _submit(text: str, path: Path) -> int:
    """Write the script and give it to sbatch, whose own words are passed on if it refuses.

    Raises:
        ValueError: there is no sbatch, or the script cannot be written.
    """
    if shutil.which("sbatch") is None:
        raise ValueError("no sbatch on PATH: submit where Slurm is, or look at the script with --dry-run")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise ValueError(f"--folder {path.parent}: cannot be written: {error.strerror}; choose another") from error
    done = subprocess.run(["sbatch", "--parsable", path], text=True, capture_output=True)
    click.echo(done.stderr, err=True, nl=False)
    if done.returncode:
        path.unlink()
        return FAILED
    click.echo(f"{path} submitted as job {done.stdout.strip().partition(';')[0]}")
    return 0
