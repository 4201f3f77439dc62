"""A study's rows as tables: interquartile means over seeds with bootstrap intervals, arms beside arms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.arms.outcome import from_text, passed
from benchmarks.arms.sections import Section
from benchmarks.arms.study import Arm, Study
from benchmarks.rows import Row, markdown_table
from hpcddrl.figures.statistics import Estimate, compared, estimated
from hpcddrl.figures.style import si
from hpcddrl.types import Array

SHOWN = 0.01  # of a role's wall time, to be told
NULL = "no difference seen"


def numbers(rows: Iterable[Row], column: str) -> Array:
    """Return a column's numbers [rows that have one]."""
    return np.array([float(row[column]) for row in rows if row[column]])


def written(found: Estimate, digits: Callable[[float], str] = si) -> str:
    """Write a number with its interval."""
    interval = f" [{digits(found.low)}, {digits(found.high)}]" if np.isfinite(found.low) else ""
    return digits(found.value) + interval


def difference(ours: Sequence[Array], theirs: Sequence[Array]) -> str:
    """Write how much more ours is than theirs, or that no difference is seen."""
    if not all(map(len, (*ours, *theirs))):
        return ""
    found = compared(ours, theirs, np.subtract)
    if np.isnan(found.low):
        return f"{_signed(found.value)} (one seed: no interval)"
    said = f"{_signed(found.value)} [{_signed(found.low)}, {_signed(found.high)}]"
    return said if found.excludes(0.0) else f"{said}: {NULL}, the interval contains 0"


def returns(study: Study, section: Section) -> list[str]:
    """Return the table of how the arms ended."""
    several = any(len(from_text(row["groups"])) > 1 for rows in section.rows.values() for row in rows)
    lines = []
    for arm in study.arms:
        rows = section.of(arm)
        if not rows:
            continue
        cells = [arm.name, str(len(rows))]
        for column in ("final", "best_group")[: 1 + several]:
            cells += _with_difference(study, section, arm, partial(numbers, column=column))
        lines.append(cells)
    best = ["best group", "its difference"] if several else []
    return markdown_table(["arm", "seeds", "return", "difference", *best], lines)


def _with_difference(study: Study, section: Section, arm: Arm, of: Callable[[Sequence[Row]], Array]) -> list[str]:
    """Write the numbers ``of`` an arm's rows, and how much more they are than those of the arm it is compared with."""
    own, other = of(section.of(arm)), study.against(arm)
    against = _beside(other, difference([own], [of(section.of(other))])) if other else ""
    return [written(estimated(own)) if len(own) else "", against]


def _beside(other: Arm, said: str) -> str:
    """Say whom something is set beside, if there is something."""
    return f"to {other.name}: {said}" if said else ""


def _signed(value: float) -> str:
    return f"{round(value, 9):+.3g}"  # what is left of equal numbers is nothing


class Passage(NamedTuple):
    """How long the seeds of an arm took to a target: whole runs where they never got there."""

    took: Array  # [seeds]
    there: int  # seeds that got there

    @property
    def all_there(self) -> bool:
        """Tell whether every seed did."""
        return self.there == len(self.took)


def passage(rows: Sequence[Row], target: float, over: str) -> Passage:
    """Return how many frames or seconds (``over``) the seeds of an arm took to a target, of those asked about it."""
    asked = [row for row in rows if target in passed(row)]
    took = np.array([passed(row)[target][over == "seconds"] for row in asked])
    whole = numbers(asked, {"frames": "frames", "seconds": "wall_s"}[over])
    return Passage(np.where(np.isfinite(took), took, whole), int(np.isfinite(took).sum()))


def passages(study: Study, section: Section) -> list[str]:
    """Return the table of the frames and seconds to each target."""
    lines = []
    for target, arm in itertools.product(section.game.targets, study.arms):
        rows, other = section.of(arm), study.against(arm)
        asked = passage(rows, target, "frames")
        if not len(asked.took):
            continue
        cells = [f"{target:g}", arm.name, f"{asked.there} of {len(asked.took)}"]
        for over in ("frames", "seconds"):
            own = passage(rows, target, over)
            cells.append(("" if own.all_there else "≥ ") + written(estimated(own.took)))
            cells.append(_beside(other, _ratio(own, passage(section.of(other), target, over))) if other else "")
        lines.append(cells)
    header = ["return", "arm", "seeds there", "frames", "ratio", "seconds", "ratio"]
    return markdown_table(header, lines) if lines else []


def _ratio(own: Passage, others: Passage) -> str:
    if not (len(others.took) and own.all_there and others.all_there):
        return ""
    found = compared([own.took], [others.took], np.divide)
    said = written(found, "{:.2f}".format)
    return said if np.isnan(found.low) or found.excludes(1.0) else f"{said}: {NULL}, the interval contains 1"


def twins(study: Study, section: Section) -> list[str]:
    """Return the table of the groups that ended above their twins: of the same number and seed in the other arm."""
    lines = []
    for arm, other in study.compared:
        if above := above_twins(section.of(arm), section.of(other)):
            share = estimated(np.array([seed.mean() for seed in above]))
            count, all_of_them = sum(int(seed.sum()) for seed in above), sum(map(len, above))
            lines.append([arm.name, other.name, f"{count} of {all_of_them}", written(share, "{:.2f}".format)])
    return markdown_table(["arm", "beside", "groups above their twins", "share by seed"], lines) if lines else []


