"""Compressed actors beside the networks they follow: speed, time to the same return, and the returns, over seeds.

    make bench-nnc                                           # hours; what has a row is not run again
    make bench-nnc ARGS="--games 'Catch resnet' --seeds 1,2"
    make bench-nnc ARGS=--missing                            # what there is no row for

The large network alone, the small one alone, and the small one acting for the large one, with local actors (impala)
and with central inference (ga3c), where predictions take much of the time (resnet, or one environment an actor) and
where they take less (nature). Each gain stands beside what Amdahl's law allows. A further game has actors that stand
still for many updates, with each of the corrections. At last all compressors are tried on what `impala` has learned of
Catch, with each torso: their rows go to compressors.csv, as those of `make bench-compressors`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import compressors
from benchmarks.arms.harness import draw, options
from benchmarks.arms.harness import main as run
from benchmarks.arms.outcome import from_text
from benchmarks.arms.sections import Section, sections_of
from benchmarks.arms.study import Arm, Game, Study
from benchmarks.arms.tables import difference, numbers, passage, written
from benchmarks.flow import DONE, REFUSED, committed
from benchmarks.rows import ROOT, Row, markdown_table, read_rows
from hpcddrl.compressors.amdahl import gain
from hpcddrl.figures.statistics import compared, estimated
from hpcddrl.types import Array

TEXT = """\
`impala` and `ga3c` act with the network that they train. `small` trains and acts with the student's, half as wide.
`nnc` acts with the student and trains the other; `int8` is its student with 8-bit weights. The arms of the last game
are `impala` whose actors see new weights every 40 updates alone, with each correction, for the same frames. A learner
and three actors each; what acts for `ga3c` is on the learner's rank. All arms choose their precision by timing
(`precision=auto`). What acts without compression has its weights in the format that is fastest for acting too, with
central inference as with local actors, so no gain is one that a better format alone would have brought."""
STILL = ("compression=whole", "compression.format=fp32", "compression.trigger.updates=40")
SAME = ("algorithm.correction=vtrace",)  # that of the recipes which act with what they train
FRAMEWORKS = ("impala", "ga3c")
TEACHERS = ("Catch nature", "Catch resnet")  # games
LEARNED_TEXT = """\
Each compressor on one core, with the network that a run of `impala` ended with, on observations that it comes to; KL
and agreement are on some that nothing was distilled or calibrated on."""
CORRECTIONS = ("vtrace", "ratio", "eps", "none")


def arms_of(recipe: str) -> tuple[Arm, ...]:
    """Return a framework as it is, with the student's network alone, and with both."""
    return (
        Arm(recipe, recipe, 4),
        Arm(f"{recipe} small", recipe, 4, ("network.width=0.5",), against=recipe),
        Arm(f"{recipe} nnc", f"nnc_{recipe}", 4, SAME, against=recipe),
        Arm(f"{recipe} nnc int8", f"nnc_{recipe}", 4, (*SAME, "compression.format=int8"), against=recipe),
    )


class Law(NamedTuple):
    """What Amdahl's law says of an arm that acts with a student."""

    arm: Arm
    beside: Arm  # that acts with all of what it trains
    share: float  # of the acting ranks' time, that predictions take there
    speed_up: float  # of a prediction

    @property
    def factor(self) -> float:
        """Return what the pace should be multiplied by."""
        return gain(self.share, self.speed_up)


def laws(study: Study, section: Section) -> list[Law]:
    """Return the law for each arm that acts with a student and has rows, as has what it is compared with."""
    found = []
    for arm in study.arms:
        beside = next((other for other in study.arms if other.name == arm.against), None)
        if arm.recipe.startswith("nnc_") and beside is not None and section.of(arm) and section.of(beside):
            share = float(np.mean(acting_shares(section.of(beside))))
            took, takes = (float(np.mean(prediction_s(section.of(one)))) for one in (beside, arm))
            found.append(Law(arm, beside, share, took / takes))
    return found


def amdahl(study: Study, section: Section) -> list[str]:
    """Return the table of predictions/s beside what Amdahl's law says of the faster predictions."""
    lines = []
    for law in laws(study, section):
        rates = [numbers(section.of(arm), "predictions_per_s") for arm in (law.arm, law.beside)]
        found = compared([rates[0]], [rates[1]], np.divide)
        reached = f"{(found.value - 1) / (law.factor - 1):.0%}" if law.factor > 1 else ""
        limit = gain(law.share, float("inf"))
        cells = [law.arm.name, law.beside.name, f"{law.share:.0%}"]
        cells += [f"{x:.2f}" for x in (law.speed_up, law.factor, limit)]
        lines.append([*cells, written(found, "{:.2f}".format), reached])
    header = ["arm", "beside", "predictions' share", "speed-up of one", "factor by the law", "if they cost nothing"]
    return markdown_table([*header, "factor on predictions/s", "of the law's gain"], lines) if lines else []


def saved(study: Study, section: Section) -> list[str]:
    """Return the table of how much sooner a return was reached, all that compressing takes included, and by the law."""
    lines = []
    for target, law in itertools.product(section.game.targets, laws(study, section)):
        own, other = (passage(section.of(arm), target, "seconds") for arm in (law.arm, law.beside))
        if own.all_there and other.all_there and len(own.took) and len(other.took):
            found, allowed = compared([own.took], [other.took], _less), 1 - 1 / law.factor
            reached = f"{found.value / allowed:.0%}" if allowed > 0 else ""
            cells = [f"{target:g}", law.arm.name, law.beside.name, f"{law.share:.0%}", f"{allowed:.0%}"]
            lines.append([*cells, written(found, "{:.0%}".format), reached])
    header = ["return", "arm", "beside", "predictions' share", "less time by the law", "less time", "of the law's"]
    return markdown_table(header, lines) if lines else []


