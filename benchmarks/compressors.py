"""How fast compressed networks answer, beside the same network in its best float format.

    make bench-compressors                                        # every torso, compressor and batch; minutes
    make bench-compressors ARGS="--torso nature --batch 1 16"
    make bench-compressors ARGS="--torso --teacher runs/catch"    # what it has learned, instead of random networks

On one core. All compressors and all float formats of a torso take turns, and the medians are compared: `real speed` is
at least 10 % below the best float format (fp32, bf16 arithmetic or bf16 weights, channels last or not), `simulated`
computes something else in the place of what it stands for. Speed does not depend on what a network has learned: without
a teacher, networks and observations (of Pong's shape) are random, and nothing is said of the answers. A teacher is a
run, whose network is distilled on observations that it comes to; KL and agreement are on further ones. Rows go to
compressors.csv as they are measured; rows of the same code (git's tree of hpcddrl/), machine and setting are skipped.
compressors.md is drawn from the rows.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from itertools import groupby, islice, product
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.flow import Task, absent, carry_out, committed, parser_for, settled
from benchmarks.rows import ROOT, Row, add_row, code_key, machine, markdown_table, read_rows
from hpcddrl.compressors.compressed import Blueprint, Compressor
from hpcddrl.compressors.make import make_compressor, name_of
from hpcddrl.compressors.report import Report, report
from hpcddrl.config import ActorCritic, Env, Network, compression
from hpcddrl.envs import make as envs
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.rl.policies import policy_for
from hpcddrl.runtime.distillation import visited
from hpcddrl.runtime.export import groups_of
from hpcddrl.runtime.parts import blueprint_of

EXPECTED_S = 30.0  # for one torso and batch, until one was measured
LEARNING_S = 300.0  # more, for what is distilled
KEY = ("code", "machine", "env", "torso", "teacher", "compressor", "batch")
MEASURED = (
    "latency_ms",
    "ratio",
    "verdict",
    "best_float",
    "best_float_ms",
    "kl",
    "agreement",
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
    "kl",
    "agreement",
    "bytes",
    "macs",
)
SHOWN += ("binary_macs", "load", "code", "date")
LEGEND = """\
# Compressed networks on one core

`make bench-compressors` wrote this from compressors.csv. Latency is that of a batch of observations, the median of
interleaved repetitions; ratio is to the network's best float format in the same call. `real speed` is at most 0.90 of
it, `not faster` is more, `simulated` computes with floats or zeros in the place of what it stands for. KL(network ‖
compressed) in nats and the share of equal greedy actions are of networks that have learned, after {steps} steps of
distillation where there is one, on observations that it did not see. Bytes are those published; MACs are
multiply-accumulates an observation, binary MACs those of one bit. Load is the machine's load average before: above the
number of cores, latencies include waiting for one."""
ONCE = compression.Distillation(steps=1, batch_size=8)  # what is learned changes no speed
LONG = compression.Distillation(steps=300, batch_size=64)
BATCHES = 8  # of observations that a network comes to: a quarter judges, the others are distilled on
CALIBRATED = 32  # observations that ranges are chosen on
RANDOM_ENV = "ALE/Pong-v5"


class Subject(NamedTuple):
    """What is compressed: a run's network, or a random one."""

    env: str
    torso: str
    teacher: str = ""  # the run's directory

    @property
    def name(self) -> str:
        """Return what it is called in a line."""
        return f"{self.torso} of {self.teacher}" if self.teacher else self.torso


