"""What compressed actors gave runs that are alike otherwise, beside what Amdahl's law allows."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pandas as pd

from hpcddrl.compressors.amdahl import Row, sheet
from hpcddrl.figures.compression import PLAIN, costs
from hpcddrl.figures.settings import REPEATS, flat
from hpcddrl.logs.read import Runs, only

APART = (*REPEATS, "recipe", "compression.", "algorithm.correction")  # what runs that are compared may differ in
COLUMNS = list(Row._fields)


def amdahl_sheet(runs: Runs) -> pd.DataFrame:
    """Return a row a compressed setting, against the runs without compression that are like it in all else.

    Shares and latencies are the means of the runs' own, as `figures.compression.costs` has them; settings that have no
    such counterpart are left out.

    Args:
        runs: labelled with their settings (`settings.labelled`).
    """
    rows: list[Row] = []
    for names in _alike(runs):
        found = pd.concat([costs(only(runs, name)) for name in names], ignore_index=True)
        plain, others = found[found["kind"] == PLAIN], found[found["kind"] != PLAIN]
        if not len(plain) or not len(others):
            continue
        base = plain[["latency_s", "share", "predictions_per_s"]].mean()
        means = others.groupby("setting", sort=False)[["latency_s", "predictions_per_s"]].mean()
        rows += sheet(
            {"act": base["share"], "other": 1 - base["share"]},
            (base["latency_s"] / means["latency_s"]).to_dict(),
            (means["predictions_per_s"] / base["predictions_per_s"]).to_dict(),
        )
    return pd.DataFrame([row._asdict() | {"reached": row.reached} for row in rows], columns=[*COLUMNS, "reached"])


def timed_sheet(run: Path) -> pd.DataFrame:
    """Return the rows that `amdahl RUN` has left in a run's summary.json; none if it was not called."""
    try:
        rows = json.loads((run / "summary.json").read_text()).get("amdahl", [])
    except (OSError, ValueError):
        rows = []
    numbers = ["speed_up", "predicted", "bound", "measured"]
    return pd.DataFrame(rows, columns=["compressor", *numbers]).astype(dict.fromkeys(numbers, float))


def _alike(runs: Runs) -> list[list[str]]:
    """Return the names of runs that differ in nothing but compression, its correction and seeds, list by list."""
    kinds: defaultdict[frozenset[tuple[str, str]], list[str]] = defaultdict(list)
    for name, config in runs.configs.items():
        own = {field: text for field, text in flat(config).items() if not field.startswith(APART)}
        kinds[frozenset({**own, "env.id": config["env"]["id"]}.items())].append(name)
    return list(kinds.values())