def _less(own: Array, other: Array) -> Array:
    """Return by which part of the other's time the own is less."""
    return np.asarray(1 - own / other)


def order(study: Study, section: Section) -> list[str]:
    """Return the corrections of actors that stand still by what they reach, each beside the next one down."""
    arms = [arm for arm in study.arms if arm.name.startswith("still ") and len(numbers(section.of(arm), "final"))]
    finals = {arm.name: numbers(section.of(arm), "final") for arm in arms}
    names = sorted(finals, key=lambda name: -estimated(finals[name]).value)
    if len(names) < 2:
        return []
    lines = [
        [name, written(estimated(finals[name])), f"over {below}: {difference([finals[name]], [finals[below]])}"]
        for name, below in itertools.pairwise(names)
    ]
    lines.append([names[-1], written(estimated(finals[names[-1]])), ""])
    told = "From the best down; Espeholt et al. (2018, Table 2) found vtrace, ratio, eps, none."
    return [told, "", *markdown_table(["correction", "return", "over the next"], lines)]


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


ARMS = tuple(arm for recipe in FRAMEWORKS for arm in arms_of(recipe))
PAIRS = tuple(arm.name for arm in ARMS)
NOT_SMALL = tuple(name for name in PAIRS if not name.endswith(" small"))


def catch(torso: str, seconds: float, *more: str, name: str = "", arms: tuple[str, ...] = PAIRS) -> Game:
    """Return Catch with a torso."""
    settings = (f"network.torso={torso}", *more)
    name = " ".join(filter(None, ("Catch", torso, name)))
    return Game(name, "hpcddrl/Catch-v0", seconds, (0.0, 0.8), (-0.85, 1.0), settings=settings, arms=arms)


def for_speed(game: Game) -> Game:
    """Return a game that is there for its rates, which a few seeds tell."""
    return game._replace(seeds=(1, 2, 3))


def teachers(folder: Path, games: Sequence[str], usable: Callable[[str], bool]) -> dict[str, str]:
    """Return the newest usable run of `impala` on each game that has one, of the game's own length; by the games."""
    found: dict[str, str] = {}
    sections = sections_of(STUDY, read_rows(folder / f"{STUDY.name}.csv"), committed())
    for game in (game for game in STUDY.games if game.name in games):
        own = [row for section in sections if section.game == game for row in section.of(ARMS[0]) if usable(row["run"])]
        if own:
            found[game.name] = max(own, key=lambda row: row["date"])["run"]
    return found


def appendix(folder: Path) -> list[str]:
    """Return the tables of all compressors on what was learned here last, as far as they were tried on it."""
    tried = read_rows(folder / "compressors.csv")
    newest = teachers(folder, TEACHERS, {row["teacher"] for row in tried}.__contains__).values()
    rows = [row for row in tried if row["teacher"] in newest]
    return ["# Compressors", "", LEARNED_TEXT, "", *compressors.tables(rows)] if rows else []


STUDY = Study(
    name="nnc",
    title="Compressed actors",
    text=TEXT,
    arms=(
        *ARMS,
        Arm("still vtrace", "impala", 4, STILL),
        *(
            Arm(f"still {name}", "impala", 4, (*STILL, f"algorithm.correction={name}"), against="still vtrace")
            for name in CORRECTIONS[1:]
        ),
    ),
    games=(
        catch("nature", 60),
        for_speed(catch("resnet", 120, arms=NOT_SMALL)),
        for_speed(catch("resnet", 120, "env.num_envs=1", name="one env an actor", arms=("impala", "impala nnc"))),
        Game(
            "MinAtar Breakout resnet",
            "minatar.gym:BaseEnv",
            120,
            (2.0, 5.0),
            (0.5, 10.0),
            settings=("env.options.game=breakout", "network.torso=resnet"),
            arms=("impala", "impala small", "impala nnc"),
            needs="minatar",
        ),
        Game(
            "Pong nature",
            "ALE/Pong-v5",
            900,
            (-18.0, 0.0, 18.0),
            (-21.0, 21.0),
            seeds=(1, 2),
            settings=("network.torso=nature",),
            arms=("impala", "impala nnc"),
        ),
        catch(
            "nature",
            120,
            "budget.frames=500000",
            name="still actors",
            arms=tuple(f"still {name}" for name in CORRECTIONS),
        ),
    ),
    helpers=("compress", "publish"),
    tables=(amdahl, saved, order),
    appendix=appendix,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down, then try the compressors on what was learned."""
    given = options(STUDY, __doc__, arguments)
    exit_code = run(STUDY, __doc__, arguments)
    if exit_code == REFUSED or given.dry_run:
        return exit_code
    return max(exit_code, _try_compressors(given))


def _try_compressors(given: argparse.Namespace) -> int:
    """Measure the compressors on the newest run of each game that has one; say which have none."""
    games = [name for name in given.games if name in TEACHERS]
    found = teachers(given.into, games, lambda run: (ROOT / run).is_dir())
    for game in (name for name in games if name not in found):
        print(f"compressors: no run of {ARMS[0].name} on {game} to try them on")
    if not found:
        return DONE
    asked = [option for option in ("--missing", "--dirty") if getattr(given, option[2:])]
    exit_code = compressors.main(["--into", str(given.into), *asked, "--torso", "--teacher", *found.values()])
    if not given.missing:
        draw(STUDY, given.into)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
