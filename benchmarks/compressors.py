"""How fast compressed networks answer, beside the same network in its best float format.

    make bench-compressors                                        # every torso, compressor and batch; minutes
    make bench-compressors ARGS="--torso nature --batch 1 16"

On one core, with Pong's observations and actions. All compressors and all float formats of a torso take turns, and the
medians are compared: `real speed` is at least 10 % below the best float format (fp32, bf16 arithmetic or bf16 weights,
channels last or not), `simulated` computes something else in the place of what it stands for. Speed does not depend on
what a network has learned, so networks and observations are random; what compression does to the answers is for runs
to say. Rows go to compressors.csv as they are measured; rows of the same code (git's tree of hpcddrl/), machine and
setting are skipped. compressors.md is drawn from the rows.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from benchmarks.flow import Task, absent, carry_out, committed, parser_for, settled
from benchmarks.rows import Row, add_row, code_key, machine, markdown_table, read_rows
from hpcddrl.compressors.make import make_compressor, name_of
from hpcddrl.compressors.report import Report, report
from hpcddrl.config import compression

EXPECTED_S = 30.0  # for one torso and batch, until one was measured
KEY = ("code", "machine", "torso", "compressor", "batch")
MEASURED = (
    "latency_ms",
    "ratio",
    "verdict",
    "best_float",
    "best_float_ms",
    "bytes",
    "parameters",
    "macs",
    "binary_macs",
)
COLUMNS = (*KEY, *MEASURED, "repetitions", "load", "date")
SHOWN: tuple[str, ...] = (
    "compressor",
    "batch",
    "latency_ms",
    "best_float_ms",
    "best_float",
    "ratio",
    "verdict",
    "bytes",
    "macs",
)
SHOWN += ("binary_macs", "load", "code", "date")
LEGEND = """\
# Compressed networks on one core

