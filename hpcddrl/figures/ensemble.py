"""What groups are to each other: weights in the mixture, and how far their policies are apart."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpcddrl.figures.curves import OVER
from hpcddrl.figures.statistics import binned
from hpcddrl.figures.style import colours, gap, gap_figure, panels, short, styled

POINTS = 100
APART = {  # columns of /exchange
    "divergence": "KL between two groups, nat",
    "kl": "KL(ensemble ‖ own policy), nat",
    "disagreement": "states on which two would act differently",
}
NO_MEMBERS = "no group has heard others: there are no weights of a mixture to draw"
NO_EXCHANGE = "no group has exchanged anything with another"


def members(peers: pd.DataFrame) -> pd.DataFrame:
    """Return the mean weight of each member in all groups' mixtures over frames: member, job_frames, weight."""
    parts = [
        binned(own, "job_frames", ["weight"], POINTS).assign(member=int(member))
        for member, own in peers.dropna(subset=["weight", "member"]).groupby("member")
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["job_frames", "weight", "member"])


@styled
def mixture(peers: pd.DataFrame, exchange: pd.DataFrame) -> Figure:
    """Draw one run's weights c of the members, and how far its groups are apart, over frames.

    Args:
        peers: member, weight, job_frames.
        exchange: divergence [nat], kl [nat], disagreement [share], job_frames.
    """
    kept = [name for name in APART if exchange[name].notna().any()]
    if not len(exchange):
        return gap_figure(NO_EXCHANGE)
    shown = 1 + max(1, len(kept))
    figure, axes = panels(-(-shown // 2), 2, 2.4)
    _weights(axes[0], members(peers))
    for panel, name in zip(axes[1:], kept, strict=False):
        line = binned(exchange.dropna(subset=[name]), "job_frames", [name], POINTS)
        panel.plot(line["job_frames"], line[name])
        panel.set(title=APART[name], xlabel=OVER["job_frames"])
        panel.set_ylim(bottom=0)
        short("x", panel)
    for panel in axes[shown:]:
        panel.set_visible(False)
    if not kept:
        gap(axes[1], "the groups' policies were not compared: that is done for ensembles only")
    return figure


def _weights(axes: Axes, found: pd.DataFrame) -> None:
    """Draw a line a member."""
    if not len(found):
        gap(axes, NO_MEMBERS)
        return
    for member, (colour, dashes) in colours(f"{m}" for m in sorted(found["member"].unique())).items():
        own = found[found["member"] == int(member)]
        axes.plot(own["job_frames"], own["weight"], color=colour, linestyle=dashes, linewidth=1.2, label=member)
    axes.set(title="weight c of each group", xlabel=OVER["job_frames"])
    axes.set_ylim(bottom=0)
    axes.legend(title="group", ncols=4, fontsize=7.5)
    short("x", axes)
