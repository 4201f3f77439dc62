"""The command of every study: makes the runs that have no row yet, and draws table and picture from the rows."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from benchmarks.arms.document import comparable, document
from benchmarks.arms.outcome import VALUES, points_of, row_of, scores_of, to_text
from benchmarks.arms.sections import Section, sections_of
from benchmarks.arms.study import Circumstances, Game, Run, Study, runs_of, shares_of, waves_of
from benchmarks.flow import Task, absent, carry_out, committed, parser_for, settled
from benchmarks.jobs import PATIENCE_S, Job, circumstances, launch_all, portable, stamp
from benchmarks.rows import ROOT, Row, about_machine, add_row, machine, read_rows
from hpcddrl.figures.curves import learning_curves

KEY = ("arm", "game", "seed", "recipe", "ranks", "env", "settings", "seconds", *Circumstances._fields, "code")
COLUMNS = (*KEY, *VALUES, "scores", "note", "load", "others", "date", "about", "command", "run")
START_AND_END_S = 25.0  # what a run takes beside its seconds, until one was measured
SCORING_S = 60.0  # what each way of scoring its networks takes, until then
SCORING_LIMIT_S = 1800.0
CAPTION = """\
Interquartile mean over seeds with its 95 % bootstrap interval; thin lines are the seeds. A line ends where the first of
its seeds does."""
COURSE = """\

