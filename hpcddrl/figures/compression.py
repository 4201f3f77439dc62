"""What compressed networks cost and save where they act: latency against likeness, and Amdahl's law."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpcddrl.figures.curves import OVER
from hpcddrl.figures.rates import mean_rate
from hpcddrl.figures.shares import PHASES
from hpcddrl.figures.statistics import binned
from hpcddrl.figures.style import COLOURS, GRID, INK, colours, gap_figure, panels, short, styled
from hpcddrl.logs.read import Runs, only

POINTS = 120
COSTS = ["setting", "run", "kind", "latency_s", "share", "predictions_per_s", "kl_before", "kl_after", "bytes"]
PLAIN = "uncompressed"
NOTHING = "no run has evaluated a policy yet: wait for one logging interval"
NO_COMPRESSION = "no run compresses: add one that does (--set compression=student)"
NO_SHEET = "needs a run without compression and one with it, alike otherwise"


def costs(runs: Runs) -> pd.DataFrame:
    """Return what acting took in each run: a row a run.

    ``latency_s`` is the time of phase act for each observation answered, ``share`` that of act in the wall time of
    the ranks that answer; ``kl_before`` and ``kl_after`` [nat] are KL(learner ‖ published), means over all times it
    followed (0 without compression), and ``bytes`` those of one publication.

    Args:
        runs: labelled with their settings (`settings.labelled`).
    """
    rows = []
    for run, config in runs.configs.items():
        own = only(runs, run).tables
        progress, timing, followed = own["progress"], own["timing"], own["compression"]
        last = progress.groupby(["segment", "rank"])["predictions"].last()
        answering = last.index[last > 0]
        if not len(answering):
            continue
        spent = timing.set_index(["segment", "rank"]).loc[answering]
        seconds = spent[[phase for phase in PHASES if phase in spent]].sum()
        kind = config.get("compression", {}).get("kind", PLAIN)
        kl = followed[["kl_before", "kl_after"]].mean() if kind != PLAIN else pd.Series({"kl_before": 0, "kl_after": 0})
        label, rate = progress["setting"].iloc[0], mean_rate(progress, "predictions")
        latency, share = seconds["act"] / last.sum(), seconds["act"] / seconds.sum()
        rows.append([label, run, kind, latency, share, rate, *kl, followed["bytes"].mean()])
    return pd.DataFrame(rows, columns=COSTS)


@styled
def latency_against_kl(found: pd.DataFrame, settings: Sequence[str] = ()) -> Figure:
    """Draw how long an observation takes against how far what acts is from what learns; a point a run.

    Args:
        found: as `costs` gives it. A bar reaches from the KL after following to that before it.
        settings: see `curves.learning_curves`.
    """
    known = found.dropna(subset=["kl_after"])
    if not len(known):
        return gap_figure(NO_COMPRESSION if len(found) else NOTHING)
    figure, (axes,) = panels(1, 1, 3.2)
    looks = colours([*settings, *known["setting"]])
    for setting, own in known.groupby("setting", sort=False):
        colour, _ = looks[str(setting)]
        x, y = own["kl_after"].to_numpy(float), own["latency_s"].to_numpy(float) * 1e6
        drift = np.nan_to_num(np.maximum(0.0, own["kl_before"].to_numpy(float) - x))
        axes.errorbar(x, y, xerr=[np.zeros(len(x)), drift], fmt="o", color=colour, label=setting, capsize=3)
    axes.set(xlabel="KL(learner ‖ what acts), nat; 0: the network itself", ylabel="µs to act on an observation")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=-0.02 * max(axes.get_xlim()[1], 1e-9))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


@styled
def amdahl(sheet: pd.DataFrame) -> Figure:
    """Draw what the law predicts of faster acting, what it would allow at most, and what was measured.

    Args:
        sheet: a row a compressor: name, predicted, bound, measured (factors on observations a second; NaN: not run).
    """
    if not len(sheet):
        return gap_figure(NO_SHEET)
    figure, (axes,) = panels(1, 1, 1.3 + 0.5 * len(sheet))
    rows = np.arange(len(sheet))
    axes.barh(rows, sheet["bound"], color=GRID, height=0.78, label="if acting cost nothing")
    for shift, name, colour in ((-0.18, "predicted", COLOURS[0]), (0.18, "measured", COLOURS[1])):
        axes.barh(rows + shift, sheet[name], color=colour, height=0.3, label=name)
        for row, value in zip(rows, sheet[name], strict=True):
            if np.isfinite(value):
                axes.text(value, row + shift, f" {value:.2f}", va="center", fontsize=8.5)
    axes.axvline(1, color=INK, linewidth=1, linestyle="--")
    axes.set(yticks=rows, yticklabels=sheet["name"], xlabel="factor on observations answered a second")
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=3)
    return figure


@styled
def following(compression: pd.DataFrame) -> Figure:
    """Draw how far what acts is from what learns over frames, before and after it follows: a line a run."""
    known = compression.dropna(subset=["kl_after"])
    if not len(known):
        return gap_figure(NO_COMPRESSION)
    figure, axes = panels(1, 2, 2.6, sharey="row")
    for panel, name in zip(axes, ("kl_before", "kl_after"), strict=True):
        for run, (colour, dashes) in colours(known["run"]).items():
            line = binned(known[known["run"] == run], "job_frames", [name], POINTS)
            panel.plot(line["job_frames"], line[name], color=colour, linestyle=dashes, label=run)
        panel.set(title=f"{name.removeprefix('kl_')} following", xlabel=OVER["job_frames"])
        short("x", panel)
    axes[0].set_ylabel("KL(learner ‖ what acts), nat")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
