"""All recipes for the same time on the same ranks with the same network, one run after the other.

    make bench-frameworks                                    # every recipe on Pong, 600 s each
    make bench-frameworks ARGS="--recipes impala,a3c"        # some of them
    make bench-frameworks ARGS=--missing                     # what there is no row for

A row is written to frameworks.csv as each run ends; rows of the same code (git's tree of hpcddrl/), machine and
settings are skipped, so the table can grow over several days. frameworks.md and frameworks.png are drawn from the rows,
those of older code marked. The runs themselves stay under runs/bench-frameworks/.

Exit codes: 0 done, 1 a run failed (the others went on), 2 refused.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.curves import curve_of, draw, to_text
from benchmarks.flow import CannotRunError, Task, absent, carry_out, committed, parser_for, settled
from benchmarks.jobs import PATIENCE_S, circumstances, launch, portable, stamp
from benchmarks.report import HEADER, Setting, document, panels
from benchmarks.rows import ROOT, Row, about_machine, add_row, code_key, machine, read_rows
from hpcddrl.comm.placement import fit
from hpcddrl.config import Topology
from hpcddrl.figures.ages import mean_staleness
from hpcddrl.logs.read import read_runs
from hpcddrl.recipes import RECIPES

RUNS = Path("runs/bench-frameworks")  # below ROOT, where every command runs
KEY = ("recipe", *Setting._fields, "code")
COLUMNS = (*KEY, *(column for column in HEADER if column not in KEY), "about", "command", "run", "curve")
START_AND_END_S = 15.0  # what a run takes beside its seconds, until one was measured
LATER = Path("TEACHER")  # in a command that is only printed: a run that will be there by then


class Layout(NamedTuple):
    """How one recipe's run is laid out."""

    recipe: str
    topology: Topology  # fitted
    wants_teacher: bool
    gives_teacher: bool

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Return how many servers, learners, replays and actors there are."""
        t, groups = self.topology, self.topology.groups or 0
        return (
            t.servers,
            groups * (t.learners_per_group or 0),
            groups * t.replays_per_group,
            groups * (t.actors_per_group or 0),
        )

    @property
    def ranks(self) -> int:
        """Return how many ranks it takes."""
        return sum(self.counts)


def lay_out(recipe: str, ranks: int) -> Layout:
    """Lay a recipe out on as many ranks as it can use, at most ``ranks``.

    Raises:
        CannotRunError: it can't be laid out on so few.
    """
    config = RECIPES[recipe]()
    for count in range(ranks, 0, -1):
        try:
            topology = fit(config.topology, count)
        except ValueError:
            continue
        wants = config.coupling.kind == "teacher"
        return Layout(recipe, topology, wants, not wants and config.algorithm.kind == "actor_critic")
    raise CannotRunError(f"{recipe}: can't be laid out on {ranks} ranks or fewer")


def command(what: Layout, setting: Setting, out: Path, teacher: Path | None) -> list[str]:
    """Return the command line of a run."""
    line = ["mpirun", "-n", str(what.ranks), sys.executable, "-m", "hpcddrl", "run", what.recipe]
    line += ["--env", setting.env, "--seconds", setting.seconds, "--seed", setting.seed, "--out", str(out)]
    line += ["--set", f"network.torso={setting.torso}"]
    return line + (["--set", f"coupling.run={teacher}"] if teacher else [])


def key_of(recipe: str, setting: Setting, code: str) -> Row:
    """Return what tells a row from others."""
    return {"recipe": recipe, **setting._asdict(), "code": code}


def newest_teacher(runs: Path, env: str) -> Path | None:
    """Return the newest finished run of an actor-critic recipe that had no teacher itself, on this environment."""
    found = []
    for summary in runs.glob("*/summary.json"):
        run = summary.parent
        config, ended = json.loads((run / "config.json").read_text()), json.loads(summary.read_text())
        fits = config["env"]["id"] == env and config["algorithm"]["kind"] == "actor_critic"
        if fits and config["coupling"]["kind"] != "teacher" and ended["exit_reason"] == "seconds":
            found.append((ended["ended"], run))
    return max(found)[1] if found else None


def row_of(what: Layout, setting: Setting, run: Path, line: Sequence[str], note: str) -> Row:
    """Read a finished run into a row, but for what was noted before it: its code, the load, the date."""
    summary: dict[str, Any] = json.loads((ROOT / run / "summary.json").read_text())
    tables = read_runs([ROOT / run]).tables

    def number(value: float | None, digits: int) -> str:
        return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"

    return {
        **key_of(what.recipe, setting, ""),
        "layout": layout(what, setting),
        "frames": number(summary["frames"], 0),
        "frames_per_s": number(summary["frames"] / summary["wall_s"], 0),
        "predictions_per_s": number(summary["predictions_per_s"], 0),
        "trained_per_s": number(summary["trained_samples_per_s"], 0),
        "lag": number(summary["lag_mean"], 1),
        "staleness": number(mean_staleness(tables["staleness"]), 1),
        "return_mean": number(summary["return_mean"], 2),
        "return_best": number(summary["return_best"], 1),
        "updates": number(summary["updates"], 0),
        "memory_mib": ", ".join(f"{role} {peak / 2**20:.0f}" for role, peak in summary["peak_rss_bytes"].items()),
        "note": note,
        "about": about_machine(),
        "command": portable(line),
        "run": str(run),
        "curve": to_text(curve_of(tables["episodes"], summary["wall_s"])),
    }


def layout(what: Layout, setting: Setting) -> str:
    """Say how many ranks take which role, and if they are fewer than there could be."""
    counts = " / ".join(map(str, what.counts))
    return counts if what.ranks == int(setting.ranks) else f"{counts} ({what.ranks} of {setting.ranks} ranks)"


class Bench:
    """The table and the settings that one call adds rows for."""

    def __init__(self, setting: Setting, folder: Path, teacher: Path | None) -> None:
        self.setting = setting
        self.csv = folder / "frameworks.csv"
        self.rows = read_rows(self.csv)
        self._teacher = teacher

    def plan(self, recipes: Sequence[str]) -> tuple[list[Layout], list[str]]:
        """Return the runs to make, those that want a teacher last, and a line for each that can't be made."""
        layouts, complaints = [], []
        for recipe in recipes:
            try:
                layouts.append(lay_out(recipe, int(self.setting.ranks)))
            except CannotRunError as refusal:
                complaints.append(str(refusal))
        return sorted(layouts, key=lambda t: t.wants_teacher), complaints

    def teacher_for(self, what: Layout, before: Sequence[Layout] = ()) -> Path | None:
        """Return the run to learn from; ``before`` are those that will have ended by then.

        Raises:
            CannotRunError: there is none.
        """
        if not what.wants_teacher:
            return None
        if self._teacher is None and any(t.gives_teacher for t in before):
            return LATER
        found = self._teacher or newest_teacher(ROOT / RUNS, self.setting.env)
        if found is None:
            raise CannotRunError(
                f"{what.recipe}: skipped, no finished actor-critic run to learn from; give --teacher DIR"
            )
        return found.relative_to(ROOT) if found.is_relative_to(ROOT) else found

    def out(self, recipe: str) -> Path:
        """Return the directory of a run that starts now."""
        env = self.setting.env.replace("/", "-").replace(":", "-")
        return RUNS / f"{recipe}-{env}-{self.setting.torso}-{stamp()}"

    def commands(self, layouts: Sequence[Layout]) -> list[str]:
        """Return the command of each run, or why there will be none."""
        lines = []
        for number, what in enumerate(layouts):
            try:
                teacher = self.teacher_for(what, layouts[:number])
            except CannotRunError as refusal:
                lines.append(f"# {refusal}")
                continue
            if teacher == LATER:
                lines.append(f"# {LATER}: the newest of the runs above, by then")
            if what.ranks != int(self.setting.ranks):
                lines.append(f"# {what.recipe}: {what.ranks} of {self.setting.ranks} ranks, it takes no more")
            lines.append(shlex.join(command(what, self.setting, self.out(what.recipe), teacher)))
        return lines

    def tasks(self, layouts: Sequence[Layout]) -> list[Task]:
        """Return the runs as tasks."""
        seconds = int(self.setting.seconds) + START_AND_END_S
        return [
            Task(f"{what.recipe} on {layout(what, self.setting)}", seconds, partial(self.run, what)) for what in layouts
        ]

    def run(self, what: Layout) -> str:
        """Make a run, write its row and draw the table; return what it came to.

        Raises:
            CannotRunError: it has no teacher.
            RuntimeError: it failed; with the end of its log.
        """
        teacher, out = self.teacher_for(what), self.out(what.recipe)
        line = command(what, self.setting, out, teacher)
        log = ROOT / out.with_name(out.name + ".log")
        with circumstances() as around:
            launch(line, log, int(self.setting.seconds) + PATIENCE_S)
        row = row_of(what, self.setting, out, line, f"teacher {teacher.name}" if teacher else "") | around
        self.rows = add_row(self.csv, COLUMNS, row)
        self.draw()
        return (
            f"{row['frames_per_s']} frames/s, {row['trained_per_s']} trained/s, "
            f"return {row['return_mean'] or '–'} (best {row['return_best'] or '–'})"
        )

    def draw(self) -> str:
        """Draw table and picture anew; return why there is no new picture, if so."""
        code, recipes, picture = code_key(), list(RECIPES), self.csv.with_suffix(".png")
        curves = panels(self.rows, self.setting, code, recipes)
        if curves:
            draw(picture, curves)
        text = document(self.rows, self.setting, code, recipes, about_machine())
        if picture.exists():
            aged = "" if curves else ", as last drawn: it may be older than the tables"
            text += f"\n![Return over seconds]({picture.name})\n\nReturn over seconds{aged}.\n"
        self.csv.with_suffix(".md").write_text(text)
        return "" if curves else "no new picture: no curve yet"


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("frameworks", __doc__)
    parser.add_argument("--recipes", default=",".join(RECIPES), metavar="A,B", help="default: all")
    parser.add_argument("--seconds", type=int, default=600, help="of each run (default: 600)")
    parser.add_argument("--ranks", type=int, default=4, help="of each run, at most (default: 4)")
    parser.add_argument("--env", default="ALE/Pong-v5", help="default: ALE/Pong-v5")
    parser.add_argument("--torso", default="nature", help="network (default: nature)")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="run that kickstart learns from (default: newest)")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    given = parser.parse_args(arguments)
    given.recipes = [name for name in given.recipes.split(",") if name]
    if unknown := [name for name in given.recipes if name not in RECIPES]:
        parser.error(f"--recipes: no recipe {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    if given.teacher is not None:
        given.teacher = given.teacher.resolve()
        if not (given.teacher / "config.json").exists():
            parser.error(f"--teacher {given.teacher}: no run there")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    given = options(arguments)
    setting = Setting(machine(), given.env, given.torso, str(given.ranks), str(given.seconds), str(given.seed))
    bench, code = Bench(setting, given.into, given.teacher), committed()
    keys = {recipe: key_of(recipe, setting, code) for recipe in given.recipes}
    names = absent(bench.rows, keys, given.dirty)
    layouts, complaints = bench.plan(names)
    if given.dry_run:
        print("\n".join([*(f"# {line}" for line in complaints), *bench.commands(layouts)]))
        return 0
    tasks = bench.tasks(layouts)
    print(setting)
    if (exit_code := settled(given, len(keys), names, tasks)) is not None:
        return exit_code
    print("\n".join(complaints), end="\n" if complaints else "")
    bench.draw()
    exit_code = carry_out(tasks, given.dirty)
    print("\n".join(filter(None, (bench.draw(), f"open {bench.csv.with_suffix('.md')}"))))
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
