"""The group ensemble beside its rivals: eight groups of a learner and an actor, over seeds on quick games, and Pong.

    make bench-ensemble                                      # hours; what has a row is not run again
    make bench-ensemble ARGS="--games Catch --seeds 1,2"
    make bench-ensemble ARGS=--missing                       # what there is no row for

No exchange at all, exchange with distillation from the ensemble, weights averaged (MA), turns of learning alone and
from the ensemble (EC-DNN), and the best group teaching the others. Pong is played once with and once without exchange.
After each run its groups are played greedily, and so are their ensemble and one network that has learned from it. What
exchange was to reach stands beside what it did.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.arms.harness import main as run
from benchmarks.arms.scoring import GROUPS
from benchmarks.arms.sections import Section
from benchmarks.arms.study import Arm, Game, Study
from benchmarks.arms.tables import Passage, above_twins, passage, written
from benchmarks.rows import Row, markdown_table
from hpcddrl.figures.statistics import compared

EIGHT = ("topology.groups=8", "topology.learners_per_group=1", "topology.actors_per_group=1")
AIM = 0.75  # of the frames that groups need alone, or less
UNKNOWN = "cannot be said"
CLIPPED = ("env.reward=clip",)  # the best group is told by returns as they are learned from: one scale for all groups

TEXT = """\
Eight groups of one learner and one actor on 16 ranks, alike but for what groups tell each other. `alone`: nothing;
`exchange`: weights, and each group also learns from the mixture of all policies; `averaging`: weights, and all go on
from their mean (MA); `ec-dnn`: the mixture, all alike in it, counts for some updates after each exchange only; `best
to others`: the mixture is the group with the greatest return; `exchange T=1`: as the proposal has it (`exchange` has
0.1). Rewards are clipped to [-1, 1] everywhere."""


def arm(name: str, *settings: str) -> Arm:
    """Return eight groups of two ranks."""
    return Arm(name, "group_ensemble", 16, (*EIGHT, *settings), against="" if name == "alone" else "alone")


def aims(study: Study, section: Section) -> list[str]:
    """Return the table of what exchange was to do for groups that are alone without, and whether it did."""
    exchange, alone = (section.rows.get(name, []) for name in ("exchange", "alone"))
    lines = [["every group ends above its own twin", *_all_above(exchange, alone)]]
    for target in section.game.targets:
        took = [passage(rows, target, "frames") for rows in (exchange, alone)]
        lines.append([f"{1 - AIM:.0%} fewer frames to a return of {target:g}", *_fewer(*took)])
    known = [line for line in lines if line[1]]
    return markdown_table(["aim of exchange", "found", "reached"], known) if known else []


def _all_above(exchange: Sequence[Row], alone: Sequence[Row]) -> tuple[str, str]:
    above = above_twins(exchange, alone)
    if not above:
        return "", ""
    every = np.concatenate(above)
    return f"{every.sum()} of {len(every)}", "yes" if every.all() else "no"


def _fewer(exchange: Passage, alone: Passage) -> tuple[str, str]:
    """Return the ratio of the frames to a target, and whether its interval lies on one side of the aim."""
    if not (len(exchange.took) and len(alone.took)):
        return "", ""
    if not (exchange.all_there and alone.all_there):
        with_it, without = (f"{one.there} of {len(one.took)}" for one in (exchange, alone))
        return f"{with_it} seeds got there, {without} alone", UNKNOWN
    ratio = compared([exchange.took], [alone.took], np.divide)
    verdict = "yes" if ratio.high <= AIM else "no" if ratio.low > AIM else UNKNOWN
    return f"{written(ratio, '{:.2f}'.format)} of those alone", verdict


ARMS = (
    arm("alone", "coupling=uncoupled"),
    arm("exchange"),
    arm("averaging", "coupling=averaging"),
    arm("ec-dnn", "coupling.schedule=cyclic", "coupling.mixing=uniform"),
    arm("best to others", "coupling.mixing=best_group"),
    arm("exchange T=1", "coupling.mixing.temperature=1"),
)
STUDY = Study(
    name="ensemble",
    title="The group ensemble and its rivals",
    text=TEXT,
    arms=ARMS,
    games=(
        Game("Catch", "hpcddrl/Catch-v0", 60, (0.0, 0.5), (-0.85, 1.0), settings=CLIPPED),
        Game(
            "MinAtar Breakout",
            "minatar.gym:BaseEnv",
            60,
            (1.0, 3.0),
            (0.5, 10.0),
            settings=("env.options.game=breakout", *CLIPPED),
            arms=tuple(arm.name for arm in ARMS[:-1]),
            needs="minatar",
        ),
        Game(
            "Pong",
            "ALE/Pong-v5",
            1200,
            (-18.0, 0.0, 18.0),
            (-21.0, 21.0),
            seeds=(1,),
            settings=CLIPPED,
            arms=("alone", "exchange"),
            episodes=8,
        ),
    ),
    helpers=("peers", "exchange"),
    scoring=GROUPS,
    tables=(aims,),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    return run(STUDY, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
