"""Pictures of simulated jobs over their size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from hpcddrl.comm.placement import Role
from hpcddrl.simulation.model import Outcome


def draw(path: Path, title: str, outcomes: Sequence[Outcome], frames_per_s: Sequence[float]) -> None:
    """Draw frames per second, lag and who is busy over the number of ranks."""
    figure = Figure(figsize=(9, 10), layout="constrained")
    rate, age, load = figure.subplots(3, sharex=True)
    ranks = [outcome.ranks for outcome in outcomes]
    rate.plot(ranks, frames_per_s, "o-", label="simulated")
    rate.plot(ranks, [frames_per_s[0] * n / ranks[0] for n in ranks], ":", label="in proportion to the ranks")
    rate.set(title=title, ylabel="frames/s", yscale="log")
    age.plot(ranks, [outcome.lag for outcome in outcomes], "o-", label="lag of data")
    age.plot(ranks, [outcome.staleness for outcome in outcomes], "o-", label="staleness of gradients")
    age.set(ylabel="updates", yscale="symlog")
    for role in Role:
        if role in outcomes[0].load:
            load.plot(ranks, [outcome.load[role].most for outcome in outcomes], "o-", label=f"busiest {role}")
            load.plot(ranks, [outcome.load[role].wire for outcome in outcomes], ":", label=f"busiest link of a {role}")
    load.set(xlabel="ranks", ylabel="share of time", ylim=(0, 1.05), xscale="log")
    load.set_xticks(ranks, [f"{n:,}" for n in ranks])
    for axes in (rate, age, load):
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    figure.savefig(path, dpi=110)