def candidates(distilled: compression.Distillation = ONCE) -> dict[str, compression.Candidate]:
    """Return what is measured, by name."""
    int8 = compression.Int8(states=CALIBRATED)
    chosen: list[compression.Candidate] = [
        compression.Whole(),
        compression.Whole(format=compression.Cast(dtype="fp16")),
        compression.Whole(format=int8),
        compression.Whole(format=compression.FixedPoint(states=CALIBRATED)),
        compression.Student(distillation=distilled),
        compression.Student(distillation=distilled, format=compression.Cast()),
        compression.Student(distillation=distilled, format=int8),
        compression.Channels(distillation=distilled),
        compression.Channels(distillation=distilled, format=int8),
        compression.Magnitude(distillation=distilled, rounds=1),
        compression.Binary(distillation=distilled),
    ]
    return {name_of(candidate): candidate for candidate in chosen}


class Followed(NamedTuple):
    """Compressors that have followed a network, and what they are judged by."""

    compressors: dict[str, Compressor]
    blueprint: Blueprint
    teacher: AnyNetwork
    judging: Tensor  # [N, *observation_shape]


@lru_cache(maxsize=1)  # for the next batch size
def followed(subject: Subject, names: tuple[str, ...]) -> Followed:
    """Make some compressors and let them follow the network."""
    torch.set_num_threads(1)
    blueprint, teacher, states = learned(subject.teacher) if subject.teacher else untrained(subject.torso)
    judging, seen = states[: len(states) // 4], states[len(states) // 4 :]
    chosen = candidates(LONG if subject.teacher else ONCE)
    compressors = {name: make_compressor(chosen[name], blueprint) for name in names}
    for compressor in compressors.values():
        compressor.follow(teacher, seen)
    return Followed(compressors, blueprint, teacher, judging)


def untrained(torso: str) -> tuple[Blueprint, AnyNetwork, Tensor]:
    """Return a random network with random observations [N, *observation_shape]."""
    spec = envs.probe(Env())
    blueprint = Blueprint(Network(torso=torso), ActorCritic(), spec, seed=1)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(0)
    states = torch.randint(0, 256, (4 * CALIBRATED, *spec.observation_shape), dtype=torch.uint8, generator=g)
    return blueprint, blueprint.build(), states


def learned(teacher: str) -> tuple[Blueprint, AnyNetwork, Tensor]:
    """Return a run's network with observations [N, *observation_shape] that it comes to, in no order."""
    run = RunDirectory(ROOT / teacher)
    config = run.config()
    spec = envs.probe(config.env)
    network = groups_of(run, spec)[0].network
    states = torch.cat(list(islice(visited(config, network, policy_for(spec.action), seed=0), BATCHES)))
    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(0))
    return blueprint_of(config, spec, seed=1), network.network, states[order]


def measure(subject: Subject, names: Sequence[str], batch: int, repetitions: int) -> list[Report]:
    """Measure some compressors of a network at one batch size, all in one call."""
    compressors, blueprint, teacher, judging = followed(subject, tuple(names))
    return report(compressors, blueprint, teacher, judging, [batch], repetitions)


def row_of(key: Row, found: Report, repetitions: int, load: float) -> Row:
    """Return what a report says as a row."""
    latency = found.latencies[0]
    return key | {
        "latency_ms": f"{1e3 * latency.seconds:.3f}",
        "ratio": f"{latency.ratio:.2f}",
        "verdict": latency.verdict,
        "best_float": latency.best_float,
        "best_float_ms": f"{1e3 * latency.best_float_s:.3f}",
        "kl": f"{found.kl:.2g}" if key["teacher"] else "",
        "agreement": f"{found.agreement:.3f}" if key["teacher"] else "",
        "bytes": str(found.nbytes),
        "parameters": str(found.cost.parameters),
        "macs": str(found.cost.macs),
        "binary_macs": str(found.cost.binary_macs),
        "repetitions": str(repetitions),
        "load": f"{load:.1f}",
        "date": time.strftime("%Y-%m-%d"),
    }


def document(rows: Iterable[Row]) -> str:
    """Return the whole Markdown text."""
    return "\n".join([*LEGEND.format(steps=LONG.steps).splitlines(), "", *tables(rows)]) + "\n"


