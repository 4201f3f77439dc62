"""A page of tables whose rows are measured one by one: what there should be, what is missing, how it is written."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from benchmarks.flow import Task, absent, carry_out, settled
from benchmarks.jobs import PATIENCE_S, circumstances, launch, portable, stamp
from benchmarks.rows import ROOT, Row, about_machine, add_row, markdown_table, read_rows

T = TypeVar("T")
AROUND = ("load", "others", "date", "about", "command")


class Table(NamedTuple):
    """One experiment: what tells its rows apart, what they say, and how one is made."""

    name: str  # of its CSV file
    key: tuple[str, ...]
    values: tuple[str, ...]
    text: str
    measure: Callable[[Row], Row]  # from a row's key to its values and circumstances
    hidden: tuple[str, ...] = ()  # values that stand in the CSV file alone

    def csv(self, folder: Path) -> Path:
        """Return where its rows are."""
        return folder / f"{self.name}.csv"

    def section(self, folder: Path) -> list[str]:
        """Return its part of the Markdown file."""
        shown = [c for c in (*self.key, *self.values, *AROUND) if c not in ("machine", "about", "command")]
        return [
            self.text,
            "",
            *markdown_table(shown, ([row[c] for c in shown] for row in read_rows(self.csv(folder)))),
            "",
        ]


class Page(NamedTuple):
    """Some tables in one Markdown file."""

    name: str  # of the file
    title: str
    legend: str
    tables: tuple[Table, ...]
    overview: Callable[[Path], list[str]] = lambda _: []  # lines that stand before the tables

    def document(self, folder: Path) -> str:
        """Return the whole Markdown text."""
        rows = [row for table in self.tables for row in read_rows(table.csv(folder))]
        lines = [f"# {self.title}", "", self.legend, ""]
        for about in dict.fromkeys(f"{row['machine']}; {row['about']}" for row in rows):
            lines += [f"Machine: {about}", ""]
        lines += self.overview(folder)
        for table in self.tables:
            lines += table.section(folder)
        return "\n".join(lines).rstrip() + "\n"


def fill(page: Page, given: argparse.Namespace, wanted: Sequence[tuple[Table, Row]], said: Sequence[str]) -> int:
    """Measure the wanted rows that are missing and write them down; return the exit code.

    Args:
        page: of tables.
        given: the command line: into, missing, dirty, seconds.
        wanted: the key of every row that there should be.
        said: columns of the keys that are named in a line.
    """
    names = {_name(table, key, said): (table, key) for table, key in wanted}
    missing = []
    for table in page.tables:
        keys = {name: key for name, (its, key) in names.items() if its is table}
        missing += absent(read_rows(table.csv(given.into)), keys, given.dirty)
    tasks = [Task(name, given.seconds, partial(_measure, page, *names[name], given.into)) for name in missing]
    if (exit_code := settled(given, len(names), missing, tasks)) is not None:
        return exit_code
    exit_code = carry_out(tasks, given.dirty)
    print(f"open {given.into / page.name}.md")
    return exit_code


def measured_run(
    name: str,
    ranks: int,
    recipe: str,
    env: str,
    seconds: float,
    settings: Mapping[str, object],
    read: Callable[[Path], T],
    cores: int | None = None,
) -> tuple[T, Row]:
    """Run a recipe, on so many cores; return what is ``read`` from its directory, and under which circumstances it ran.

    Raises:
        RuntimeError: it failed; with the end of what it printed, which stays under runs/bench-NAME/.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        line = [] if cores is None else ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))]
        line += ["mpirun", "-n", str(ranks), sys.executable, "-m", "hpcddrl", "run", recipe, "--env", env]
        line += ["--seconds", f"{seconds:g}"]
        line += [word for setting, value in settings.items() for word in ("--set", f"{setting}={value}")]
        with circumstances() as around:
            launch([*line, "--out", str(out)], ROOT / f"runs/bench-{name}/{stamp()}.log", seconds + PATIENCE_S)
        return read(out), around | {"about": about_machine(), "command": portable(line)}


def _name(table: Table, key: Row, said: Sequence[str]) -> str:
    return f"{table.name}, " + ", ".join(f"{name} {key[name]}" for name in table.key if name in said)


def _measure(page: Page, table: Table, key: Row, folder: Path) -> str:
    """Measure a row, write it down and return what it came to."""
    row = key | table.measure(key)
    add_row(table.csv(folder), (*table.key, *table.values, *AROUND, *table.hidden), row)
    (folder / f"{page.name}.md").write_text(page.document(folder))
    return ", ".join(f"{name} {row[name]}" for name in table.values)
