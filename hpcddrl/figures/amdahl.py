"""What faster predictions should give a job by Amdahl's law, beside what they gave."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hpcddrl.figures.rates import NOTHING
from hpcddrl.figures.style import COLOURS, FAINT, INK, gap_figure, panels, styled


@styled
def gains(rows: pd.DataFrame) -> Figure:
    """Draw each compressor's factor on predictions/s: by the law, as measured, and the most that there is to gain.

    Args:
        rows: compressor, speed_up, predicted, bound, measured (NaN where no run tells).
    """
    if not len(rows):
        return gap_figure(NOTHING)
    figure, (axes,) = panels(1, 1, 1.2 + 0.42 * len(rows))
    where = range(len(rows))
    axes.barh(where, rows["predicted"], 0.62, color=COLOURS[5], label="by the law")
    known = rows["measured"].notna().to_numpy()
    if known.any():
        axes.plot(rows["measured"][known], [i for i in where if known[i]], "D", color=COLOURS[1], label="measured")
    axes.axvline(rows["bound"].iloc[0], color=INK, linestyle="--", linewidth=1.2, label="if predictions cost nothing")
    axes.axvline(1.0, color=FAINT, linewidth=1.0)
    names = [f"{name}, {factor:.2f}× faster" for name, factor in zip(rows["compressor"], rows["speed_up"], strict=True)]
    axes.set(yticks=list(where), yticklabels=names, xlabel="factor on the job's predictions/s", xlim=(0, None))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
