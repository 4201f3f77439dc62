"""The tables of the page: text in cells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from hpcddrl.commands.reporting.evidence import Finding
from hpcddrl.commands.reporting.numbers import numbers
from hpcddrl.figures.curves import final_returns
from hpcddrl.figures.settings import differences, flat
from hpcddrl.figures.style import si
from hpcddrl.figures.told import BANDS, decisions
from hpcddrl.logs.read import Runs, only


class Table(NamedTuple):
    """A table on the page, with a line below it."""

    header: list[str]
    rows: list[list[str]]
    caption: str


def returns(episodes: pd.DataFrame) -> list[list[str]]:
    """Return a row a setting and environment: how it ended."""
    return [
        [row.game, row.setting, str(row.seeds), si(row.iqm), _interval(row.low, row.high)]
        for row in final_returns(episodes).itertuples()
    ]


def _interval(low: float, high: float) -> str:
    return f"{si(low)} to {si(high)}" if low == low else "one seed: none"


def stages(run: Runs) -> list[list[str]]:
    """Return a row a decision about a run's stage: which, from where on, and why."""
    names = list(BANDS)
    return [
        [names[int(row["stage"])], si(row["job_frames"]), clock(row["seconds"]), f"{row['version']:.0f}", row["reason"]]
        for _, row in decisions(run.tables["stages"]).iterrows()
    ]


def evaluations(run: Runs) -> list[list[str]]:
    """Return a row a network that was evaluated: by `evaluate`, else while the run went on."""
    path = Path(run.runs["path"].iloc[0])
    try:
        kept = json.loads((path / "evaluation.json").read_text())
        rows = [_evaluation(name, _protocol(score), score, *score["interval"]) for name, score in kept.items()]
    except (OSError, ValueError, KeyError, TypeError):  # not made, or by another version of the program
        rows = []
    (config,) = run.configs.values()
    asked = config.get("evaluation", {})
    how = f"while it ran, {'sampled' if asked.get('sampled') else 'greedy'}"
    served = config["topology"].get("servers")
    for group, own in run.tables["evaluation"].groupby("group"):
        row = own.sort_values("seconds").iloc[-1]
        name = "server-0000" if served else f"group-{group:04d}"
        score = {"version": row["version"], "frames": row["frames"], "mean": row["return"], "games": row["episodes"]}
        rows.append(_evaluation(name, how, score, row["low"], row["high"]))
    return rows


def _evaluation(name: str, how: str, score: Mapping[str, Any], low: float, high: float) -> list[str]:
    games = score.get("games", len(score.get("returns", ())))
    human = score.get("human_normalised")
    return [
        name,
        how,
        f"{score['version']:,.0f}",
        si(score["frames"]),
        f"{games:.0f}",
        si(score["mean"]),
        f"{si(low)} to {si(high)}",
        "–" if human is None else f"{human:.0%}",
    ]


def _protocol(score: Mapping[str, Any]) -> str:
    """Write how `evaluate` played."""
    asked = score["protocol"]
    parts = ["greedy" if asked["greedy"] else "sampled", f"seeds from {asked['seed']}"]
    parts += [f"sticky actions {asked['sticky_actions']:g}"] if asked.get("sticky_actions") is not None else []
    parts += [f"at most {asked['noop_max']} no-ops"] if asked.get("noop_max") is not None else []
    return f"{score['env']}: {', '.join(parts)}"


def overview(runs: Runs, labels: Mapping[str, str]) -> Table:
    """Return a row a run; what is the same for all is said once, below."""
    rows = []
    for row in runs.runs.itertuples():
        n = numbers(only(runs, row.run))
        rows.append(
            {
                "run": row.run,
                "setting": labels[row.run],
                "environment": row.env,
                "seed": str(row.seed),
                "ranks": str(row.ranks),
                "return": si(n.return_mean),
                "best": si(n.return_best),
                "frames": si(n.frames),
                "frames/s": si(n.frames_per_s),
                "trained/s": si(n.trained_per_s),
                "lag": si(n.lag),
                "staleness": si(n.staleness),
                "memory": si(n.memory, "B"),
                "running": clock(n.seconds),
                "state": row.state,
            }
        )
    table = pd.DataFrame(rows)
    same = [name for name in table if name != "run" and table[name].nunique() == 1]
    shown = table.drop(columns=same)
    alike = [f"{name} {table[name].iloc[0]}" for name in same if table[name].iloc[0] != "–"]
    return Table(list(shown.columns), shown.to_numpy().tolist(), f"All: {', '.join(alike)}." if alike else "")


def conspicuous(findings: Mapping[str, Sequence[Finding]]) -> list[list[str]]:
    """Return a row a finding, with the runs that have it."""
    found: dict[tuple[str, str], list[str]] = {}
    for run, own in findings.items():
        for finding in own:
            found.setdefault((finding.level, finding.title), []).append(run)
    return [[level, title, ", ".join(names)] for (level, title), names in found.items()]


def differing_fields(runs: Runs, labels: Mapping[str, str]) -> Table:
    """Return the fields that differ between runs, a column a setting, with the values of all its runs."""
    table = differences(runs.configs)
    columns = {
        label: table[[run for run in labels if labels[run] == label]].agg(
            lambda row: ", ".join(dict.fromkeys(row)), axis=1
        )
        for label in dict.fromkeys(labels.values())
    }
    rows = [[field, *(columns[label][field] for label in columns)] for field in table.index]
    same = len(flat(next(iter(runs.configs.values()))).keys() - set(table.index))
    return Table(["field", *columns], rows, f"{same} other fields are the same in all runs.")


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    whole = round(seconds) if seconds == seconds else 0
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def role_rows(roles: pd.DataFrame) -> list[list[str]]:
    """Return a row a role."""
    return [[row.role, str(row.count), str(row.groups or "–"), row.ranks, row.hosts] for row in roles.itertuples()]


def message_rows(messages: pd.DataFrame) -> list[list[str]]:
    """Return a row a kind of message."""
    return [
        [
            row.kind,
            f"{row.sender} → {row.receiver}",
            si(row.nbytes, "B"),
            "not logged" if row.expected else si(row.messages_per_s),
            "not logged" if row.expected else si(row.bytes_per_s, "B/s"),
            si(row.planned_per_s, "B/s"),
        ]
        for row in messages.itertuples()
    ]
