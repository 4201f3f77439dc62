"""Which of a study's rows belong together: those of a game, one an arm and seed, a seed's all of the same machine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.arms.study import Arm, Circumstances, Game, Run, Study
from benchmarks.rows import Row


class Section(NamedTuple):
    """The rows of a game: one of each arm and seed, the arms of a seed on the same machine."""

    game: Game
    side_by_side: str  # see `Circumstances`
    rows: dict[str, list[Row]]  # by arm, every seed once

    @property
    def all_rows(self) -> list[Row]:
        """Return the rows of all arms."""
        return [row for rows in self.rows.values() for row in rows]

    def of(self, arm: Arm) -> list[Row]:
        """Return an arm's rows."""
        return self.rows.get(arm.name, [])


def sections_of(study: Study, rows: Sequence[Row], code: str) -> list[Section]:
    """Return the sections there are rows for: of the study as it is now, also for other times than its own."""
    found = []
    kinds = dict.fromkeys((row["game"], row["seconds"], row["side_by_side"]) for row in rows)
    for game, (name, seconds, side_by_side) in itertools.product(study.games, kinds):
        if name == game.name:
            section = _section(study, game._replace(seconds=float(seconds)), side_by_side, rows, code)
            found += [section] if section.rows else []
    return found


def _section(study: Study, game: Game, side_by_side: str, rows: Sequence[Row], code: str) -> Section:
    """Choose each seed's machine, the one with most arms, and each arm's row there."""

    def worth(arms: dict[str, Row]) -> tuple[int, int, str]:
        return len(arms), sum(row["code"] == code for row in arms.values()), max(row["date"] for row in arms.values())

    kept: dict[str, list[Row]] = {}
    for seed in sorted({int(row["seed"]) for row in rows}):
        there = [
            newest
            for machine in dict.fromkeys(row["machine"] for row in rows)
            if (newest := _newest(study, game, seed, Circumstances(machine, side_by_side), rows, code))
        ]
        for arm, row in max(there, key=worth, default={}).items():
            kept.setdefault(arm, []).append(row)
    return Section(game, side_by_side, {arm.name: kept[arm.name] for arm in study.arms if arm.name in kept})


def _newest(
    study: Study, game: Game, seed: int, around: Circumstances, rows: Sequence[Row], code: str
) -> dict[str, Row]:
    """Return the row of each arm that has one: the newest of this code, else the newest."""
    found = {}
    for arm in study.arms:
        wanted = Run(arm, game, seed).key(around, code)
        del wanted["code"]
        alike = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
        if alike:
            found[arm.name] = max(alike, key=lambda row: (row["code"] == code, row["date"]))
    return found
