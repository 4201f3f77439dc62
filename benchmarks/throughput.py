"""How fast a job runs on this machine, beside how fast its parts could be.

    make bench                                              # all cores, Pong
    make bench ARGS="--torso nature resnet --seconds 120"
    make bench ARGS=--missing                               # what there is no row for

Three rates are measured alone, each with one single-threaded process a core: stepping environments, inference, and
training (forward, backward, optimizer). If every core only ever did useful work, a job that does all three once for
each env step would reach 1 / (1/env + 1/infer + 1/train): the bound. Then `impala` runs on all cores and is set beside
it. A second table runs it with 1, 2, … actors and a network so small that the learner waits for them.

A row is written as each run ends; rows of the same code (git's tree of hpcddrl/), machine and configuration are
skipped, so the tables can grow over several days. throughput.md is drawn from throughput.csv and actors.csv.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.flow import committed, parser_for
from benchmarks.page import Page, Table, fill, measured_run
from benchmarks.parts import PARTS, bound, on_cores
from benchmarks.rows import Row, machine
from benchmarks.steady import phases, rate, shares
from hpcddrl.logs.measured import Measured, read_measured
from hpcddrl.logs.timing import Phase
from hpcddrl.recipes.impala import impala

ALONE_S = 5.0  # for each part
AUTO = {"topology.split": "auto", "update.overlap": "true"}
STEPS = [impala().algorithm.unroll_length, 20]  # the recipe's, for learning soon, and enough for the most samples
SPLITS = {"given": {}, "auto": AUTO | {"update.backend": "mpi"}, "auto, Horovod": AUTO}
LEGEND = """\
`make bench` wrote this. The bound is 1 / (1/env + 1/infer + 1/train): every core busy with useful work. Frames are
four times env steps. Rates and shares are of the time after the first updates. Phases: share of the wall time of a
role's ranks, the mean and, in brackets, the range over the ranks. Load is the machine's load average as a run started,
others the cores that other processes kept busy meanwhile. The commands are in the CSV files."""


def against_bound(key: Row) -> Row:
    """Measure the parts alone, before the job and after it, and the job beside them."""
    ranks = int(key["ranks"])
    settings = _settings(key) | SPLITS[key["split"]]
    before = _alone(key)
    measured, around = run_impala(ranks, key["env"], int(key["seconds"]), settings)
    parts = {part: (before[part] + rate) / 2 for part, rate in _alone(key).items()}
    trained, most = rate(measured, "trained"), bound(parts)
    row = {f"{part}_per_s": f"{rate:.0f}" for part, rate in parts.items()}
    row |= {"bound": f"{most:.0f}", "trained_per_s": f"{trained:.0f}", "of_bound": f"{trained / most:.2f}"}
    learners = [m for m in measured if m.role == "learner"]
    row |= {"learners": str(len(learners)), "lag": f"{np.mean([m.lag for m in learners]):.1f}"}
    return row | {role: phases(measured, role) for role in ("learner", "actor")} | around


def _settings(key: Row) -> dict[str, str]:
    """Return what the job is set to by what its row and the parts have in common."""
    common = {"network.torso": "torso", "precision": "precision", "algorithm.unroll_length": "steps"}
    return {setting: key[name] for setting, name in common.items()}


def _alone(key: Row) -> dict[str, float]:
    """Return the samples/s of each part on as many cores as the job has ranks."""
    return {part: on_cores(part, *_of_parts(key), int(key["ranks"]), ALONE_S) for part in PARTS}


def _of_parts(key: Row) -> tuple[str, str, str, int]:
    return key["env"], key["torso"], key["precision"], int(key["steps"])


def by_actors(key: Row) -> Row:
    """Run so many actors and a learner with little to do, each with one core."""
    ranks = int(key["actors"]) + 1
    settings = {"network.torso": "nips", "network.width": key["width"], "algorithm.unroll_length": key["steps"]}
    measured, around = run_impala(ranks, key["env"], int(key["seconds"]), settings, ranks)
    steps = rate(measured, "env_steps")
    row = {"steps_per_s": f"{steps:.0f}", "an_actor": f"{steps / int(key['actors']):.0f}"}
    waits = {f"{role}_waits": shares(measured, role)[Phase.WAIT].mean() for role in ("learner", "actor")}
    return row | {name: f"{share:.2f}" for name, share in waits.items()} | around


def by_device(key: Row) -> Row:
    """Measure one process's inference and training on a device, and the job whose learner computes there."""
    infer, train = (on_cores(part, *_of_parts(key), 1, ALONE_S, key["device"]) for part in ("infer", "train"))
    settings = _settings(key) | {"device.learner": key["device"]}
    measured, around = run_impala(int(key["ranks"]), key["env"], int(key["seconds"]), settings)
    (learner,) = [m for m in measured if m.role == "learner"]
    row = {"infer_per_s": f"{infer:.0f}", "train_per_s": f"{train:.0f}"}
    row |= {"trained_per_s": f"{rate(measured, 'trained'):.0f}", "lag": f"{learner.lag:.1f}"}
    return row | {role: phases(measured, role) for role in ("learner", "actor")} | around


