"""The figures of the notebooks, and the numbers in them: by hand, and on tables with nothing in them."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from written_runs import STEPS, config_of, write_run

from hpcddrl.config.compression import Student
from hpcddrl.figures.ages import ages_of_settings
from hpcddrl.figures.compression import PLAIN, amdahl, costs, following, latency_against_kl
from hpcddrl.figures.ensemble import members, mixture
from hpcddrl.figures.reaching import reached, reaching
from hpcddrl.figures.scaling import scaling, sizes
from hpcddrl.figures.settings import labelled
from hpcddrl.figures.stages import BANDS, spans, stage_bands
from hpcddrl.logs.read import only, read_runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two sizes, one of them with a student, and a run that has not written a row yet."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "plain", config_of(ranks=3))
    write_run(folder / "student", config_of(ranks=5, compression=Student()))
    write_run(folder / "empty", rows=0, end=False)
    return labelled(read_runs([folder]))


def texts(figure):
    return " ".join(text.get_text().replace("\n", " ") for text in figure.findobj(mpl.text.Text))


def widths(axes):
    """Return the widths of the bars in a panel."""
    return [patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle)]


def episodes(returns, run="a", setting="s"):
    """Return episodes that end every 100 frames and every second."""
    at = np.arange(1, len(returns) + 1)
    table = {"run": run, "setting": setting, "game": "g", "return": np.array(returns, float), "superseded": False}
    return pd.DataFrame(table | {"job_frames": 100.0 * at, "seconds": 1.0 * at})


# --- time to a return


def test_a_level_is_reached_when_the_mean_of_a_whole_window_is_there():
    both = pd.concat([episodes([9, 0, 0, 2, 4, 6, 8]), episodes([0, 0, 0, 0, 4, 4, 4], "b", "t")])
    found = reached(both, window=2).set_index("run")
    assert found["level"].tolist() == [4, 4], "the highest that both reached, of windows"
    assert found["seconds"].to_dict() == {"a": 2.0, "b": 6.0}, "9 and 0 are a mean of 4.5; a single 9 is none"
    assert found["job_frames"].to_dict() == {"a": 200.0, "b": 600.0}
    asked = reached(both, level=6, window=2).set_index("run")
    assert asked["seconds"]["a"] == 7
    assert np.isnan(asked["seconds"]["b"])
    figure = reaching(asked.reset_index())
    assert "to a mean return of 6; never: b" in texts(figure)
    assert [widths(axes) for axes in figure.axes] == [[700], [7]]


# --- stages


def test_stages_stand_behind_the_curve_where_the_returns_tell_them():
    rng = np.random.default_rng(0)
    curve = np.r_[np.zeros(300), np.linspace(0, 20, 400), np.full(900, 20.0)] + rng.normal(size=1600)
    table = episodes(curve)
    found = spans(table)
    assert found["stage"].tolist() == ["early", "middle", "late"]
    assert 300e2 <= found["start"][1] < 450e2
    assert found["start"][2] > 650e2
    assert found["end"].tolist() == [*found["start"][1:], 1600e2], "they adjoin and reach to the end"
    axes = stage_bands(table, found).axes[0]
    bands = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [mpl.colors.to_hex(band.get_facecolor()).upper() for band in bands] == list(BANDS.values())
    assert [band.get_x() for band in bands] == found["start"].tolist()


def test_what_was_done_anew_counts_for_no_stage():
    table = episodes(np.zeros(200)).assign(superseded=True)
    assert len(spans(table)) == 0
    assert "no episode" in texts(stage_bands(table, spans(table)))


# --- compression


def test_what_acting_took_by_hand(runs):
    found = costs(runs).set_index("run")
    assert set(found.index) == {"plain", "student"}, "the empty one has answered nothing"
    np.testing.assert_allclose(found["latency_s"], 0.3 / STEPS)
    np.testing.assert_allclose(found["share"], 0.3)
    np.testing.assert_allclose(found.loc[["plain", "student"], "predictions_per_s"], [2 * STEPS, 4 * STEPS])
    assert found.loc["plain", ["kind", "kl_before", "kl_after"]].tolist() == [PLAIN, 0, 0]
    np.testing.assert_allclose(found.loc["student", ["kl_before", "kl_after", "bytes"]].astype(float), [0.2, 0.1, 5000])
    points = [
        line.get_xydata() for line in latency_against_kl(found.reset_index()).axes[0].lines if len(line.get_xydata())
    ]
    np.testing.assert_allclose(points[0][0], [0.0, 3000])


def test_the_sheet_shows_each_factor_and_leaves_out_what_was_not_measured():
    sheet = pd.DataFrame({"name": ["a", "b"], "predicted": [1.2, 1.3], "bound": [1.5, 1.5], "measured": [1.1, np.nan]})
    said = texts(amdahl(sheet))
    assert all(number in said for number in ("1.20", "1.30", "1.10"))
    assert "nan" not in said
    assert "without compression" in texts(amdahl(sheet[:0]))


def test_followers_are_drawn_a_line_a_run(runs):
    lines = following(runs.tables["compression"]).axes[0].lines
    assert [line.get_label() for line in lines] == ["student"]
    np.testing.assert_allclose(lines[0].get_ydata(), 0.2)
    assert "no run compresses" in texts(following(only(runs, "plain").tables["compression"]))


# --- sizes


def test_sizes_and_rates_of_runs(runs):
    found = sizes(runs).set_index("run")
    assert found["ranks"].to_dict() == {"plain": 3, "student": 5}
    np.testing.assert_allclose(found.loc[["plain", "student"], "frames_per_s"], [2 * STEPS, 4 * STEPS])
    assert found["lag"].tolist() == [2, 2]
    simulated = pd.DataFrame({"ranks": [3, 300], "frames_per_s": [190.0, 9000], "lag": [2.0, np.nan]})
    figure = scaling(found.reset_index(), simulated)
    assert {"impala", "in proportion to the ranks", "simulated"} <= set(figure.axes[0].get_legend_handles_labels()[1])
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == ["3", "5", "300"]


def test_one_size_says_nothing_of_scaling(runs):
    assert "all runs have 3 ranks" in texts(scaling(sizes(only(runs, "plain"))))
    assert "wait for one logging interval" in texts(scaling(sizes(only(runs, "empty"))))


# --- groups


def test_the_weight_of_a_member_is_its_mean_over_the_groups_that_hear_it():
    rows = [[m, f, w] for f, ws in ((10, (0.2, 0.8)), (20, (0.4, 0.6))) for m, w in enumerate(ws)]
    rows += [[m, f, w] for f, ws in ((10, (0.4, 0.6)), (20, (0.0, 1.0))) for m, w in enumerate(ws)]
    found = members(pd.DataFrame(rows, columns=["member", "job_frames", "weight"]))
    assert found[found["member"] == 0]["weight"].tolist() == pytest.approx([0.3, 0.2])
    assert found[found["member"] == 1]["weight"].tolist() == pytest.approx([0.7, 0.8])


def test_a_mixture_shows_weights_and_distances_and_says_what_is_missing(runs):
    tables = only(runs, "plain").tables
    figure = mixture(tables["peers"], tables["exchange"])
    assert figure.axes[0].get_title(loc="left") == "weight c of each group"
    assert len(figure.axes) == 4
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), 0.75)
    assert "no weights" in texts(mixture(tables["peers"][:0], tables["exchange"]))
    assert "exchanged" in texts(mixture(tables["peers"], tables["exchange"][:0]))


# --- ages


def test_ages_side_by_side_by_hand(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"servers-{seed}", config_of("a3c", 3, seed=seed), rows=4)
    tables = labelled(read_runs([tmp_path])).tables
    figure = ages_of_settings(tables["learning"], tables["staleness"])
    assert widths(figure.axes[0]) == [2.0]
    assert widths(figure.axes[1]) == [1.5], "one of age 0 and three of age 2"
    assert "no lag was logged" in texts(ages_of_settings(tables["learning"][:0], tables["staleness"][:0]))
