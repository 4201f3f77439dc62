"""Weak scaling with environments that sleep, so that ranks hardly compete for cores: one learner, ever more actors.

    make bench-scaling                               # 4, 8, 16, 32 and 64 ranks on this machine, 60 s each
    make bench-scaling ARGS="--ranks 4,8 --seconds 20"
    make bench-scaling ARGS=--missing                # what there is no row for

Each actor steps one environment that sleeps 5 ms a step and shows what Atari shows (84 × 84 uint8, stacks of 4), with
the nips network at a quarter of its width, and sends rollouts of 20 steps. A row is written to scaling.csv as each run
ends; rows of the same code (git's tree of hpcddrl/), machine and settings are skipped. scaling.md and scaling.png are
drawn from the rows. The runs stay under runs/bench-scaling/. With simpy installed, each size is also simulated from the
smallest one's run.

Exit codes: 0 done, 1 a run failed (the others went on), 2 refused.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.flow import Task, absent, carry_out, committed, parser_for, settled
from benchmarks.jobs import PATIENCE_S, circumstances, launch, portable, stamp
from benchmarks.rows import ROOT, Row, about_machine, add_row, code_key, machine, markdown_table, read_rows
from benchmarks.steady import phases, rate
from hpcddrl.logs.measured import Measured, read_measured
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.logs.timing import Phase

RUNS = Path("runs/bench-scaling")  # below ROOT, where every command runs
NUMBERS = ("frames_per_s", "efficiency", "simulated", "lag", "learner_idle", "updates_per_s", "traffic")
SHARES = ("learner_phases", "actor_phases")
ABOUT = ("load", "others", "date", "about", "command", "run")
LEGEND = """\
`make bench-scaling` drew this from scaling.csv, which has every row's exact command. One learner, all other ranks are
actors with one sleeping environment each. Rates are of the intervals after the start, environment frames of the whole
job. Efficiency is frames/s of each actor beside that at the fewest ranks. Simulated is what the model behind
`python -m hpcddrl simulate` says from the run at the fewest ranks alone, and by how much it is off. Lag is the mean age
of data in updates. Learner idle is the share of its time spent waiting. Traffic: messages and bytes per second by tag.
Phases: share of the wall time of a role's ranks, the mean and, in brackets, the range over the ranks. Load is the
machine's load average as the run started, others the cores that other processes kept busy meanwhile."""


class Setting(NamedTuple):
    """What all rows of a table have in common, as the CSV file has it."""

    machine: str
    sleep_ms: str
    seconds: str
    seed: str


KEY = ("ranks", *Setting._fields, "code")
COLUMNS = (*KEY, *NUMBERS, *SHARES, *ABOUT)


def command(ranks: int, setting: Setting, out: Path) -> list[str]:
    """Return the command line of a run."""
    line = ["mpirun", "-n", str(ranks), sys.executable, "-m", "hpcddrl", "run", "impala", "--env", "hpcddrl/Sleep-v0"]
    line += ["--seconds", setting.seconds, "--seed", setting.seed, "--out", str(out), "--set", "network.torso=nips"]
    settings = {
        "env.num_envs": 1,
        "env.frame_stack": 4,
        "env.options.sleep_s": float(setting.sleep_ms) / 1000,
        "network.width": 0.25,
        "algorithm.unroll_length": 20,
        "logging.interval_s": min(5.0, float(setting.seconds) / 12),
    }
    return line + [part for name, value in settings.items() for part in ("--set", f"{name}={value:g}")]


def key_of(ranks: int, setting: Setting, code: str) -> Row:
    """Return what tells a row from others."""
    return {"ranks": str(ranks), **setting._asdict(), "code": code}


def frames_per_s(measured: Sequence[Measured]) -> float:
    """Return what the actors of a run stepped."""
    return rate([m for m in measured if m.role == "actor"], "env_steps")


def traffic(measured: Sequence[Measured]) -> str:
    """Return messages and bytes per second of the whole job by tag."""
    tags = sorted({tag for m in measured for tag in m.messages})
    texts = []
    for tag in tags:
        messages = sum(m.messages.get(tag, 0.0) / m.wall_s for m in measured)
        nbytes = sum(m.nbytes.get(tag, 0.0) / m.wall_s for m in measured)
        texts.append(f"{tag} {messages:.3g}/s {nbytes / 1e6:.3g} MB/s")
    return ", ".join(texts)


def simulated(base: Path, ranks: int) -> float | None:
    """Return the frames/s that are simulated for so many ranks from a run; None without simpy, or if it is gone."""
    if importlib.util.find_spec("simpy") is None or not (base / "run.h5").exists():
        return None
    from hpcddrl.config import Topology
    from hpcddrl.runtime.calibration import calibrate, scenario
    from hpcddrl.runtime.checks import checked, fitted
    from hpcddrl.runtime.plan import job_of
    from hpcddrl.simulation.cost import Machine
    from hpcddrl.simulation.model import simulate

    config, measured = RunDirectory(base).config(), read_measured(base)
    known = calibrate(job_of(config, checked(config)), measured)
    wanted = fitted(dataclasses.replace(config, topology=Topology(groups=1)), ranks)
    shared = Machine(cores=len(os.sched_getaffinity(0)), ranks_per_host=ranks)
    return simulate(scenario(known, job_of(wanted, checked(wanted)), shared)).steps_per_s * known.frames_a_step