COMMON = ("code", "machine", "env", "seconds")
TABLES = (
    Table(
        "throughput",
        (*COMMON, "torso", "precision", "steps", "ranks", "split"),
        (
            *(f"{part}_per_s" for part in PARTS),
            *("bound", "trained_per_s", "of_bound", "learners", "lag", "learner", "actor"),
        ),
        "## Beside the bound\n\nTrained env steps per second; env, infer and train are the parts alone, on all cores, "
        "before and after\nthe job (the mean). Steps: of each of a rank's 16 environments in a batch. Split: one "
        "learner and its actors\n(given), or as the job times them, with update.overlap=true (auto), averaging by "
        "mpi4py or by Horovod.",
        against_bound,
    ),
    Table(
        "actors",
        (*COMMON, "width", "steps", "actors"),
        ("steps_per_s", "an_actor", "learner_waits", "actor_waits"),
        "## By actors\n\nThe nips network at that width, on as many cores as there are ranks. Env steps per second, of "
        "all and of\none actor; waits are shares of wall time. Efficiency is an_actor over that of the row with one.",
        by_actors,
    ),
    Table(
        "devices",
        (*COMMON, "torso", "precision", "steps", "ranks", "device"),
        ("infer_per_s", "train_per_s", "trained_per_s", "lag", "learner", "actor"),
        "## By device\n\nThe learner on cores and on a GPU; made where torch sees a GPU. infer and train are one "
        "process with one\nthread alone, the way of observations to the device included; trained is the job.",
        by_device,
    ),
)


PAGE = Page("throughput", "Throughput on one machine", LEGEND, TABLES)


def run_impala(
    ranks: int, env: str, seconds: int, settings: dict[str, str], cores: int | None = None
) -> tuple[tuple[Measured, ...], Row]:
    """Run the recipe, on so many cores; return what its ranks did, and under which circumstances it ran."""
    return measured_run("throughput", ranks, "impala", env, seconds, settings, read_measured, cores)


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    cores = len(os.sched_getaffinity(0))
    parser = parser_for("throughput", __doc__)
    parser.add_argument("--env", default="ALE/Pong-v5", help="default: ALE/Pong-v5")
    parser.add_argument("--torso", nargs="*", default=["nature"], help="networks: nature nips resnet (default: nature)")
    parser.add_argument("--precision", nargs="*", default=["auto", "fp32"], help="default: auto fp32")
    parser.add_argument("--steps", nargs="*", type=int, default=STEPS, help=f"in a batch (default: {STEPS})")
    parser.add_argument("--device", nargs="*", default=_devices(), help="cpu cuda (default: both, if there is a GPU)")
    parser.add_argument("--split", nargs="*", choices=SPLITS, default=[*SPLITS], help="of ranks (default: all)")
    parser.add_argument("--width", default="0.25", help="of the network in the table by actors (default: 0.25)")
    parser.add_argument("--seconds", type=int, default=60, help="of each run (default: 60)")
    parser.add_argument("--ranks", type=int, default=cores, help="default: one a core")
    given = parser.parse_args(arguments)
    if given.ranks < 2:
        parser.error(f"--ranks {given.ranks}: the tables are of a learner and its actors; start 2 or more")
    return given


def wanted(given: argparse.Namespace, code: str) -> list[tuple[Table, Row]]:
    """Return the key of every row that there should be."""
    common = {"code": code, "machine": machine(), "env": given.env, "seconds": str(given.seconds)}
    bounds, actors, devices = TABLES
    networks = [
        common | {"torso": torso, "precision": precision, "steps": str(steps), "ranks": str(given.ranks)}
        for torso in given.torso
        for precision in given.precision
        for steps in given.steps
    ]
    found = [(bounds, network | {"split": split}) for network in networks for split in given.split]
    alike = common | {"width": given.width, "steps": str(max(given.steps))}  # long rollouts leave the learner idle
    found += [(actors, alike | {"actors": str(n)}) for n in range(1, given.ranks)]
    return found + [(devices, network | {"device": device}) for network in networks for device in given.device]


def _devices() -> list[str]:
    """Return the devices to be compared: none where there is nothing to compare."""
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write it down."""
    given = options(arguments)
    return fill(
        PAGE, given, wanted(given, committed()), ("torso", "precision", "steps", "split", "width", "actors", "device")
    )


if __name__ == "__main__":
    sys.exit(main())
