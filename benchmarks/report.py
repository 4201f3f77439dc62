"""The frameworks' table as Markdown: a section a setting, every recipe's best row in it, and what is to be redone."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmarks.curves import Panel, from_text
from benchmarks.rows import CHANGED, Row, markdown_table

HEADER = {  # column of the CSV file: of the table
    "recipe": "recipe",
    "layout": "servers / learners / replays / actors",
    "frames": "frames",
    "frames_per_s": "frames/s",
    "predictions_per_s": "predictions/s",
    "trained_per_s": "trained/s",
    "lag": "lag",
    "staleness": "staleness",
    "return_mean": "return",
    "return_best": "best",
    "updates": "updates",
    "memory_mib": "peak MiB",
    "load": "load",
    "others": "others",
    "code": "code",
    "date": "date",
    "note": "note",
}
LEGEND = """\
`make bench-frameworks` drew this from frameworks.csv, which also has every row's exact command. A row is one run: equal
wall time, equal network, one seed. Rates are of the whole job: environment frames, observations answered by a policy,
samples trained on. Lag is the mean age of data, staleness that of gradients at a server, both in updates. Return is the
mean of the job's last 100 episodes (unclipped), best that of one episode. Peak MiB is the greatest resident memory of
one rank of each role. Load is the machine's load average as the run started (the run before is still in it), others
the cores that other processes kept busy meanwhile: the machine is shared, so look there before comparing rates. Code
is git's tree of hpcddrl/: `older` marks rows of another tree than this table was drawn at, `+` files that no commit
has."""


class Setting(NamedTuple):
    """What all rows of a table have in common, as the CSV file has it."""

    machine: str
    env: str
    torso: str
    ranks: str  # at most
    seconds: str
    seed: str

    def __str__(self) -> str:
        return f"{self.env}, {self.torso} network, {self.ranks} ranks, {self.seconds} s, seed {self.seed}"


class State(NamedTuple):
    """A table's rows, one a recipe, and which recipes want a run."""

    rows: list[Row]
    missing: list[str]
    older: list[str]


def setting_of(row: Row) -> Setting:
    """Return the setting of a row."""
    return Setting(*(row[field] for field in Setting._fields))


def state(rows: Iterable[Row], setting: Setting, code: str, recipes: Sequence[str]) -> State:
    """Choose each recipe's row: the newest of this code, else the newest."""
    best: dict[str, Row] = {}
    for row in rows:
        if setting_of(row) == setting:
            best[row["recipe"]] = max(best.get(row["recipe"], row), row, key=lambda r: (r["code"] == code, r["date"]))
    names = [*recipes, *(name for name in best if name not in recipes)]  # a recipe that went keeps its row
    return State(
        rows=[best[name] for name in names if name in best],
        missing=[name for name in recipes if name not in best],
        older=[name for name in recipes if name in best and best[name]["code"] != code],
    )


def settings_in(rows: Iterable[Row], first: Setting) -> list[Setting]:
    """Return the settings to draw, one section each."""
    return list(dict.fromkeys([first, *map(setting_of, rows)]))


def document(rows: Sequence[Row], current: Setting, code: str, recipes: Sequence[str], about: str) -> str:
    """Return the whole Markdown text; ``code`` is that of the files as committed, ``about`` the machine at hand."""
    code = code.removesuffix(CHANGED)
    lines = ["# Frameworks side by side", "", LEGEND, ""]
    lines += [f"Drawn {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC at code {code}.", ""]
    for setting in settings_in(rows, current):
        lines += _section(setting, state(rows, setting, code, recipes), code, about)
    return "\n".join(lines).rstrip() + "\n"


def panels(rows: Sequence[Row], current: Setting, code: str, recipes: Sequence[str]) -> list[Panel]:
    """Return the learning curves, a panel a setting that has any."""
    code, found = code.removesuffix(CHANGED), []
    for setting in settings_in(rows, current):
        curves = {
            row["recipe"] + ("" if row["code"] == code else " (older)"): from_text(row["curve"])
            for row in state(rows, setting, code, recipes).rows
            if row["curve"]
        }
        if curves:
            found.append(Panel(f"{setting}\n{setting.machine}", curves))
    return found


def _section(setting: Setting, found: State, code: str, about: str) -> list[str]:
    lines = [f"## {setting}", "", f"Machine: {setting.machine}", ""]
    abouts: dict[str, list[str]] = {}
    for row in found.rows:
        abouts.setdefault(row["about"], []).append(row["recipe"])
    for text, names in (abouts or {about: []}).items():
        lines.append(f"- {'' if len(abouts) < 2 else ', '.join(names) + ': '}{text}")
    lines += [
        "",
        "Each row, with `-n` as laid out (word for word in the CSV file):",
        "",
        "```sh",
        _command(setting),
        "```",
        "",
    ]
    if found.rows:
        lines += [*markdown_table(list(HEADER.values()), ([_cell(r, c, code) for c in HEADER] for r in found.rows)), ""]
    for what, names in (("no row yet", found.missing), ("row of other code", found.older)):
        if names:
            lines.append(f"To be redone ({what}): {', '.join(names)}")
            lines.append("")
    return lines


def _command(setting: Setting) -> str:
    return (
        f"mpirun -n {setting.ranks} python -m hpcddrl run RECIPE --env {setting.env} --seconds {setting.seconds} "
        f"--seed {setting.seed} --set network.torso={setting.torso}"
    )


def _cell(row: Row, column: str, code: str) -> str:
    """Return what stands in a cell, with the age of code that isn't this one's."""
    if column != "code" or row[column] == code:
        return row[column]
    return row[column] + (" (not committed)" if row[column].endswith(CHANGED) else " (older)")
