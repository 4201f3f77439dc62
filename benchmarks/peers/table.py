"""The comparison as Markdown: the best of each system, ours beside it, then every row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from benchmarks.peers.configurations import COUNTED, OURS, Setting
from benchmarks.rows import Row, markdown_table

HEADER = {  # column of the CSV file: of the table
    "system": "system",
    "configuration": "configuration",
    "turn": "turn",
    "trained_per_s": "trained/s",
    "frames_per_s": "frames/s",
    "updates": "updates",
    "peak_mib": "peak MiB",
    "cores_used": "cores used",
    "load": "load",
    "others": "others",
    "code": "version",
    "versions": "with",
    "date": "date",
}
LEGEND = """\
`make bench-peers` drew this from peers.csv. Every system trains the same game from the same preprocessing (84×84 grey,
4 frames stacked, 4 skipped, up to 30 no-ops, no sticky actions, rewards clipped to their sign) with the same network
(32@8/4, 64@4/2, 64@3/1, 512) on the same cores, and takes one gradient pass a sample. Runs are made in turn, ours
before each of a peer's. Several configurations of each peer were tried: the best one is in the first table, all are in
the second. Trained/s are env steps whose gradient was taken, a second; frames/s four times that (ours: those stepped).
Peak MiB is what the whole tree of processes held at most, a shared page counted once; cores used its processor time
over wall time, start and end included; load the machine's load average as the run started; others the cores that
other processes kept busy meanwhile. Version is the package's, for hpcddrl git's tree of hpcddrl/. Return is not
compared: settings are chosen for speed."""


def document(rows: Iterable[Row], current: Setting, codes: Sequence[str]) -> str:
    """Return the whole Markdown text; ``codes`` are the versions of now, rows of others are left to the CSV file."""
    rows = [row for row in rows if row["code"] in codes]
    settings = dict.fromkeys([current, *(Setting(*(row[f] for f in Setting._fields)) for row in rows)])
    lines = ["# Beside other systems", "", LEGEND, "", "How trained env steps are counted:", ""]
    lines += [f"- {system}: {how}" for system, how in COUNTED.items()]
    for setting in settings:
        lines += ["", f"## {setting}", "", f"Machine: {setting.machine}", ""]
        lines += _section([row for row in rows if all(row[f] == v for f, v in setting._asdict().items())])
    return "\n".join(lines).rstrip() + "\n"


def best(rows: Sequence[Row]) -> list[tuple[Row, float]]:
    """Return each of our configurations and the best of each peer's algorithm, with the median of their turns."""
    turns: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        turns.setdefault((row["system"], row["configuration"]), []).append(row)
    middles = [(several[0], median(float(row["trained_per_s"]) for row in several)) for several in turns.values()]
    chosen: dict[tuple[str, str], tuple[Row, float]] = {}
    for row, rate in middles:
        kind = _kind(row)
        if kind not in chosen or rate > chosen[kind][1]:
            chosen[kind] = (row, rate)
    return sorted(chosen.values(), key=lambda found: (found[0]["system"] != OURS, -found[1]))


def _kind(row: Row) -> tuple[str, str]:
    """Return what a row competes in: ours by itself, a peer's among its algorithm's, one as it comes apart."""
    if row["system"] == OURS:
        return OURS, row["configuration"]
    algorithm = row["configuration"].split()[0].rstrip(",")
    return row["system"], algorithm + (" as it comes" if "as it comes" in row["configuration"] else "")


def _section(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["No row yet."]
    found = best(rows)
    own = [(row, rate) for row, rate in found if row["system"] == OURS]
    header = ["system", "configuration", "trained/s", *(f"{row['configuration']} ÷ it" for row, _ in own)]
    lines = markdown_table(
        header,
        (
            [row["system"], row["configuration"], f"{rate:.0f}", *(f"{ours / rate:.2f}" for _, ours in own)]
            for row, rate in found
        ),
    )
    lines += ["", *markdown_table(list(HEADER.values()), ([row[c] for c in HEADER] for row in rows)), ""]
    return [*lines, "Commands:", "", "```sh", *dict.fromkeys(row["command"] for row in rows), "```"]
