"""What every benchmark does alike: say what is missing, refuse changed files, measure one thing after another.

Exit codes: 0 done, 1 a run failed (the others went on), 2 refused.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.rows import CHANGED, Row, code_key, has_row

DONE, FAILED, REFUSED = 0, 1, 2  # exit codes
T = TypeVar("T")


class CannotRunError(Exception):
    """A run can't or mustn't be started; says why in one line."""


class Task(NamedTuple):
    """Something to measure."""

    name: str  # as it is printed
    seconds: float  # that it takes, as far as is known beforehand
    make: Callable[[], str]  # measures, writes rows, draws; says in a line what came out


def parser_for(name: str, text: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(prog=name, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path(__file__).parent, metavar="DIR", help="folder of the tables")
    parser.add_argument("--missing", action="store_true", help="only print which rows are missing")
    parser.add_argument("--dirty", action="store_true", help="run with a changed hpcddrl/; such rows are always redone")
    return parser


def committed() -> str:
    """Return the code that rows are looked for by: that of the commit, whatever was changed since."""
    return code_key().removesuffix(CHANGED)


def absent(rows: Sequence[Row], keys: Mapping[T, Row], dirty: bool = False) -> list[T]:
    """Return what has no row; with ``dirty`` and changed files all that depends on them, for no row is of these."""
    stale = committed() if dirty and code_key().endswith(CHANGED) else None
    return [what for what, key in keys.items() if key["code"] == stale or not has_row(rows, key)]


def settled(given: argparse.Namespace, wanted: int, missing: Sequence[str], tasks: Sequence[Task]) -> int | None:
    """Say which of the wanted rows are missing, and how long their tasks will take.

    Returns:
        The exit code if nothing is to be run, None if there is.
    """
    eta = timedelta(seconds=round(sum(task.seconds for task in tasks)))
    print(f"{wanted - len(missing)} of {wanted} rows are there; missing: {'; '.join(missing) or 'none'}", end="")
    print(f" (ETA {eta})" if missing else "", flush=True)
    return DONE if given.missing else _refused(given.dirty, "has changes that no commit has: commit them")


def _refused(dirty: bool, why: str) -> int | None:
    if dirty or not code_key().endswith(CHANGED):
        return None
    print(f"hpcddrl/ {why}, or give --dirty", file=sys.stderr)
    return REFUSED


def carry_out(tasks: Sequence[Task], dirty: bool) -> int:
    """Carry out the tasks, a line each; return the exit code. What fails is said and the others go on."""
    exit_code, took, expected = DONE, 0.0, 0.0
    with _ended_by_sigterm():
        for number, task in enumerate(tasks):
            if refused := _refused(dirty, "was changed meanwhile: stopped; commit"):
                return refused
            slower = took / expected if expected else 1.0
            eta = timedelta(seconds=round(slower * sum(later.seconds for later in tasks[number:])))
            print(f"[{number + 1}/{len(tasks)}, ETA {eta}] {task.name}: ", end="", flush=True)
            start = time.monotonic()
            try:
                print(task.make(), flush=True)
            except CannotRunError as reason:
                print(reason, flush=True)
            except (RuntimeError, ValueError, OSError) as failure:
                print(f"failed\n{failure}", flush=True)
                exit_code = FAILED
            else:
                took, expected = took + time.monotonic() - start, expected + task.seconds
    return exit_code


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Make TERM an exception, so that the job of now is ended too."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