A row is written to NAME.csv as each run ends; rows of the same configuration and code (git's tree of hpcddrl/) are
skipped, so that a study can grow over several days and machines: all arms of a seed on one of them. NAME.md and
NAME.png are drawn from the rows. The runs stay under runs/bench-NAME/.

Exit codes: 0 done, 1 a run failed (the others went on), 2 refused.
"""


class Bench:
    """The table of a study, and the circumstances that one call adds rows for."""

    def __init__(self, study: Study, folder: Path, around: Circumstances) -> None:
        self._study, self._around = study, around
        self.csv = folder / f"{study.name}.csv"

    def missing(self, runs: Sequence[Run], dirty: bool) -> list[Run]:
        """Return the runs without a row, but for those whose game and seed another machine has all arms of."""
        rows, code, lacking = read_rows(self.csv), committed(), set[Run]()
        machines = dict.fromkeys([self._around.machine, *(row["machine"] for row in rows)])
        for alike in {(run.game, run.seed): [r for r in runs if r[1:] == run[1:]] for run in runs}.values():
            keys = [{r: r.key(self._around._replace(machine=name), code) for r in alike} for name in machines]
            lacks = [absent(rows, these, dirty) for these in keys]
            lacking |= set(lacks[0] if all(lacks) else [])
        return [run for run in runs if run in lacking]

    def task(self, wave: Sequence[Run]) -> Task:
        """Return some runs that are made side by side as one task."""
        seconds = wave[0].game.seconds + START_AND_END_S + SCORING_S * len(self._study.scoring.plays)
        return Task("; ".join(run.name for run in wave), seconds, partial(self.run, wave))

    def run(self, wave: Sequence[Run]) -> str:
        """Make some runs side by side, write their rows and draw the table; return what they came to.

        Raises:
            RuntimeError: some failed; with the ends of their logs. The others have their rows.
        """
        outs = [self._out(run) for run in wave]
        lines = [run.command(out) for run, out in zip(wave, outs, strict=True)]
        with circumstances() as meanwhile:
            failures = self._launch(lines, outs, ".log", wave[0].game.seconds + PATIENCE_S)
        done = [i for i, failure in enumerate(failures) if not failure]
        scored = self._scores([wave[i] for i in done], [outs[i] for i in done])
        said = []
        for i, scores in zip(done, scored, strict=True):
            row = dict.fromkeys(COLUMNS, "") | wave[i].key(self._around, "") | meanwhile | scores
            row |= row_of(ROOT / outs[i], wave[i].game.targets)
            row |= {"about": about_machine(), "command": portable(lines[i]), "run": str(outs[i])}
            add_row(self.csv, COLUMNS, row)
            told = f"return {row['final'] or '–'}, {float(row['frames_per_s']):.0f} frames/s"
            said.append(", ".join(filter(None, (told, row["scores"], row["note"]))))
        self.draw()
        if len(done) < len(wave):
            raise RuntimeError("\n".join([*said, *filter(None, failures)]))
        return "; ".join(said)

    def _out(self, run: Run) -> Path:
        """Return the directory of a run that starts now, below `ROOT`, where every command runs."""
        name = re.sub(r"\W+", "-", f"{run.arm.name}-{run.game.name}-{run.seed}")
        return Path(f"runs/bench-{self._study.name}") / f"{name}-{stamp()}"

    def _launch(self, lines: Sequence[list[str]], outs: Sequence[Path], suffix: str, limit_s: float) -> list[str]:
        """Run commands side by side, each on its share of the processors; return why each failed, if so."""
        count = int(self._around.side_by_side)
        shares = shares_of(sorted(os.sched_getaffinity(0)), count)
        own = [["taskset", "-c", ",".join(map(str, share))] if count > 1 else [] for share in shares]
        logs = [ROOT / out.with_name(out.name + suffix) for out in outs]
        jobs = [Job([*pinned, *line], log) for pinned, line, log in zip(own, lines, logs, strict=False)]
        return launch_all(jobs, limit_s)

    def _scores(self, runs: Sequence[Run], outs: Sequence[Path]) -> list[Row]:
        """Play the runs' networks as the study asks for it; return what is new in their rows."""
        found: list[dict[str, float]] = [{} for _ in runs]
        notes: list[list[str]] = [[] for _ in runs]
        for play in self._study.scoring.plays if runs else ():
            lines = [play.command(out, run.game) for run, out in zip(runs, outs, strict=True)]
            failures = self._launch(lines, outs, f".{play.name}.log", SCORING_LIMIT_S)
            for i, (out, failure) in enumerate(zip(outs, failures, strict=True)):
                log = out.with_name(f"{out.name}.{play.name}.log")
                if failure:
                    notes[i].append(f"not scored, see {log}")
                else:
                    scores = scores_of((ROOT / log).read_text())
                    found[i] |= {play.name: scores[play.owner]} if play.owner else scores
        return [{"scores": to_text(f), "note": "; ".join(n)} for f, n in zip(found, notes, strict=True)]

    def draw(self) -> None:
        """Draw table and picture anew."""
        draw(self._study, self.csv.parent)


def draw(study: Study, folder: Path) -> None:
    """Draw a study's table and picture from its rows."""
    page = folder / f"{study.name}.md"
    rows, code = read_rows(page.with_suffix(".csv")), committed()
    text = document(study, rows, code)
    points = points_of_sections(study, sections_of(study, rows, code))
    if len(points):
        picture = page.with_suffix(".png")
        label = "return, last 100 games of each group"
        learning_curves(points, window=1, label=label).savefig(picture, dpi=110)
        text += f"\n![Return over frames and seconds]({picture.name})\n\n{CAPTION}\n"
    if appended := study.appendix(folder):
        text += "\n" + "\n".join(appended) + "\n"
    page.write_text(text)


def points_of_sections(study: Study, sections: Sequence[Section]) -> pd.DataFrame:
    """Return the curves of sections as `learning_curves` takes them, the best group's beside the mean of several."""
    parts = []
    for section in (section for alike in comparable(study, sections) for section in alike):
        for arm, rows in section.rows.items():
            for row in rows:
                several = len(row["groups"].split()) > 1
                for kind in ("mean", "best")[: 1 + several]:
                    which = {"mean": "mean of the groups", "best": "best group"}[kind] if several else ""
                    title = ", ".join(filter(None, (section.game.name, f"{section.game.seconds:g} s", which)))
                    curve = points_of(row).rename(columns={"frames": "job_frames", kind: "return"})
                    own = curve[["job_frames", "seconds", "return"]]
                    parts.append(own.assign(run=row["run"], setting=arm, game=title, superseded=False))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def options(study: Study, text: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(study.name, (text or "") + COURSE.replace("NAME", study.name))
    games, arms = [game.name for game in study.games], [arm.name for arm in study.arms]
    parser.add_argument("--games", default=",".join(games), metavar="A,B", help=f"default: {','.join(games)}")
    parser.add_argument("--arms", default=",".join(arms), metavar="A,B", help=f"default: {','.join(arms)}")
    parser.add_argument("--seeds", metavar="1,2", help="default: each game's own")
    parser.add_argument("--seconds", type=float, help="of each run (default: each game's own)")
    parser.add_argument(
        "--side-by-side", type=int, default=1, metavar="N", help="runs at a time, each on its share of the processors"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    given = parser.parse_args(arguments)
    for option, known in (("games", games), ("arms", arms)):
        names = [name for name in getattr(given, option).split(",") if name]
        if unknown := [name for name in names if name not in known]:
            parser.error(f"--{option}: no {', '.join(unknown)}; there are {', '.join(known)}")
        setattr(given, option, names)
    try:
        given.seeds = tuple(int(seed) for seed in given.seeds.split(",")) if given.seeds else None
        shares_of(sorted(os.sched_getaffinity(0)), max(1, given.side_by_side))
    except ValueError as wrong:
        parser.error(str(wrong))
    if given.side_by_side < 1 or (given.seconds is not None and given.seconds <= 0):
        parser.error("--side-by-side and --seconds: more than 0")
    return given


def _can_be_played(game: Game) -> bool:
    """Tell whether what a game needs is installed; say so if not."""
    there = not game.needs or importlib.util.find_spec(game.needs) is not None
    if not there:
        way_out = "python -m pip install -c constraints.txt -e .[bench]"
        print(f"# {game.name} is left out, no package {game.needs}: {way_out}")
    return there


def main(study: Study, text: str | None, arguments: Sequence[str] | None = None) -> int:
    """Run what is missing of a study and write it down; ``text`` explains the command."""
    given = options(study, text, arguments)
    games = [game for game in study.games if game.name in given.games and _can_be_played(game)]
    games = [game._replace(seeds=given.seeds or game.seeds, seconds=given.seconds or game.seconds) for game in games]
    runs = runs_of(study, games, given.arms)
    bench = Bench(study, given.into, Circumstances(machine(), str(given.side_by_side)))
    missing = bench.missing(runs, given.dirty)
    if given.dry_run:
        print("\n".join(portable(run.command(Path(f"runs/bench-{study.name}/RUN"))) for run in missing))
        return 0
    tasks = [bench.task(wave) for wave in waves_of(missing, given.side_by_side)]
    if (exit_code := settled(given, len(runs), [run.name for run in missing], tasks)) is not None:
        return exit_code
    exit_code = carry_out(tasks, given.dirty)
    bench.draw()
    print(f"open {bench.csv.with_suffix('.md')}")
    return exit_code