def row_of(ranks: int, base: Row | None, run: Path) -> Row:
    """Read a finished run into a row; ``base`` is that of the fewest ranks, None if this is it."""
    measured = read_measured(ROOT / run)
    frames = frames_per_s(measured)
    (learner,) = [m for m in measured if m.role == "learner"]
    per_actor = frames / (ranks - 1)
    first = float(base["frames_per_s"]) / (int(base["ranks"]) - 1) if base else per_actor
    predicted = simulated(ROOT / (base["run"] if base else run), ranks)
    return {
        "frames_per_s": f"{frames:.1f}",
        "efficiency": f"{per_actor / first:.3f}",
        "simulated": "" if predicted is None else f"{predicted:.1f} ({predicted / frames - 1:+.1%})",
        "lag": f"{learner.lag:.2f}",
        "learner_idle": f"{learner.seconds[Phase.WAIT] / learner.wall_s:.3f}",
        "updates_per_s": f"{learner.counts['updates'] / learner.wall_s:.1f}",
        "traffic": traffic(measured),
        "learner_phases": phases(measured, "learner"),
        "actor_phases": phases(measured, "actor"),
        "run": str(run),
    }


class Bench:
    """The table and the setting that one call adds rows for."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting, self.csv = setting, folder / "scaling.csv"

    def rows(self, code: str) -> list[Row]:
        """Return the rows of this setting and code, by size, the newest of each."""
        key = {name: value for name, value in key_of(0, self.setting, code).items() if name != "ranks"}
        found = {r["ranks"]: r for r in read_rows(self.csv) if all(r[name] == value for name, value in key.items())}
        return [found[ranks] for ranks in sorted(found, key=int)]

    def run(self, ranks: int, smallest: int) -> str:
        """Make a run, write its row and draw the table; return what it came to.

        Raises:
            RuntimeError: it failed; with the end of its log.
        """
        out = RUNS / f"{ranks:04d}-{stamp()}"
        line, log = command(ranks, self.setting, out), ROOT / out.with_name(out.name + ".log")
        code = code_key()
        with circumstances() as around:
            launch(line, log, float(self.setting.seconds) + PATIENCE_S)
        base = next((row for row in self.rows(code) if int(row["ranks"]) == smallest), None)
        row = key_of(ranks, self.setting, code) | row_of(ranks, base if ranks != smallest else None, out)
        row |= around | {"about": about_machine(), "command": portable(line)}
        add_row(self.csv, COLUMNS, row)
        self.draw(code)
        return (
            f"{row['frames_per_s']} frames/s, efficiency {row['efficiency']}, simulated {row['simulated'] or '–'}, "
            f"lag {row['lag']}, learner idle {float(row['learner_idle']):.0%}"
        )

    def draw(self, code: str) -> None:
        """Draw table and picture of this code's rows."""
        rows = self.rows(code)
        if not rows:
            return
        header = ("ranks", *NUMBERS, *SHARES, "load", "others", "date")
        lines = ["# Weak scaling with sleeping environments", "", LEGEND, ""]
        lines += [f"{self.setting.machine}; {rows[-1]['about']}; {self.setting.sleep_ms} ms a step, code {code}.", ""]
        lines += markdown_table(header, ([row[column] for column in header] for row in rows))
        if _picture(self.csv.with_suffix(".png"), rows):
            lines += ["", "![Frames/s, lag and the learner's idle share](scaling.png)"]
        self.csv.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _picture(path: Path, rows: Sequence[Row]) -> bool:
    """Draw the rows; return False if matplotlib isn't there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    ranks = [int(row["ranks"]) for row in rows]
    rates = [float(row["frames_per_s"]) for row in rows]
    figure = Figure(figsize=(8, 8), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    upper.plot(ranks, rates, "o-", label="measured")
    upper.plot(ranks, [rates[0] * (n - 1) / (ranks[0] - 1) for n in ranks], ":", label="in proportion to the actors")
    guessed = [(n, float(row["simulated"].split()[0])) for n, row in zip(ranks, rows, strict=True) if row["simulated"]]
    if guessed:
        upper.plot(*zip(*guessed, strict=True), "x--", label="simulated from the fewest ranks")
    upper.set(ylabel="frames/s", xscale="log", yscale="log")
    lower.plot(ranks, [float(row["learner_idle"]) for row in rows], "o-", label="learner's idle share")
    lower.plot(ranks, [float(row["efficiency"]) for row in rows], "o-", label="efficiency")
    lower.set(xlabel="ranks", ylim=(0, 1.1))
    lower.set_xticks(ranks, [str(n) for n in ranks])
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
    return True


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("scaling", __doc__)
    parser.add_argument("--ranks", default="4,8,16,32,64", metavar="A,B", help="default: 4,8,16,32,64")
    parser.add_argument("--seconds", type=int, default=60, help="of each run (default: 60)")
    parser.add_argument("--sleep-ms", type=float, default=5.0, help="of each env step (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    given = parser.parse_args(arguments)
    try:
        given.ranks = sorted({int(part) for part in given.ranks.split(",")})
    except ValueError:
        parser.error(f"--ranks {given.ranks}: not counts with commas between them")
    if given.ranks[0] < 2:
        parser.error(f"--ranks {given.ranks[0]}: the table is of a learner and its actors; start 2 or more")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    given = options(arguments)
    setting = Setting(machine(), f"{given.sleep_ms:g}", str(given.seconds), str(given.seed))
    bench, code = Bench(setting, given.into), committed()
    keys = {ranks: key_of(ranks, setting, code) for ranks in given.ranks}
    wanted = absent(read_rows(bench.csv), keys, given.dirty)
    tasks = [Task(f"{ranks} ranks", given.seconds, partial(bench.run, ranks, given.ranks[0])) for ranks in wanted]
    if (exit_code := settled(given, len(keys), [task.name for task in tasks], tasks)) is not None:
        return exit_code
    exit_code = carry_out(tasks, given.dirty)
    bench.draw(code_key())
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
