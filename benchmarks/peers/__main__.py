"""Sample Factory, Stable-Baselines3 and `impala` in turn on this machine: the same game, network and cores.

    make bench-peers                                   # 40 s a run, on all cores
    make bench-peers ARGS=--missing                    # what there is no row for
    make bench-peers ARGS="--peers sample-factory --seconds 120"

The peers are installed from PyPI, pinned, in an environment of their own each (.venv-peers-NAME), with the torch build
that this program has. A row is written to peers.csv as each run ends; rows of the same configuration, machine and
version (ours: git's tree of hpcddrl/) are skipped, so the table can grow over several days. peers.md is drawn from
them. One of our runs is made before each of a peer's, so that both meet the machine in the same state.

Exit codes: 0 done, 1 a run failed (the others went on), 2 refused.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.flow import FAILED, REFUSED, Task, absent, carry_out, committed, parser_for, settled
from benchmarks.jobs import PATIENCE_S, busy_s, portable, said, stamp, today
from benchmarks.peers.configurations import OURS, Setting, Turn, command, turns
from benchmarks.peers.installs import PEERS, install, torch_here, versions, versions_of
from benchmarks.peers.table import HEADER, document
from benchmarks.peers.watch import Used, watch
from benchmarks.rows import CHANGED, ROOT, Row, add_row, code_key, machine, read_rows
from benchmarks.steady import rate
from hpcddrl.logs.measured import read_measured

RUNS = Path("runs/bench-peers")  # below ROOT, where every command runs
KEY = ("system", "configuration", "options", "turn", *Setting._fields, "code")
COLUMNS = (*KEY, *(column for column in HEADER if column not in KEY), "trained", "trained_s", "command")
START_AND_END_S = 20.0  # what a run takes beside its seconds, until one was measured
FRAMES = 4  # emulator frames an env step


def key_of(turn: Turn, setting: Setting, code: str) -> Row:
    """Return what tells a row from others; ``code`` is that of hpcddrl/, a peer's is its version."""
    what = turn.configuration
    named = {"system": what.system, "configuration": what.name, "options": shlex.join(what.options)}
    version = code if what.system == OURS else PEERS[what.system].version
    return {**named, "turn": str(turn.number), **setting._asdict(), "code": version}


def keys_of(order: Sequence[Turn], setting: Setting, code: str) -> dict[Turn, Row]:
    """Return what tells each turn's row from others."""
    return {turn: key_of(turn, setting, code) for turn in order}


def rates(system: str, told: Path) -> Row:
    """Read what a run told once it was going: a run's directory (ours) or a peer's report."""
    if system == OURS:
        measured = read_measured(told)
        seconds = measured[0].wall_s
        trained, stepped = (rate(measured, count) * seconds for count in ("trained", "env_steps"))
        updates = max(m.counts["updates"] for m in measured)
    else:
        read = json.loads(told.read_text())
        trained, seconds, updates = read["trained"], read["seconds"], read["updates"]
        stepped = trained
    counts = {"trained": f"{trained:.0f}", "trained_s": f"{seconds:.1f}", "updates": f"{updates:.0f}"}
    return counts | {"trained_per_s": f"{trained / seconds:.0f}", "frames_per_s": f"{FRAMES * stepped / seconds:.0f}"}


def make_run(turn: Turn, setting: Setting) -> Row:
    """Make one run and return its row, but for its code.

    Raises:
        RuntimeError: it failed; with the end of its log.
    """
    system = turn.configuration.system
    out = RUNS / f"{system}-{stamp()}"
    told = out if system == OURS else out.with_suffix(".json")
    line = command(turn.configuration, setting, told)
    log, load, before = ROOT / out.with_suffix(".log"), os.getloadavg()[0], busy_s()[0]
    used = watch(line, log, int(setting.seconds) + PATIENCE_S)
    others = max(0.0, busy_s()[0] - before - used.cpu_s) / used.wall_s
    if not used.ended_well:
        raise RuntimeError(said(log))
    return rates(system, ROOT / told) | {
        **_of_machine(used, load, others),
        "versions": versions(None, ("mpi4py",)) if system == OURS else versions_of(PEERS[system]),
        "command": portable(line),
        "date": today(),
    }


