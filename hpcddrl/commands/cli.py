"""The command line: what there is, its help, and one line for what a user got wrong."""

from __future__ import annotations

import difflib
import sys
from typing import Any

import click

from hpcddrl import __version__
from hpcddrl.comm.failure import complain_once
from hpcddrl.commands.amdahl import amdahl
from hpcddrl.commands.doctor import doctor
from hpcddrl.commands.efficiency import efficiency
from hpcddrl.commands.evaluate import evaluate
from hpcddrl.commands.export import export
from hpcddrl.commands.lists import list_recipes, ranks
from hpcddrl.commands.plan import plan
from hpcddrl.commands.report import report
from hpcddrl.commands.run import run
from hpcddrl.commands.simulate import simulate
from hpcddrl.commands.submit import submit
from hpcddrl.commands.tensorboard import tensorboard
from hpcddrl.commands.watch import watch

USAGE_ERROR = 2


class _Group(click.Group):
    """Takes ``run`` where no sub-command is named, and suggests names for those it does not know."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], self.commands, n=2, cutoff=0.4) or sorted(self.commands)
            raise click.UsageError(f"no such command {args[0]!r}; nearest: {', '.join(near)}")
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Distributed deep reinforcement learning as MPI batch jobs.

    \b
    mpirun -n 16 python -m hpcddrl                    the default: 8 groups of learner + actor on Atari Pong
    mpirun -n 4 python -m hpcddrl run impala --env ALE/Breakout-v5 --seconds 600
    python -m hpcddrl run paac --env CartPole-v1      one rank, no mpirun
    python -m hpcddrl list                            the recipes
    python -m hpcddrl doctor                          whether a job can run here, and what mends it
    python -m hpcddrl plan impala --ranks 4096        what a job will send and hold
    python -m hpcddrl simulate runs/... --ranks 4096  how fast it will be, from what a small run took
    python -m hpcddrl submit impala --nodes 4 --tasks-per-node 32 --slurm-partition cpu      a job for Slurm
    python -m hpcddrl report runs/one runs/two        a page on runs: curves, shares of time, what looks wrong
    python -m hpcddrl watch runs/one                  the same of a run that goes on, in the terminal
    """  # noqa: D301 (click wants the character itself)


for _command in (
    run,
    amdahl,
    doctor,
    efficiency,
    evaluate,
    export,
    list_recipes,
    plan,
    ranks,
    report,
    simulate,
    submit,
    tensorboard,
    watch,
):
    cli.add_command(_command)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2, on every rank."""
    try:
        code = cli(standalone_mode=False)
    except click.exceptions.Exit as end:
        code = end.exit_code
    except click.UsageError as error:
        complain_once(f"{error.format_message()} (see python -m hpcddrl {_command_name(error)}--help)")
        code = USAGE_ERROR
    except ValueError as error:
        complain_once(str(error))
        code = USAGE_ERROR
    except click.Abort:
        code = 1
    sys.stdout.flush()
    sys.exit(code or 0)


def _command_name(error: click.UsageError) -> str:
    info = error.ctx.info_name if error.ctx is not None and error.ctx.parent is not None else None
    return f"{info} " if info else ""
