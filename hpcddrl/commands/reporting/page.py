"""The page: what is said and drawn of runs, filled into `page.html.j2`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from hpcddrl import __version__
from hpcddrl.commands.reporting.evidence import Finding
from hpcddrl.commands.reporting.findings import differing, findings
from hpcddrl.commands.reporting.jobs import MESSAGES, messages, roles
from hpcddrl.commands.reporting.numbers import Numbers, numbers
from hpcddrl.commands.reporting.pictures import Picture, of_comparison, of_run
from hpcddrl.commands.reporting.tables import (
    clock,
    conspicuous,
    differing_fields,
    evaluations,
    message_rows,
    overview,
    returns,
    role_rows,
    stages,
)
from hpcddrl.figures.curves import WINDOW
from hpcddrl.figures.settings import labelled
from hpcddrl.figures.style import si
from hpcddrl.logs.read import Runs, only

DETAILED = 8  # runs with pictures of their own: each takes most of a megabyte


class Section(NamedTuple):
    """A run on the page."""

    name: str
    title: str
    facts: dict[str, str]
    cards: dict[str, str]
    findings: list[Finding]
    roles: list[list[str]]
    messages: list[list[str]]
    message_gap: str
    stages: list[list[str]]
    evaluations: list[list[str]]
    pictures: list[Picture]
    config: str


def page(runs: Runs) -> str:
    """Return the page of some runs as HTML."""
    runs = labelled(runs)
    tables, labels = runs.tables, dict(zip(runs.runs["run"], runs.runs["setting"], strict=True))
    several = len(runs.runs) > 1
    names = list(runs.runs["run"])
    sections = [_section(only(runs, name), labels[name], detailed=i < DETAILED) for i, name in enumerate(names)]
    template = Environment(
        loader=PackageLoader("hpcddrl.commands.reporting", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    ).get_template("page.html.j2")  # fmt: skip
    return template.render(
        title=_title(runs, labels),
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by hpcddrl {__version__}",
        several=several,
        unread=[f"{problem.run}: {problem.text}" for problem in runs.problems if problem.run not in names],
        findings=differing(runs),
        overview=overview(runs, labels) if several else None,
        conspicuous=conspicuous({section.name: section.findings for section in sections}),
        returns=returns(tables["episodes"]) if several else [],
        comparison=of_comparison(runs) if several else [],
        differences=differing_fields(runs, labels) if several else None,
        detailed=DETAILED,
        sections=sections,
        window=WINDOW,
    )


def _title(runs: Runs, labels: Mapping[str, str]) -> str:
    if len(runs.runs) > 1:
        return f"{len(runs.runs)} runs of {len(set(labels.values()))} settings"
    row = runs.runs.iloc[0]
    return f"{row['recipe']} on {row['env']}"


def _section(run: Runs, label: str, detailed: bool) -> Section:
    """Return what there is on one run."""
    (name,), (config,) = run.runs["run"], run.configs.values()
    layouts, sent, gap = roles(run), pd.DataFrame(columns=MESSAGES), ""
    try:
        sent = messages(run, dict(config))
    except ValueError as error:
        gap = f"Who gets which messages cannot be said here, since this job cannot be planned: {error}"
    return Section(
        name=name,
        title=f"{label}, seed {run.runs['seed'].iloc[0]}",
        facts=_facts(run),
        cards=_cards(numbers(run)),
        findings=findings(run),
        roles=role_rows(layouts),
        messages=message_rows(sent),
        message_gap=gap,
        stages=stages(run),
        evaluations=evaluations(run),
        pictures=of_run(run, layouts, sent) if detailed else [],
        config=json.dumps(config, indent=2),
    )


def _facts(run: Runs) -> dict[str, str]:
    """Return what ran, where and from which code."""
    row, rank = run.runs.iloc[0], run.ranks.iloc[-1]
    versions = json.loads(rank["versions"])
    reason = f", {row['reason']}" if row["reason"] else ""
    return {
        "directory": row["path"],
        "recipe": row["recipe"],
        "environment": row["env"],
        "seed": str(row["seed"]),
        "ranks": f"{row['ranks']} on {', '.join(sorted(run.ranks['host'].unique()))}",
        "started": f"{run.ranks['started'].min()[:19].replace('T', ' ')} UTC",
        "state": f"{row['state']}{reason}",
        "segments": str(row["segments"]),
        "job": ", ".join(sorted(set(run.ranks["job"]) - {""})) or "no Slurm job",
        "commit": f"{rank['git_commit'][:12] or 'unknown'}{' with changes' if rank['git_dirty'] else ''}",
        "versions": ", ".join(f"{package} {version}" for package, version in versions.items()),
    }


def _cards(n: Numbers) -> dict[str, str]:
    """Return the numbers that are shown large."""
    cards = {
        f"return, last {WINDOW} episodes": si(n.return_mean),
        "best return": si(n.return_best),
        "frames": si(n.frames),
        "frames/s": si(n.frames_per_s),
        "samples trained on/s": si(n.trained_per_s),
        "updates": si(n.updates),
        "running": clock(n.seconds),
        "mean lag, updates": si(n.lag),
        "mean staleness, updates": si(n.staleness),
        "memory of the largest rank": si(n.memory, "B"),
    }
    return {name: value for name, value in cards.items() if value != "–" or "return" in name}