`make bench-compressors` wrote this from compressors.csv. Latency is that of a batch of Pong's observations, the median
of interleaved repetitions; ratio is to the network's best float format in the same call. `real speed` is at most 0.90
of it, `not faster` is more, `simulated` computes with floats or zeros in the place of what it stands for. Bytes are
those published; MACs are multiply-accumulates an observation, binary MACs those of one bit. Load is the machine's load
average before: above the number of cores, latencies include waiting for one."""
ONCE = compression.Distillation(steps=1, batch_size=8)  # what is learned changes no speed
INT8 = compression.Int8(states=32)


def candidates() -> dict[str, compression.Candidate]:
    """Return what is measured, by name."""
    chosen: list[compression.Candidate] = [
        compression.Whole(),
        compression.Whole(format=compression.Cast(dtype="fp16")),
        compression.Whole(format=INT8),
        compression.Whole(format=compression.FixedPoint(states=32)),
        compression.Student(distillation=ONCE),
        compression.Student(distillation=ONCE, format=compression.Cast()),
        compression.Student(distillation=ONCE, format=INT8),
        compression.Channels(distillation=ONCE),
        compression.Channels(distillation=ONCE, format=INT8),
        compression.Magnitude(distillation=ONCE, rounds=1),
        compression.Binary(distillation=ONCE),
    ]
    return {name_of(candidate): candidate for candidate in chosen}


def measure(torso: str, names: Sequence[str], batch: int, repetitions: int) -> list[Report]:
    """Measure some compressors of a torso at one batch size, all in one call."""
    import torch

    from hpcddrl.compressors.compressed import Blueprint
    from hpcddrl.config import ActorCritic, Env, Network
    from hpcddrl.envs.make import probe

    torch.set_num_threads(1)
    spec = probe(Env())
    blueprint = Blueprint(Network(torso=torso), ActorCritic(), spec, seed=1)  # type: ignore[arg-type]
    teacher = blueprint.build()
    g = torch.Generator().manual_seed(0)
    states = torch.randint(0, 256, (max(batch, 32), *spec.observation_shape), dtype=torch.uint8, generator=g)
    compressors = {name: make_compressor(candidates()[name], blueprint) for name in names}
    for compressor in compressors.values():
        compressor.follow(teacher, states[:32])
    return report(compressors, blueprint, teacher, states, [batch], repetitions)


def row_of(key: Row, found: Report, repetitions: int, load: float) -> Row:
    """Return what a report says as a row."""
    latency = found.latencies[0]
    return key | {
        "latency_ms": f"{1e3 * latency.seconds:.3f}",
        "ratio": f"{latency.ratio:.2f}",
        "verdict": latency.verdict,
        "best_float": latency.best_float,
        "best_float_ms": f"{1e3 * latency.best_float_s:.3f}",
        "bytes": str(found.nbytes),
        "parameters": str(found.cost.parameters),
        "macs": str(found.cost.macs),
        "binary_macs": str(found.cost.binary_macs),
        "repetitions": str(repetitions),
        "load": f"{load:.1f}",
        "date": time.strftime("%Y-%m-%d"),
    }


def document(rows: Iterable[Row]) -> str:
    """Return the whole Markdown text: a section a machine and torso, each setting's newest row."""
    newest = {tuple(row[k] for k in KEY if k != "code"): row for row in rows}
    lines = LEGEND.splitlines()
    for host, torso in dict.fromkeys((row["machine"], row["torso"]) for row in newest.values()):
        section = [row for row in newest.values() if (row["machine"], row["torso"]) == (host, torso)]
        header = [column.replace("_", " ") for column in SHOWN]
        lines += ["", f"## {torso}, {host}", ""]
        lines += markdown_table(header, ([row[column] for column in SHOWN] for row in section))
    return "\n".join(lines) + "\n"


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("compressors", __doc__)
    torsos = ["nips", "nature", "resnet"]
    parser.add_argument("--torso", nargs="*", default=torsos, choices=torsos, help="networks (default: all)")
    parser.add_argument("--batch", nargs="*", type=int, default=[1, 16, 64], help="sizes (default: 1 16 64)")
    parser.add_argument("--compressor", nargs="*", default=list(candidates()), choices=list(candidates()), help="(all)")
    parser.add_argument("--repetitions", type=int, default=25, help="of each timing (default: 25)")
    given = parser.parse_args(arguments)
    if min([given.repetitions, *given.batch]) < 1:
        parser.error("--repetitions and --batch: 1 or more")
    return given


def measured(path: Path, torso: str, batch: int, names: Sequence[str], repetitions: int) -> str:
    """Measure the compressors of a torso at a batch size, write their rows and the table; return what came out."""
    load, code = os.getloadavg()[0], code_key()
    rows = []
    for name, one in zip(names, measure(torso, names, batch, repetitions), strict=True):
        key = dict(zip(KEY, (code, machine(), torso, name, str(batch)), strict=True))
        rows.append(row_of(key, one, repetitions, load))
        path.with_suffix(".md").write_text(document(add_row(path, COLUMNS, rows[-1])))
    return ", ".join(f"{row['compressor']} {row['latency_ms']} ms ({row['verdict']})" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write it down."""
    given, code, host = options(arguments), committed(), machine()
    path = given.into / "compressors.csv"
    wanted = [(torso, batch, name) for torso in given.torso for batch in given.batch for name in given.compressor]
    keys = {
        (torso, batch, name): dict(zip(KEY, (code, host, torso, name, str(batch)), strict=True))
        for torso, batch, name in wanted
    }
    missing = absent(read_rows(path), keys, given.dirty)
    tasks = []
    for (torso, batch), those in groupby(missing, key=lambda entry: entry[:2]):
        make = partial(measured, path, torso, batch, [name for *_, name in those], given.repetitions)
        tasks.append(Task(f"{torso}, batch {batch}", EXPECTED_S, make))
    names = [f"{torso} {name} at {batch}" for torso, batch, name in missing]
    if (exit_code := settled(given, len(keys), names, tasks)) is not None:
        return exit_code
    return carry_out(tasks, given.dirty)


if __name__ == "__main__":
    sys.exit(main())
