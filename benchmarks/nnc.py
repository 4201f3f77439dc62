"""Compressed actors beside the networks they follow: speed, time to the same return, and the returns, over seeds.

    make bench-nnc                                           # hours; what has a row is not run again
    make bench-nnc ARGS="--games 'Catch resnet' --seeds 1,2"
    make bench-nnc ARGS=--missing                            # what there is no row for

The large network alone, the small one alone, and the small one acting for the large one, with local actors (impala)
and with central inference (ga3c), where predictions take much of the time (resnet, or one environment an actor) and
where they take less (nature). Each gain stands beside what Amdahl's law allows. A further game has actors that stand
still for many updates, with each of the corrections.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from benchmarks.arms.harness import main as run
from benchmarks.arms.outcome import from_text
from benchmarks.arms.sections import Section
from benchmarks.arms.study import Arm, Game, Study
from benchmarks.arms.tables import numbers, written
from benchmarks.rows import Row, markdown_table
from hpcddrl.compressors.amdahl import gain
from hpcddrl.figures.statistics import compared
from hpcddrl.types import Array

TEXT = """\
`impala` and `ga3c` act with the network that they train. `small` trains and acts with the student's, half as wide.
`nnc` acts with the student and trains the other; `int8` is its student with 8-bit weights. The arms of the last game
are `impala` whose actors see new weights every 40 updates alone, with each correction. A learner and three actors each;
what acts for `ga3c` is on the learner's rank. All arms choose their precision by timing (`precision=auto`)."""
STILL = ("compression=whole", "compression.format=fp32", "compression.trigger.updates=40")
SAME = ("algorithm.correction=vtrace",)  # that of the recipes which act with what they train
FRAMEWORKS = ("impala", "ga3c")
CORRECTIONS = ("vtrace", "ratio", "eps", "none")
PAIRS = tuple(f"{name}{kind}" for name in FRAMEWORKS for kind in ("", " small", " nnc", " nnc int8"))


def arms_of(recipe: str) -> tuple[Arm, ...]:
    """Return a framework as it is, with the student's network alone, and with both."""
    return (
        Arm(recipe, recipe, 4),
        Arm(f"{recipe} small", recipe, 4, ("network.width=0.5",), against=recipe),
        Arm(f"{recipe} nnc", f"nnc_{recipe}", 4, SAME, against=recipe),
        Arm(f"{recipe} nnc int8", f"nnc_{recipe}", 4, (*SAME, "compression.format=int8"), against=recipe),
    )


def amdahl(study: Study, section: Section) -> list[str]:
    """Return the table of predictions/s beside what Amdahl's law says of the faster predictions."""
    lines = []
    for arm, other in study.compared:
        rows, plain = section.of(arm), section.of(other)
        if not (rows and plain and arm.recipe != other.recipe):
            continue
        share = float(np.mean(acting_shares(plain)))
        speed_up = float(np.mean(prediction_s(plain)) / np.mean(prediction_s(rows)))
        law, limit = gain(share, speed_up), gain(share, float("inf"))
        found = compared([numbers(rows, "predictions_per_s")], [numbers(plain, "predictions_per_s")], np.divide)
        reached = f"{(found.value - 1) / (law - 1):.0%}" if law > 1 else ""
        cells = [arm.name, other.name, f"{share:.0%}", *(f"{x:.2f}" for x in (speed_up, law, limit))]
        lines.append([*cells, written(found, "{:.2f}".format), reached])
    header = ["arm", "beside", "predictions' share", "speed-up of one", "factor by the law", "if they cost nothing"]
    return markdown_table([*header, "factor on predictions/s", "of the law's gain"], lines) if lines else []


def acting_shares(rows: Sequence[Row]) -> Array:
    """Return the share [seeds] of the acting ranks' time that predictions took: of the role with the most of them."""
    return np.array([acting / whole for acting, whole in map(_acting, rows)])


def prediction_s(rows: Sequence[Row]) -> Array:
    """Return what is in proportion to the seconds [seeds] that one prediction takes, the ranks being the same."""
    return acting_shares(rows) / numbers(rows, "predictions_per_s")


def _acting(row: Row) -> tuple[float, float]:
    """Return the seconds that a rank of the role that acts spent on it, and all of its seconds."""
    phases = from_text(row["phases"])
    acting = {name.partition(".")[0]: seconds for name, seconds in phases.items() if name.endswith(".act")}
    role = max(acting, key=lambda r: acting[r])
    return acting[role], sum(seconds for name, seconds in phases.items() if name.startswith(f"{role}."))


def catch(torso: str, seconds: float, *more: str, name: str = "", arms: tuple[str, ...] = PAIRS) -> Game:
    """Return Catch with a torso."""
    settings = (f"network.torso={torso}", *more)
    name = " ".join(filter(None, ("Catch", torso, name)))
    return Game(name, "hpcddrl/Catch-v0", seconds, (0.0, 0.8), (-0.85, 1.0), settings=settings, arms=arms)


STUDY = Study(
    name="nnc",
    title="Compressed actors",
    text=TEXT,
    arms=(
        *(arm for recipe in FRAMEWORKS for arm in arms_of(recipe)),
        Arm("still vtrace", "impala", 4, STILL),
        *(
            Arm(f"still {name}", "impala", 4, (*STILL, f"algorithm.correction={name}"), against="still vtrace")
            for name in CORRECTIONS[1:]
        ),
    ),
    games=(
        catch("nature", 150),
        catch("resnet", 240),
        catch("resnet", 240, "env.num_envs=1", name="one env an actor", arms=PAIRS[:4]),
        Game(
            "MinAtar Breakout resnet",
            "minatar.gym:BaseEnv",
            240,
            (2.0, 5.0),
            (0.5, 10.0),
            settings=("env.options.game=breakout", "network.torso=resnet"),
            arms=("impala", "impala small", "impala nnc"),
            needs="minatar",
        ),
        Game(
            "Pong nature",
            "ALE/Pong-v5",
            1200,
            (-18.0, 0.0, 18.0),
            (-21.0, 21.0),
            seeds=(1, 2),
            settings=("network.torso=nature",),
            arms=("impala", "impala nnc"),
        ),
        catch("nature", 120, name="still actors", arms=tuple(f"still {name}" for name in CORRECTIONS)),
    ),
    helpers=("compress", "publish"),
    tables=(amdahl,),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    return run(STUDY, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