def above_twins(rows: Sequence[Row], others: Sequence[Row]) -> list[Array]:
    """Return, for each seed that both arms have, which of its groups [groups] bool ended above their twins."""
    theirs = {row["seed"]: from_text(row["groups"]) for row in others}
    return [
        np.array([value > theirs[row["seed"]][group] for group, value in own.items()])
        for row in rows
        if len(own := from_text(row["groups"])) > 1 and own.keys() == theirs.get(row["seed"], {}).keys()
    ]


def scores(study: Study, section: Section) -> list[str]:
    """Return the table of what the networks reached in greedy games after the runs."""
    lines = []
    for arm in study.arms:
        found = [from_text(row["scores"]) for row in section.of(arm) if row["scores"]]
        if not found:
            continue
        kinds = {
            "mean of groups": [np.mean(_alone(one)) for one in found],
            "best group": [np.max(_alone(one)) for one in found],
            "ensemble": [one["ensemble"] for one in found],
            "distilled": [one["distilled"] for one in found],
        }
        means, ensembles = (np.array(kinds[kind]) for kind in ("mean of groups", "ensemble"))
        cells = [written(estimated(np.array(values))) for values in kinds.values()]
        lines.append([arm.name, *cells, difference([ensembles], [means])])
    header = ["arm", "mean of groups", "best group", "ensemble", "distilled", "ensemble over the mean of groups"]
    return markdown_table(header, lines) if lines else []


def single_scores(study: Study, section: Section) -> list[str]:
    """Return the table of what the one network of each run reached after it, in each way of playing it."""
    kinds = [play.name for play in study.scoring.plays]
    lines = []
    for arm in study.arms:
        rows = [row for row in section.of(arm) if row["scores"]]
        if not rows:
            continue
        cells = [arm.name, str(len(rows))]
        for kind in kinds:
            cells += _with_difference(study, section, arm, partial(_scored, kind=kind))
        lines.append(cells)
    header = ["arm", "seeds", *itertools.chain.from_iterable([f"score, {kind}", "difference"] for kind in kinds)]
    return markdown_table(header, lines) if lines else []


def _scored(rows: Iterable[Row], kind: str) -> Array:
    """Return the scores of a kind [rows that have one]."""
    return np.array([one[kind] for one in (from_text(row["scores"]) for row in rows) if kind in one])


def _alone(one: dict[str, float]) -> list[float]:
    return [value for name, value in one.items() if name not in ("ensemble", "distilled")]


def costs(study: Study, section: Section) -> list[str]:
    """Return the table of rates, of each helper's own seconds, and of where the time went."""
    lines = []
    for arm in study.arms:
        rows = section.of(arm)
        if not rows:
            continue
        rates = [numbers(rows, column) for column in ("frames_per_s", "predictions_per_s", "trained_per_s", "lag")]
        cells = [arm.name, *(written(estimated(rate)) if len(rate) else "" for rate in rates)]
        phases = [from_text(row["phases"]) for row in rows]
        for helper in study.helpers:
            cells.append(f"{np.mean([one.get(f'learner.{helper}', 0.0) for one in phases]):.1f}")
        lines.append([*cells, "; ".join(shares(phases, role) for role in _roles(phases))])
    helpers = [f"{helper} s" for helper in study.helpers]
    return markdown_table(["arm", "frames/s", "predictions/s", "trained/s", "lag", *helpers, "phases"], lines)


def _roles(phases: Sequence[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for one in phases for name in one))


def shares(phases: Sequence[dict[str, float]], role: str) -> str:
    """Write the mean shares of a role's phases over seeds, the largest first."""
    each = []
    for one in phases:
        own = {name.partition(".")[2]: value for name, value in one.items() if name.startswith(f"{role}.")}
        each.append({phase: value / sum(own.values()) for phase, value in own.items()})
    known = dict.fromkeys(phase for one in each for phase in one)
    means = {phase: float(np.mean([one.get(phase, 0.0) for one in each])) for phase in known}
    told = sorted((phase for phase in means if means[phase] >= SHOWN), key=lambda phase: -means[phase])
    return f"{role}: " + ", ".join(f"{phase} {means[phase]:.0%}" for phase in told)


def together(study: Study, sections: Sequence[Section]) -> list[str]:
    """Return the table of all games that all arms played, returns as shares of each game's scale."""
    common = [s for s in sections if all(len(numbers(s.of(arm), "final")) for arm in study.arms)]
    if len(common) < 2:
        return []

    def strata(arm: Arm) -> list[Array]:
        return [(numbers(s.of(arm), "final") - s.game.scale[0]) / np.diff(s.game.scale)[0] for s in common]

    lines = []
    for arm in study.arms:
        other = study.against(arm)
        against = _beside(other, difference(strata(arm), strata(other))) if other else ""
        lines.append([arm.name, written(estimated(*strata(arm)), "{:.2f}".format), against])
    names = ", ".join(f"{s.game.name} ({s.game.scale[0]:g} to {s.game.scale[1]:g})" for s in common)
    text = f"Returns as shares of the way from random to good play; seeds are drawn anew within each game: {names}."
    return [text, "", *markdown_table(["arm", "return", "difference"], lines)]
