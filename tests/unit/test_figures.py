"""Figures and the numbers in them: against hand-computed ones, and on tables with nothing in them."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from written_runs import config_of, write_run

from hpcddrl.config.compression import Student
from hpcddrl.figures.ages import NO_LAG, ages, lag_over_time, mean_staleness
from hpcddrl.figures.curves import NO_EPISODES, curves, final_returns, learned, learning_curves
from hpcddrl.figures.layout import layout
from hpcddrl.figures.rates import mean_rate, memory, rate, throughput, throughput_of_settings
from hpcddrl.figures.settings import differences, settings
from hpcddrl.figures.shares import PHASES, phase_bars, phase_shares, phases_over_time, shares_over_time
from hpcddrl.figures.statistics import binned, compared, estimated, interquartile_mean, interval, running_mean
from hpcddrl.figures.style import COLOURS, colours, si
from hpcddrl.figures.told import spans
from hpcddrl.figures.traffic import sent, traffic_matrix
from hpcddrl.logs.read import read_runs
from hpcddrl.logs.timing import Phase
from hpcddrl.settings import dump


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The tables of a run of a learner and two actors, and of one that has not written a row yet."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "full")
    write_run(folder / "empty", rows=0, end=False)
    found = read_runs([folder]).tables
    return {
        name: {key: table[table["run"] == name].assign(setting="one") for key, table in found.items()}
        for name in ("full", "empty")
    }


def texts(figure):
    """Return all that is written in a figure."""
    return [text.get_text().replace("\n", " ") for text in figure.findobj(mpl.text.Text) if text.get_text()]


# --- statistics


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2, 3, 100], 2.5), ([5], 5), ([1, 9], 5), ([1, 2, 90], 31), ([0, 1, 2, 3, 4, 5, 6, 99], 3.5)],
)
def test_the_interquartile_mean_by_hand(values, expected):
    assert interquartile_mean(np.array(values, float)) == pytest.approx(expected)
    low, high = np.array(values[::2], float), np.array(values[1::2], float)
    assert interquartile_mean(low, high) == pytest.approx(expected), "all strata together"


def exact_percentiles(strata, percentiles):
    """Return percentiles of the mean of the middle half over every way to draw the runs anew within their strata."""
    drawn = itertools.product(*(itertools.product(runs, repeat=len(runs)) for runs in strata))
    whole = np.sort([np.concatenate(runs) for runs in drawn], axis=1)
    cut = whole.shape[1] // 4
    return np.percentile(whole[:, cut : whole.shape[1] - cut].mean(axis=1), percentiles)


@pytest.mark.parametrize("strata", [([1.0, 4.0, 9.0, 16.0, 30.0],), ([0.0, 1.0, 5.0], [10.0, 12.0, 20.0])])
@pytest.mark.parametrize("level", [0.95, 0.6])
def test_the_bootstrap_interval_is_that_of_all_resamples(strata, level):
    found = interval(*map(np.array, strata), level=level, resamples=20_000)
    for value, percentile in zip(found, (50 * (1 - level), 50 * (1 + level)), strict=True):
        low, high = exact_percentiles(strata, [percentile - 0.8, percentile + 0.8])
        assert low <= value <= high


def test_runs_are_drawn_within_their_stratum():
    low, high = interval(np.zeros(3), np.full(3, 10.0))
    assert (low, high) == (5, 5), "every draw has three runs of each"


def test_an_interval_is_computed_point_by_point_and_is_the_same_each_time():
    runs = np.array([[0.0, 5.0, 1.0], [1.0, 5.0, 3.0]])
    low, high = interval(runs)
    np.testing.assert_array_equal(low, [0, 5, 1])
    np.testing.assert_array_equal(high, [1, 5, 3])
    np.testing.assert_array_equal(interval(runs)[0], low)


def test_one_run_has_no_interval():
    with pytest.raises(ValueError, match="at least two runs of each stratum; make a run with another --seed"):
        interval(np.array([1.0, 2.0]), np.array([1.0]))


def test_two_interquartile_means_are_compared_by_hand():
    ours, theirs = np.array([9.0, 1, 2, 3, 4, 100, -50, 5]), np.array([1.0, 2, 3, 6])
    assert estimated(ours).value == 3.5  # of 2, 3, 4 and 5: two of eight are cut off at either end
    assert compared([ours], [theirs], np.subtract).value == 3.5 - 2.5
    assert compared([ours], [theirs], np.divide).value == 3.5 / 2.5


@pytest.mark.parametrize("how", [np.subtract, np.divide])
def test_the_interval_of_a_comparison_is_that_of_all_the_draws_of_both(how):
    ours, theirs = np.array([1.0, 4.0, 9.0]), np.array([2.0, 3.0, 5.0])
    means = [np.array([np.mean(drawn) for drawn in itertools.product(runs, repeat=3)]) for runs in (ours, theirs)]
    every = how(*np.meshgrid(*means))
    found = compared([ours], [theirs], how)
    for value, percentile in ((found.low, 2.5), (found.high, 97.5)):
        low, high = np.percentile(every, [percentile - 1.5, percentile + 1.5])
        assert low <= value <= high
    assert not found.excludes(found.value)
    assert found.excludes(found.high + 1)
    assert found.excludes(found.low - 1)


def test_a_comparison_draws_within_strata_too():
    low, high = np.zeros(3), np.ones(3)
    assert compared([low, high], [low, low], np.subtract) == (0.5, 0.5, 0.5)


def test_a_comparison_with_one_run_excludes_nothing():
    found = compared([np.array([1.0])], [np.array([0.0, 1.0])], np.subtract)
    assert found.value == 0.5
    assert np.isnan(found.low)
    assert not found.excludes(100.0)


def test_a_running_mean_is_that_of_a_slow_loop():
    rng = np.random.default_rng(0)
    x, values, at = rng.random(40), rng.normal(size=40), np.linspace(-0.1, 1.1, 23)
    found = running_mean(x, values, at, window=7)
    for point, mean in zip(at, found, strict=True):
        before = values[np.argsort(x)][np.sort(x) <= point][-7:]
        np.testing.assert_allclose(mean, before.mean() if len(before) else np.nan)


def test_bins_keep_means_and_leave_no_empty_rows():
    table = pd.DataFrame({"x": [0.0, 1, 2, 9, np.nan], "y": [1.0, 3, 5, 7, 9]})
    assert binned(table, "x", ["y"], 9)["y"].tolist() == [1, 3, 5, 7]
    assert binned(table, "x", ["y"], 2).to_numpy().tolist() == [[1, 3], [9, 7]]


# --- shares, rates, ages


def timing(rows):
    """Return a table of phases from (role, segment, rank, time, {phase: seconds})."""
    made = [{"role": r, "segment": s, "rank": n, "time": t, "seconds": t, **phases} for r, s, n, t, phases in rows]
    return pd.DataFrame(made).fillna(0.0)


def test_the_shares_of_a_role_are_of_the_time_of_all_its_ranks():
    table = timing(
        [
            ("actor", 1, 0, 1.0, {"env": 0.5, "wait": 0.5}),
            ("actor", 1, 1, 3.0, {"env": 3.0}),
            ("learner", 1, 2, 2.0, {"gradient": 1.5, "wait": 0.5}),
        ]
    )
    shares = phase_shares(table, ["role"])
    assert shares.loc["actor", ["env", "wait"]].tolist() == [3.5 / 4, 0.5 / 4]
    assert shares.loc["learner", ["env", "gradient", "wait"]].tolist() == [0, 0.75, 0.25]
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_shares_over_time_split_an_interval_at_the_edges():
    table = timing([("actor", 1, 0, 3.0, {"env": 3.0}), ("actor", 1, 0, 4.0, {"wait": 1.0})])
    shares = shares_over_time(table, np.array([0.0, 2.0, 4.0, 6.0]))
    np.testing.assert_allclose(shares["env"], [1, 0.5, np.nan])
    np.testing.assert_allclose(shares["wait"], [0, 0.5, np.nan])


def test_every_phase_has_a_colour_of_its_own():
    assert list(map(str, Phase)) == list(dict.fromkeys(map(str, Phase)))
    assert set(PHASES) == set(map(str, Phase))
    assert len(set(PHASES.values())) == len(PHASES)


def test_rates_are_of_all_ranks_and_join_segments():
    progress = pd.DataFrame(
        {
            "segment": [1, 1, 1, 2],
            "rank": [0, 0, 1, 0],
            "time": [1.0, 2.0, 2.0, 1.0],
            "seconds": [1.0, 2.0, 2.0, 3.0],
            "frames": [10.0, 40.0, 20.0, 7.0],
        }
    )
    np.testing.assert_allclose(rate(progress, "frames", np.array([0.0, 1.0, 2.0, 3.0])), [20, 40, 7])
    assert mean_rate(progress, "frames") == pytest.approx(67 / 3)


def test_staleness_is_weighed_by_its_counts():
    assert mean_staleness(pd.DataFrame({"staleness": [0.0, 2.0], "count": [1.0, 3.0]})) == 1.5
    assert np.isnan(mean_staleness(pd.DataFrame({"staleness": [], "count": []})))


def test_lags_of_several_learners_are_drawn_as_one():
    learning = pd.DataFrame(
        {
            "segment": 1,
            "rank": [0, 1, 0, 1],
            "seconds": [1.0, 1.2, 5.0, 5.2],
            "lag_min": [0.0, 1.0, 2.0, 2.0],
            "lag_mean": [1.0, 3.0, 4.0, 6.0],
            "lag_max": [2.0, 9.0, 5.0, 7.0],
        }
    )
    found = lag_over_time(learning)[["lag_min", "lag_mean", "lag_max"]]
    assert found.to_numpy().tolist() == [[0, 2, 9], [2, 5, 7]]


def test_bytes_a_second_are_those_of_all_segments_over_their_time(tables):
    assert sent(tables["full"]["traffic"], ["role"])["bytes"].to_dict() == {
        ("learner", "weights"): 4000,
        ("actor", "rollout"): 4000,
    }
    twice = pd.concat([tables["full"]["traffic"], tables["full"]["traffic"].assign(segment=2)])
    assert sent(twice, ["role"])["messages"].to_dict() == {("learner", "weights"): 1, ("actor", "rollout"): 4}


# --- curves


def episodes(run, returns, frames=100.0, superseded=False, setting="one", game="g"):
    at = frames * np.arange(1, len(returns) + 1)
    table = {"run": run, "setting": setting, "game": game, "return": np.asarray(returns, float), "job_frames": at}
    return pd.DataFrame(table | {"seconds": at / 10, "superseded": superseded})


def test_curves_reach_as_far_as_all_seeds_do():
    both = pd.concat([episodes("a", [1.0] * 8), episodes("b", [3.0] * 4)])
    at, seeds = curves(both, "job_frames", window=4, points=5)
    assert (at[0], at[-1]) == (200, 400)
    assert seeds.tolist() == [[1] * 5, [3] * 5]


def test_final_returns_by_hand():
    table = pd.concat([episodes("a", [0.0, 2.0, 4.0]), episodes("b", [5.0, 5.0]), episodes("c", [7.0], setting="two")])
    rows = final_returns(table, window=2).set_index("setting")
    assert rows.loc["one", ["seeds", "iqm", "low", "high"]].tolist() == [2, 4, 3, 5]
    assert rows.loc["two", ["seeds", "iqm"]].tolist() == [1, 7]
    assert np.isnan(rows.loc["two", "low"])


def test_what_was_done_anew_is_drawn_over_seconds_only():
    table = pd.concat([episodes("a", [1.0] * 6), episodes("a", [9.0] * 3, superseded=True)])
    figure = learning_curves(table, window=1)
    over_frames, over_seconds = (panel.lines[0].get_ydata() for panel in figure.axes)
    assert over_frames.max() == 1
    assert over_seconds.max() > 1


def test_each_environment_has_a_panel_and_each_setting_a_line_band_and_name():
    table = pd.concat(
        [
            *(episodes(f"a{seed}", [seed] * 5, setting="A") for seed in range(3)),
            episodes("b", [1.0] * 5, setting="B", game="h"),
        ]
    )
    figure = learning_curves(table, window=2)
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["g", "", "h", ""]
    assert {"A", "B", "environment frames", "seconds of running"} <= set(texts(figure))
    assert len(figure.axes[0].lines) == 4, "three seeds and their mean"
    assert len(figure.axes[0].collections) == 1, "the interval"
    assert len(figure.axes[2].collections) == 0, "one seed has none"


def test_seeds_that_never_ran_at_the_same_time_have_no_band_and_other_rows_their_own_label():
    late = episodes("a2", [1.0] * 3).assign(seconds=[50.0, 51.0, 52.0], job_frames=[50.0, 51.0, 52.0])
    early = episodes("a1", [1.0] * 3).assign(seconds=[1.0, 2.0, 3.0], job_frames=[1.0, 2.0, 3.0])
    figure = learning_curves(pd.concat([early, late]), window=1, label="steps")
    assert len(figure.axes[0].collections) == 0
    assert "steps" in texts(figure)


# --- pictures


DRAWN = {
    "curves": lambda t: learning_curves(t["episodes"]),
    "learned": lambda t: learned(t["learning"], ["loss", "entropy", "kl"], {"entropy": "nat"}),
    "bars": lambda t: phase_bars(t["timing"]),
    "over time": lambda t: phases_over_time(t["timing"]),
    "throughput": lambda t: throughput(t["progress"]),
    "throughput of settings": lambda t: throughput_of_settings(t["progress"]),
    "memory": lambda t: memory(t["progress"]),
    "ages": lambda t: ages(t["learning"], t["staleness"]),
    "traffic": lambda t: traffic_matrix(t["traffic"]),
}


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("which", ["full", "empty"])
def test_figures_are_drawn_and_an_empty_one_says_why(tables, name, which, tmp_path):
    before = dict(mpl.rcParams)
    figure = DRAWN[name](tables[which])
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "a.svg")
    explained = any(" no " in f" {text}" or "nothing" in text for text in texts(figure))
    assert explained == (which == "empty"), texts(figure)
    assert dict(mpl.rcParams) == before, "nothing else is drawn in another style"


def test_axes_have_units(tables):
    full = tables["full"]
    assert {"entropy", "nat", "loss", "environment frames"} <= set(
        texts(learned(full["learning"], ["loss", "entropy"], {"entropy": "nat"}))
    )
    assert "kl" not in texts(learned(full["learning"], ["loss", "kl"], {})), "never logged"
    assert {"updates", "seconds of running", "intervals"} <= set(texts(ages(full["learning"], full["staleness"])))
    drawn = memory(full["progress"])
    drawn.draw_without_rendering()  # makes the numbers on its axes
    assert any("MB" in text for text in texts(drawn))
    assert {"actor 1", "actor 2", "learner 0", "2 kB/s", "4 kB/s"} <= set(texts(traffic_matrix(full["traffic"])))
    assert {"learner", "actor", "gradient 60%", "env 50%", "wait 40%"} <= set(texts(phase_bars(full["timing"])))


def test_many_groups_are_drawn_with_their_mean(tables):
    one = tables["full"]["learning"]
    many = pd.concat([one.assign(group=group, loss=float(group)) for group in range(9)])
    figure = learned(many, ["loss"], {})
    assert texts(figure).count("mean of 9") == 1
    np.testing.assert_allclose(figure.axes[0].lines[-1].get_ydata(), 4)
    assert len(figure.axes[0].lines) == 10


def test_messages_explain_themselves():
    assert NO_EPISODES in " ".join(texts(learning_curves(episodes("a", []))))
    assert NO_LAG.split(":")[0] in " ".join(
        texts(ages(pd.DataFrame(columns=["lag_min", "lag_mean", "lag_max", "seconds"]), pd.DataFrame()))
    )


def test_a_layout_has_its_roles_and_the_rates_of_its_messages():
    roles = pd.DataFrame(
        [["actor", 8, 4, "1-2, 4-5"], ["replay", 4, 4, "3"], ["learner", 4, 4, "0"], ["server", 1, 0, "12"]],
        columns=["role", "count", "groups", "ranks"],
    )
    sent_ = pd.DataFrame(
        [
            ["rollout", "actor", "replay", 1.5e6, False],
            ["weights", "learner", "actor", 2e6, False],
            ["weights", "server", "learner", 3e6, False],
            ["allreduce", "learner", "learner", 4e6, True],
        ],
        columns=["kind", "sender", "receiver", "bytes_per_s", "expected"],
    )
    figure = layout(roles, sent_)
    expected = {"actor × 8", "replay × 4", "learner × 4", "server × 1", "one of 4 groups", "rollout 1.5 MB/s"}
    assert expected | {"weights 2 MB/s", "weights 3 MB/s", "allreduce ~4 MB/s"} <= set(texts(figure))
    arrows = [p for p in figure.axes[0].patches if isinstance(p, mpl.patches.FancyArrowPatch)]
    assert len(arrows) == 4
    assert "nothing of the layout can be drawn" in " ".join(texts(layout(roles[:0], sent_[:0])))


def test_colours_are_told_apart_by_lines_when_they_run_out():
    names = [str(i) for i in range(3 * len(COLOURS))]
    assert len(set(colours(names).values())) == len(names)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        *[(0, "", "0"), (12.345, "", "12.3"), (1500, "", "1.5k"), (-2e6, "", "-2M"), (999.6, "", "1k")],
        (0.0123, "", "0.0123"),
        *[(100e3, "", "100k"), (3.2e9, "B", "3.2 GB"), (120, "B/s", "120 B/s"), (float("nan"), "", "–")],
    ],
)  # fmt: skip
def test_numbers_are_written_shortly(value, unit, expected):
    assert si(value, unit) == expected


# --- settings


def test_runs_that_differ_in_seed_and_budget_alone_are_one_setting():
    a, b = dump(config_of(seed=1)), dump(config_of(seed=2))
    b["budget"] = {"frames": None, "seconds": 9.0, "target_return": None}
    long = dump(config_of()) | {"precision": "bf16"}
    apex = dump(config_of("apex", ranks=4))
    found = settings({"a": a, "b": b, "long": long, "apex": apex})
    assert found == {
        "a": "impala, precision = auto",
        "b": "impala, precision = auto",
        "long": "impala, precision = bf16",
        "apex": "apex",
    }


def test_an_answer_of_an_axis_is_named_without_the_fields_that_come_with_it():
    plain, halves = dump(config_of()), dump(config_of(compression=Student(width=0.5)))
    found = settings({"plain": plain, "student": halves})
    assert found == {"plain": "impala, compression = uncompressed", "student": "impala, compression = student"}
    quarters = dump(config_of(compression=Student(width=0.25)))
    found = settings({"plain": plain, "student": halves, "smaller": quarters})
    assert found["plain"] == "impala, compression = uncompressed"
    assert found["smaller"] == "impala, compression = student, compression.width = 0.25"
    assert found["student"] == "impala, compression = student, compression.width = 0.5"


def test_a_field_that_is_lacking_without_reason_tells_settings_apart():
    """As of a run of an older version."""
    new, old = dump(config_of()), dump(config_of())
    del old["precision"]
    assert settings({"new": new, "old": old}) == {"new": "impala, precision = auto", "old": "impala, precision = –"}


def test_many_differences_are_numbered():
    wide = dump(config_of(ranks=5))
    for axis in ("algorithm", "optimization"):
        wide[axis] = {name: f"{value}0" for name, value in wide[axis].items()}
    assert set(settings({"a": dump(config_of()), "b": wide}).values()) == {"impala (1)", "impala (2)"}


def test_differences_are_the_fields_that_are_not_the_same_everywhere():
    a, b = dump(config_of(seed=1)), dump(config_of(seed=2, ranks=4))
    table = differences({"a": a, "b": b})
    assert table.to_dict("index") == {
        "seed": {"a": "1", "b": "2"},
        "topology.actors_per_group": {"a": "2", "b": "3"},
    }


# --- stages

TOLD = pd.DataFrame(
    {
        "stage": [1.0, 1.0, 2.0, 1.0],
        "reason": ["left", np.nan, "flat", "fell"],
        "job_frames": [100.0, 100.0, 400.0, 700.0],
        "seconds": [1.0, 1.0, 4.0, 7.0],
        "superseded": [False, False, False, True],
    }
)


def test_stages_are_those_of_the_rank_that_decided():
    assert spans(TOLD, "job_frames", 1000.0) == [("early", 0, 100), ("middle", 100, 400), ("late", 400, 1000)]
    assert spans(TOLD, "seconds", 9.0) == [("early", 0, 1), ("middle", 1, 4), ("late", 4, 9)]
    assert spans(TOLD[1:2], "seconds", 9.0) == []
    again = pd.concat([TOLD[:1], TOLD[:1].assign(seconds=3.0, job_frames=300.0)])
    assert spans(again, "seconds", 9.0) == [("early", 0, 1), ("middle", 1, 9)], "a segment that went on with it"


def test_learning_curves_have_bands_with_names(tables):
    figure = learning_curves(tables["full"]["episodes"], stages=TOLD)
    assert [texts(figure).count(name) for name in ("early", "middle", "late")] == [2, 2, 2]
    assert not {"early", "middle", "late"} & set(texts(learning_curves(tables["full"]["episodes"])))
    untold = learning_curves(tables["full"]["episodes"], stages=tables["full"]["stages"])
    assert not {"early", "middle", "late"} & set(texts(untold))
