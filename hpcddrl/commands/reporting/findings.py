"""What there is to say of a run, and of a comparison: findings with their numbers and remedies."""

from __future__ import annotations

from hpcddrl.commands.reporting.evidence import Evidence, Finding
from hpcddrl.commands.reporting.rules import RULES
from hpcddrl.figures.shares import phase_shares
from hpcddrl.logs.read import Runs


def findings(run: Runs) -> list[Finding]:
    """Return what there is to say of one run, the gravest first."""
    (config,) = run.configs.values()
    evidence = Evidence(run, config, phase_shares(run.tables["timing"], ["role"]))
    found = [finding for rule in RULES for finding in rule(evidence)]
    return sorted(found, key=lambda finding: ("problem", "warning", "note").index(finding.level))


def differing(runs: Runs) -> list[Finding]:
    """Return what makes runs of a comparison hard to compare."""
    found = []
    if len(games := sorted(set(runs.runs["env"]))) > 1:
        text = "their returns cannot be compared, so each environment has its own panel"
        found.append(Finding("note", "the runs are of different environments", ", ".join(games), text))
    for column, title, remedy in (
        ("git_commit", "the runs are of different versions of the program", "make them anew with one"),
        ("host", "the runs were made on different hosts", "compare returns over frames, not over seconds"),
    ):
        sets = {run: frozenset(own[column]) for run, own in runs.ranks.groupby("run", sort=False)}
        if len(set(sets.values())) > 1:
            values = sorted({value[:10] if column == "git_commit" else value for own in sets.values() for value in own})
            found.append(Finding("note", title, ", ".join(values), remedy))
    if runs.runs["ranks"].nunique() > 1:
        counts = ", ".join(map(str, sorted(runs.runs["ranks"].unique())))
        found.append(Finding("note", "the runs had different numbers of ranks", counts, "compare rates per rank"))
    return found
