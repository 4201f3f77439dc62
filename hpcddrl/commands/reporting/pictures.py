"""The figures of the page, each with its title and caption."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from hpcddrl.figures.ages import ages
from hpcddrl.figures.curves import WINDOW, learned, learning_curves
from hpcddrl.figures.layout import layout
from hpcddrl.figures.rates import memory, throughput, throughput_of_settings
from hpcddrl.figures.shares import phase_bars, phases_over_time
from hpcddrl.figures.traffic import traffic_matrix
from hpcddrl.logs.read import Runs

LEARNED = (
    *("loss", "policy_loss", "value_loss", "entropy", "grad_norm", "learning_rate", "td_error", "value_mean"),
    *(
        "rho_clipped",
        "rho_mean",
        "weight_mean",
        "pretext_loss",
        "pretext_error_moving",
        "replay_effective",
        "kl",
        "beta",
        "weight_own",
        "disagreement",
    ),
)


class Picture(NamedTuple):
    """A figure on the page."""

    title: str
    caption: str
    source: str  # a data: address


def picture(title: str, caption: str, figure: Figure) -> Picture:
    """Return a figure as it stands on the page: an SVG inside the page's own text."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    coded = base64.b64encode(file.getvalue().encode()).decode()
    return Picture(title, caption, f"data:image/svg+xml;base64,{coded}")


def of_run(run: Runs, layouts: pd.DataFrame, sent: pd.DataFrame) -> list[Picture]:
    """Draw one run."""
    tables = run.tables
    names = [name for name in LEARNED if name in tables["learning"] and tables["learning"][name].notna().any()]
    meanings = {name: run.columns[f"learning/{name}"] for name in names}
    explained = "; ".join(f"{name.replace('_', ' ')}: {meaning}" for name, (_, meaning) in meanings.items())
    return [
        picture(
            "Layout",
            "Roles and messages; numbers are of the whole job, as measured (~ as planned: collectives are in no log). "
            "Status messages to rank 0 are not drawn.",
            layout(layouts, sent),
        ),
        picture(
            "Learning curve",
            f"Mean return of the job's last {WINDOW} finished episodes, unclipped. Bands: stages, if they were told.",
            learning_curves(tables["episodes"], stages=tables["stages"]),
        ),
        *_pretext(Path(run.runs["path"].iloc[0])),
        picture(
            "Where the time went", "Share of wall time, all ranks of a role together.", phase_bars(tables["timing"])
        ),
        picture(
            "… over time",
            "An interval that reaches over a bar counts in proportion.",
            phases_over_time(tables["timing"]),
        ),
        picture("Throughput", "Rates of the whole job.", throughput(tables["progress"])),
        picture(
            "Age of data",
            "Lag: learner's version minus that of the weights that acted. Staleness: server's version minus that of "
            "the weights a gradient was made with.",
            ages(tables["learning"], tables["staleness"]),
        ),
        picture("Traffic", "Bytes a second that each rank sent, by tag.", traffic_matrix(tables["traffic"])),
        picture(
            "Learning",
            explained,
            learned(tables["learning"], names, {name: unit for name, (unit, _) in meanings.items()}),
        ),
        picture(
            "Memory",
            "Resident memory, the greatest rank of each role; the band is all of them.",
            memory(tables["progress"]),
        ),
    ]


def _pretext(run: Path) -> list[Picture]:
    """Show what the first group's pretext task made last, if there was one."""
    found = sorted((run / "pretext").glob("*.png"))[:1]
    shown = []
    for path in found:
        with Image.open(path) as image:
            rows = image.info.get("rows", "")
        coded = base64.b64encode(path.read_bytes()).decode()
        caption = f"Rows: {rows}. Of {path.stem}, from the last batch before it was written."
        shown.append(Picture("What the pretext task makes", caption, f"data:image/png;base64,{coded}"))
    return shown


def of_comparison(tables: Mapping[str, pd.DataFrame]) -> list[Picture]:
    """Draw several runs together."""
    return [
        picture(
            "Learning curves",
            "Interquartile mean over seeds (of fewer than four: the mean) with its 95 % bootstrap interval; thin lines "
            "are the seeds. A line ends where the first of its seeds does.",
            learning_curves(tables["episodes"]),
        ),
        picture("Throughput", "A dot a run, the bar their mean.", throughput_of_settings(tables["progress"])),
        picture(
            "Where the time went",
            "Share of wall time, all ranks of a role and all seeds of a setting together.",
            phase_bars(tables["timing"], ("setting", "role")),
        ),
    ]