def tables(rows: Iterable[Row]) -> list[str]:
    """Return the lines of a section a machine and network, each setting's newest row."""
    newest = {tuple(row[k] for k in KEY if k != "code"): row for row in rows}
    sections: dict[tuple[str, ...], list[Row]] = {}
    for row in newest.values():
        sections.setdefault(tuple(row[k] for k in ("machine", "env", "torso", "teacher")), []).append(row)
    lines: list[str] = []
    for (host, env, torso, teacher), section in sections.items():
        whose = f"learned in {teacher}" if teacher else "random"
        header = [column.replace("_", " ") for column in SHOWN]
        lines += [f"## {torso} for {env}, {whose}; {host}", ""]
        lines += [*markdown_table(header, ([row[column] for column in SHOWN] for row in section)), ""]
    return lines[:-1]


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("compressors", __doc__)
    torsos = ["nips", "nature", "resnet"]
    parser.add_argument("--torso", nargs="*", default=torsos, choices=torsos, help="networks (default: all)")
    parser.add_argument("--teacher", nargs="*", default=[], metavar="RUN", help="runs whose networks to compress")
    parser.add_argument("--batch", nargs="*", type=int, default=[1, 16, 64], help="sizes (default: 1 16 64)")
    parser.add_argument("--compressor", nargs="*", default=list(candidates()), choices=list(candidates()), help="(all)")
    parser.add_argument("--repetitions", type=int, default=25, help="of each timing (default: 25)")
    given = parser.parse_args(arguments)
    if min([given.repetitions, *given.batch]) < 1:
        parser.error("--repetitions and --batch: 1 or more")
    try:
        given.subjects = [Subject(RANDOM_ENV, torso) for torso in given.torso] + [*map(subject_of, given.teacher)]
    except ValueError as wrong:
        parser.error(f"--teacher: {wrong}")
    return given


def subject_of(run: str) -> Subject:
    """Return what is compressed of a run.

    Raises:
        ValueError: it is no run.
    """
    config = RunDirectory(ROOT / run).config()
    return Subject(config.env.id, config.network.torso, run)


def measured(path: Path, subject: Subject, batch: int, names: Sequence[str], repetitions: int) -> str:
    """Measure the compressors of a network at a batch size, write their rows and the table; return what came out."""
    load, code = os.getloadavg()[0], code_key()
    rows = []
    for name, one in zip(names, measure(subject, names, batch, repetitions), strict=True):
        rows.append(row_of(key_of(code, subject, name, batch), one, repetitions, load))
        path.with_suffix(".md").write_text(document(add_row(path, COLUMNS, rows[-1])))
    return ", ".join(f"{row['compressor']} {row['latency_ms']} ms ({row['verdict']})" for row in rows)


def key_of(code: str, subject: Subject, name: str, batch: int) -> Row:
    """Return what tells a row from others."""
    return dict(zip(KEY, (code, machine(), *subject, name, str(batch)), strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write it down."""
    given, code = options(arguments), committed()
    path = given.into / "compressors.csv"
    wanted = list(product(given.subjects, given.batch, given.compressor))
    keys = {(subject, batch, name): key_of(code, subject, name, batch) for subject, batch, name in wanted}
    missing = absent(read_rows(path), keys, given.dirty)
    tasks = []
    for (subject, batch), those in groupby(missing, key=lambda entry: entry[:2]):
        make = partial(measured, path, subject, batch, [name for *_, name in those], given.repetitions)
        seconds = EXPECTED_S + LEARNING_S * bool(subject.teacher and batch == given.batch[0])
        tasks.append(Task(f"{subject.name}, batch {batch}", seconds, make))
    names = [f"{subject.name} {name} at {batch}" for subject, batch, name in missing]
    if (exit_code := settled(given, len(keys), names, tasks)) is not None:
        return exit_code
    return carry_out(tasks, given.dirty)


if __name__ == "__main__":
    sys.exit(main())
