"""The figures of the page, each with its title and caption."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from hpcddrl.commands.reporting.compression import amdahl_sheet, timed_sheet
from hpcddrl.figures.ages import ages
from hpcddrl.figures.amdahl import gains
from hpcddrl.figures.compression import PLAIN, amdahl, costs, following, latency_against_kl
from hpcddrl.figures.curves import WINDOW, learned, learning_curves
from hpcddrl.figures.ensemble import mixture
from hpcddrl.figures.evaluations import evaluation_curves, rounds
from hpcddrl.figures.layout import layout
from hpcddrl.figures.rates import memory, throughput, throughput_of_settings
from hpcddrl.figures.shares import phase_bars, phases_over_time
from hpcddrl.figures.traffic import traffic_matrix
from hpcddrl.logs.read import Runs, only

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
        *_evaluated(run),
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
        *_groups(tables),
        *_compressed(run),
    ]


def _evaluated(run: Runs) -> list[Picture]:
    """Draw the evaluations beside the training, if there were any."""
    evaluation, episodes = run.tables["evaluation"], run.tables["episodes"]
    if not len(evaluation):
        return []
    game = first_game(run)
    caption = (
        f"Full games of {game} from the same seeds each time, played with the weights there were; the band is the 95 % "
        "bootstrap interval over the games. Grey: the returns while training, which explore."
    )
    return [picture("Evaluation", caption, evaluation_curves(evaluation, episodes[episodes["game"] == game]))]


def _groups(tables: Mapping[str, pd.DataFrame]) -> list[Picture]:
    """Draw what groups were to each other, if they met."""
    if not (tables["exchange"]["peers"] > 0).any():
        return []
    caption = "Weights c in the mixture, mean over all groups, and how far the groups' policies are apart."
    return [picture("Groups", caption, mixture(tables["peers"], tables["exchange"]))]


def _compressed(run: Runs) -> list[Picture]:
    """Draw how far what acted was from what learned, and the sheet that `amdahl` has made."""
    shown = []
    if len(followed := run.tables["compression"]):
        caption = "KL between the learner and what acted in its place, when that followed it."
        shown.append(picture("Compression", caption, following(followed)))
    if len(rows := timed_sheet(Path(run.runs["path"].iloc[0]))):
        caption = "Of each compressor, as `amdahl` timed it on the machine where it was called."
        shown.append(picture("What compression can give (Amdahl's law)", caption, gains(rows)))
    return shown


def first_game(run: Runs) -> str:
    """Return the environment whose games are evaluated: of several the first."""
    return str(run.runs["env"].iloc[0]).partition(",")[0].strip()


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


def of_comparison(runs: Runs) -> list[Picture]:
    """Draw several runs together."""
    tables, settings = runs.tables, list(dict.fromkeys(runs.runs["setting"]))
    return [
        picture(
            "Learning curves",
            "Interquartile mean over seeds (of fewer than four: the mean) with its 95 % bootstrap interval; thin lines "
            "are the seeds. A line ends where the first of its seeds does.",
            learning_curves(tables["episodes"], settings=settings),
        ),
        *_evaluated_together(runs, settings),
        picture("Throughput", "A dot a run, the bar their mean.", throughput_of_settings(tables["progress"])),
        picture(
            "Where the time went",
            "Share of wall time, all ranks of a role and all seeds of a setting together.",
            phase_bars(tables["timing"], ("setting", "role")),
        ),
        *_compressed_together(runs, settings),
    ]


def _evaluated_together(runs: Runs, settings: Sequence[str]) -> list[Picture]:
    evaluation = runs.tables["evaluation"]
    if not len(evaluation):
        return []
    games = {name: first_game(only(runs, name)) for name in runs.configs}
    caption = (
        "Full games from the same seeds each time, the mean over a run's groups; lines and bands as above, from one "
        "evaluation to the next."
    )
    figure = learning_curves(rounds(evaluation, games), window=1, label="return, evaluated", settings=settings)
    return [picture("Evaluations beside the training", caption, figure)]


def _compressed_together(runs: Runs, settings: Sequence[str]) -> list[Picture]:
    found = costs(runs)
    if not (found["kind"] != PLAIN).any():
        return []
    return [
        picture(
            "What acting costs, and how like it is",
            "A point a run. A bar reaches to the KL before what acts followed what learns.",
            latency_against_kl(found, settings),
        ),
        picture(
            "What compression can give (Amdahl's law)",
            "From the share of acting in runs without compression, and from how long acting took in runs that are like "
            "them in all else.",
            amdahl(amdahl_sheet(runs)),
        ),
    ]
