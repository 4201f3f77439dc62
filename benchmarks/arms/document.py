"""The Markdown page of a study, with what its rows come from and what is still to be made."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from benchmarks.arms.sections import Section, sections_of
from benchmarks.arms.study import Study
from benchmarks.arms.tables import costs, numbers, passages, returns, together, twins
from benchmarks.rows import CHANGED, Row

LEGEND = """\
Numbers are interquartile means over seeds (of fewer than four: the mean), with their 95 % percentile bootstrap
intervals in brackets; of a few seeds these are rather too narrow. A run's return is the mean over its groups of each
one's last 100 full games, unclipped; best group is the greatest of the groups' own. For differences and ratios both
sides are drawn anew; where the interval holds 0 (or 1) it says `no difference seen`, which is not the same as none. A
group's twin has the same number and the same seed in the other arm. {scores} A target \
is reached when the groups' mean return over their last 100 games (at
least 25 each) is; where a seed never got there it counts with the whole of its run, so that the number is a least one,
marked ≥, and no ratio is given. All arms of a seed ran on the same machine. Phases are the mean share of a role's
ranks' wall time; a helper's seconds are what one learner spent in its phase. Load is the machine's load average as the
runs started, others the cores that other processes kept busy meanwhile. Code is git's tree of hpcddrl/."""


def document(study: Study, rows: Sequence[Row], code: str) -> str:
    """Return the whole Markdown text; ``code`` is that of the files as committed."""
    sections = sections_of(study, rows, code)
    lines = [
        f"# {study.title}",
        "",
        study.text,
        "",
        f"`make bench-{study.name}` drew this from {study.name}.csv.\n{LEGEND.format(scores=study.scoring.text)}",
    ]
    for section in sections:
        lines += ["", *_text(study, section, code)]
    for alike in comparable(study, sections):
        if found := together(study, alike):
            seconds = dict.fromkeys(f"{section.game.seconds:g} s" for section in alike)
            lines += ["", f"## All games together, {', '.join(seconds)}", "", *found]
    return "\n".join(lines if sections else [*lines, "", "No row yet."]) + "\n"


def _text(study: Study, section: Section, code: str) -> list[str]:
    game = section.game
    lines = [f"## {game.name}, {game.seconds:g} s", "", f"{game.env}; {_machines(section)}.", ""]
    parts = [returns(study, section), passages(study, section)]
    parts += [twins(study, section), study.scoring.table(study, section), costs(study, section)]
    parts += [*(table(study, section) for table in study.tables), provenance(section), state(study, section, code)]
    return [*lines, *itertools.chain.from_iterable([*part, ""] for part in parts if part)][:-1]


def comparable(study: Study, sections: Sequence[Section]) -> list[list[Section]]:
    """Return the sections by circumstances: those that took the study's own times together, others by theirs."""
    kinds: dict[tuple[str, float | None], list[Section]] = {}
    for section in sections:
        seconds = None if section.game in study.games else section.game.seconds
        kinds.setdefault((section.side_by_side, seconds), []).append(section)
    return list(kinds.values())


def _machines(section: Section) -> str:
    """Say where runs were made."""
    seeds: dict[str, set[int]] = {}
    for row in section.all_rows:
        seeds.setdefault(row["machine"], set()).add(int(row["seed"]))
    told = [f"seeds {', '.join(map(str, sorted(those)))} on {machine}" for machine, those in seeds.items()]
    count = section.side_by_side
    where = "; ".join(told) if len(seeds) > 1 else next(iter(seeds))
    return where + ("" if count == "1" else f"; {count} runs at a time on equal shares of the processors")


def provenance(section: Section) -> list[str]:
    """Return what the rows come from."""
    every = section.all_rows
    commands = dict.fromkeys(rows[0]["command"] for rows in section.rows.values())
    lines = ["The first run of each arm (every row's command is in the CSV file):", "", "```sh", *commands, "```", ""]
    for column in ("load", "others"):
        of_all = numbers(every, column)
        lines += [f"- {column}: {of_all.min():g} to {of_all.max():g}"] if len(of_all) else []
    return lines + [f"- {about}" for about in dict.fromkeys(row["about"] for row in every)]


def state(study: Study, section: Section, code: str) -> list[str]:
    """Return what is to be known of single rows, and what is still to be made or made anew."""
    every, game = section.all_rows, section.game
    there = {(row["arm"], int(row["seed"])) for row in every}
    wanted = [(arm.name, seed) for arm in study.arms for seed in game.seeds if arm.name in (game.arms or [arm.name])]
    names = {
        "No row yet": [f"{arm} {seed}" for arm, seed in wanted if (arm, seed) not in there],
        "Of older code": [_seed(row) for row in every if row["code"].removesuffix(CHANGED) != code],
        "Of files that no commit has": [_seed(row) for row in every if row["code"].endswith(CHANGED)],
    }
    lines = [f"- {_seed(row)}: {row['note']}" for row in every if row["note"]]
    return lines + [f"- {what}: {', '.join(those)}" for what, those in names.items() if those]


def _seed(row: Row) -> str:
    return f"{row['arm']} {row['seed']}"
