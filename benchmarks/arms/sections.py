"""Which of a study's rows belong together: those of a game under the same circumstances, one an arm and seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.arms.study import Arm, Circumstances, Game, Run, Study
from benchmarks.rows import Row


class Section(NamedTuple):
    """All rows of a game under the same circumstances, the newest of each arm and seed."""

    game: Game
    around: Circumstances
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
    kinds = dict.fromkeys((row["game"], row["seconds"], row["machine"], row["side_by_side"]) for row in rows)
    for game, (name, seconds, *around) in itertools.product(study.games, kinds):
        if name == game.name:
            section = _section(study, game._replace(seconds=float(seconds)), Circumstances(*around), rows, code)
            found += [section] if section.rows else []
    return found


def _section(study: Study, game: Game, around: Circumstances, rows: Sequence[Row], code: str) -> Section:
    """Choose each arm's row of each seed: the newest of this code, else the newest."""
    kept: dict[str, list[Row]] = {}
    for arm in study.arms:
        newest: dict[str, Row] = {}
        for row in rows:
            wanted = Run(arm, game, int(row["seed"])).key(around, row["code"])
            if all(row[name] == value for name, value in wanted.items()):
                before = newest.get(row["seed"], row)
                newest[row["seed"]] = max(before, row, key=lambda r: (r["code"] == code, r["date"]))
        if newest:
            kept[arm.name] = [newest[seed] for seed in sorted(newest, key=int)]
    return Section(game, around, kept)
