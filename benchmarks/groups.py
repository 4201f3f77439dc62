"""Many groups of one rank with environments that sleep: what exchanging models costs each learner, and sends.

    make bench-groups                                    # 8 ranks and 64 on this machine, 120 s a topology
    make bench-groups ARGS="--groups 16 --topology ring --seconds 60"
    make bench-groups ARGS=--missing                     # what there is no row for

Each learner steps one environment that sleeps 5 ms a step and shows what Atari shows (84 × 84 uint8, stacks of 4), with
the nips network at a quarter of its width, so that many ranks need few processors. A row is written to groups.csv as
each run ends; rows of the same code (git's tree of hpcddrl/), machine and settings are skipped. groups.md is drawn from
the rows.

Exit codes: 0 done, 1 a run failed (the others went on), 2 refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.flow import committed, parser_for
from benchmarks.page import Page, Table, fill, measured_run
from benchmarks.rows import Row, machine
from benchmarks.steady import phases, shares
from hpcddrl.config import Ensemble
from hpcddrl.logs.measured import Measured, read_measured
from hpcddrl.logs.timing import Phase
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.checks import checked, fitted
from hpcddrl.runtime.plan import flows, job_of, updates_per_s
from hpcddrl.settings import override
from hpcddrl.types import Array

RECIPE, ENV, EXCHANGED = "group_ensemble", "hpcddrl/Sleep-v0", "exchange"
TOPOLOGIES = ("random_pairs", "ring")
LIMIT = 0.05  # of a learner's time, that exchange may take
LEGEND = """\
`make bench-groups` drew this from groups.csv, which has every row's exact command. Each rank is a group of its own: a
learner that steps one sleeping environment. Exchange and peers are the shares of wall time of posting and taking
weights, and of the forward passes of the peers' networks (at most so many peers asked a batch): the mean over the
learners and, in brackets, the greatest; `over` says how many learners' exchange took 5 % or more. Messages are those
that one learner sends in a round of exchanges, and bytes are of one message, each beside what `python -m hpcddrl plan`
says of the topology; messages passed over because a peer had not taken the one before make the first less, and the 64
bytes that each learner sends to every other at the end make it more, which with 64 groups and random pairs are as many
as the weights of all rounds. Rates are of the intervals after the start. Load is the machine's load average as a run
started, others the cores that other processes kept busy meanwhile."""


class Sent(NamedTuple):
    """What one learner sends in a round of exchanges."""

    messages: float
    nbytes: float  # of one of them


def settings_of(key: Row) -> dict[str, object]:
    """Return the settings of a row's run."""
    return {
        "topology.groups": key["groups"],
        "topology.learners_per_group": 1,
        "topology.actors_per_group": 0,
        "coupling.topology": key["topology"],
        "coupling.max_peers": key["max_peers"],
        "env.num_envs": 1,
        "env.frame_stack": 4,
        "env.options.sleep_s": float(key["sleep_ms"]) / 1000,
        "network.torso": "nips",
        "network.width": 0.25,
        "logging.interval_s": min(5.0, float(key["seconds"]) / 12),
    }


def exchange_every(settings: Mapping[str, object]) -> int:
    """Return the updates between two exchanges."""
    coupling = override(RECIPES[RECIPE](), [f"{name}={value}" for name, value in settings.items()]).coupling
    assert isinstance(coupling, Ensemble)
    return coupling.exchange_every


def planned(key: Row) -> Sent:
    """Return what the topology says."""
    settings = settings_of(key)
    lines = [f"env.id={ENV}", *(f"{name}={value}" for name, value in settings.items())]
    config = fitted(override(RECIPES[RECIPE](), lines), int(key["groups"]))
    job = job_of(config, checked(config))
    rounds = updates_per_s(job, 1.0) / exchange_every(settings)
    (flow,) = [flow for flow in flows(job, 1.0) if flow.kind == EXCHANGED]
    return Sent(flow.messages_per_s / int(key["groups"]) / rounds, flow.nbytes)


def sent(measured: Sequence[Measured], every: int) -> Sent:
    """Return what the learners sent, the mean over them."""
    messages = sum(m.messages.get(EXCHANGED, 0.0) for m in measured)
    rounds = sum(m.counts["updates"] for m in measured) / every
    nbytes = sum(m.nbytes.get(EXCHANGED, 0.0) for m in measured)
    return Sent(messages / rounds, nbytes / messages if messages else 0.0)


def values_of(measured: Sequence[Measured], plan: Sent, every: int) -> Row:
    """Return what a row says of a run."""
    of_phase, found = shares(measured, "learner"), sent(measured, every)
    row = {name: _with_greatest(of_phase[phase]) for name, phase in COSTS.items()}
    seconds = sum(m.wall_s for m in measured)
    row |= {
        "over": f"{(of_phase[Phase.EXCHANGE] >= LIMIT).sum()} of {len(measured)}",
        "messages": f"{found.messages:.3f} ({plan.messages:.3f})",
        "bytes": f"{found.nbytes:.0f} ({plan.nbytes:.0f})",
        "kb_per_s": f"{sum(m.nbytes.get(EXCHANGED, 0.0) for m in measured) / seconds / 1e3:.2f}",
        "updates_per_s": f"{sum(m.counts['updates'] for m in measured) / seconds:.2f}",
        "learner": phases(measured, "learner"),
    }
    return row


def _with_greatest(share: Array) -> str:
    return f"{share.mean():.2%} ({share.max():.2%})"


def measure(key: Row) -> Row:
    """Run a topology and measure what it cost."""
    settings = settings_of(key)
    ranks, seconds = int(key["groups"]), float(key["seconds"])
    measured, around = measured_run("groups", ranks, RECIPE, ENV, seconds, settings, read_measured)
    return values_of(measured, planned(key), exchange_every(settings)) | around


COSTS = {"exchange": Phase.EXCHANGE, "peers": Phase.PEERS}
TABLE = Table(
    "groups",
    ("code", "machine", "seconds", "sleep_ms", "max_peers", "groups", "topology"),
    (*COSTS, "over", "messages", "bytes", "kb_per_s", "updates_per_s", "learner"),
    "## By topology",
    measure,
)
PAGE = Page("groups", "Many groups of one rank", LEGEND, (TABLE,))


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("groups", __doc__)
    parser.add_argument("--groups", default="8,64", metavar="A,B", help="default: 8,64")
    parser.add_argument("--topology", nargs="*", default=list(TOPOLOGIES), help=f"default: {' '.join(TOPOLOGIES)}")
    parser.add_argument("--max-peers", type=int, default=2, help="that a learner asks about a batch (default: 2)")
    parser.add_argument("--seconds", type=float, default=120, help="of each run (default: 120)")
    parser.add_argument("--sleep-ms", type=float, default=5.0, help="of each env step (default: 5)")
    given = parser.parse_args(arguments)
    try:
        given.groups = sorted({int(part) for part in given.groups.split(",")})
    except ValueError:
        parser.error(f"--groups {given.groups}: not counts with commas between them")
    if given.groups[0] < 2:
        parser.error(f"--groups {given.groups[0]}: one group has nobody to exchange with; start 2 or more")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    given = options(arguments)
    common = {"code": committed(), "machine": machine(), "seconds": f"{given.seconds:g}"}
    common |= {"sleep_ms": f"{given.sleep_ms:g}", "max_peers": str(given.max_peers)}
    keys = [common | {"groups": str(n), "topology": topology} for n in given.groups for topology in given.topology]
    return fill(PAGE, given, [(TABLE, key) for key in keys], ("groups", "topology"))


if __name__ == "__main__":
    sys.exit(main())