def _of_machine(used: Used, load: float, others: float) -> Row:
    return {
        "peak_mib": f"{used.peak_bytes / 2**20:.0f}",
        "cores_used": f"{used.cpu_s / used.wall_s:.1f}",
        "load": f"{load:.1f}",
        "others": f"{others:.1f}",
    }


def run(turn: Turn, setting: Setting, folder: Path) -> str:
    """Make a run, write its row and draw the table; return what it came to.

    Raises:
        RuntimeError: it failed; with the end of its log.
    """
    code = code_key()
    row = key_of(turn, setting, code) | make_run(turn, setting)
    if turn.configuration.system == OURS and code_key() != code and not code.endswith(CHANGED):
        row["code"] += CHANGED
    add_row(folder / "peers.csv", COLUMNS, row)
    draw(folder, setting)
    return f"{row['trained_per_s']} trained/s, {row['peak_mib']} MiB, {row['cores_used']} cores"


def tasks_of(todo: Sequence[Turn], setting: Setting, folder: Path) -> list[Task]:
    """Return the runs as tasks."""
    seconds = int(setting.seconds) + START_AND_END_S
    return [Task(_said(turn), seconds, partial(run, turn, setting, folder)) for turn in todo]


def _said(turn: Turn) -> str:
    return f"{turn.configuration.system}, {turn.configuration.name}, turn {turn.number}"


def draw(folder: Path, setting: Setting) -> None:
    """Draw the table anew."""
    codes = [code_key(), *(peer.version for peer in PEERS.values())]
    (folder / "peers.md").write_text(document(read_rows(folder / "peers.csv"), setting, codes))


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("peers", __doc__)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--peers", default=",".join(PEERS), metavar="A,B", help="default: all")
    parser.add_argument("--seconds", type=int, default=40, help="of each run (default: 40)")
    parser.add_argument("--env", default="ALE/Pong-v5", help="default: ALE/Pong-v5")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--torch", default="", help="what pip installs as torch for the peers (default: as here)")
    parser.add_argument("--torch-index", default="", metavar="URL", help="package index to find it in")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    given = parser.parse_args(arguments)
    given.cores = cores
    given.peers = [name for name in given.peers.split(",") if name]
    if unknown := [name for name in given.peers if name not in PEERS]:
        parser.error(f"--peers: no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if given.seconds < 1:
        parser.error(f"--seconds {given.seconds}: a run takes 1 or more")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    given = options(arguments)
    setting = Setting(machine(), given.env, str(given.cores), str(given.seconds), str(given.seed))
    keys = keys_of(turns(given.peers, given.cores), setting, committed())
    todo = absent(read_rows(given.into / "peers.csv"), keys, given.dirty)
    if given.dry_run:
        for turn in todo:
            out = RUNS / "RUN" if turn.configuration.system == OURS else RUNS / "RUN.json"
            print(portable(command(turn.configuration, setting, out)))
        return 0
    print(setting)
    tasks = tasks_of(todo, setting, given.into)
    if (exit_code := settled(given, len(keys), [task.name for task in tasks], tasks)) is not None:
        return exit_code
    if shutil.which("mpirun") is None:
        print("no mpirun on PATH: . .venv/bin/activate", file=sys.stderr)
        return REFUSED
    try:
        for name in given.peers:
            install(PEERS[name], given.torch or torch_here(), given.torch_index)
    except subprocess.CalledProcessError as failure:
        print(f"not installed, the reason is above: {shlex.join(failure.cmd)}", file=sys.stderr)
        return FAILED
    exit_code = carry_out(tasks, given.dirty)
    draw(given.into, setting)
    print(f"open {given.into / 'peers.md'}")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
