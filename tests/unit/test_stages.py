"""The stage detector on made-up curves, on recorded ones, and by thresholds given by hand."""

import itertools
import math
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from hpcddrl.config.stages import DetectedStages, Detector, StagesByFrames, StagesByReturn
from hpcddrl.rl.stages import MOST, State, decisions, observe
from hpcddrl.types import Stage

DETECTED = DetectedStages()
EARLY, MIDDLE, LATE = Stage
CURVES = Path(__file__).parent / "data"


def of(returns, stages=DETECTED):
    """Return the decisions about episodes of 13 frames each."""
    return decisions(((13.0 * (i + 1), float(r)) for i, r in enumerate(returns)), stages)


def switches(made):
    return "".join("EML"[decision.stage] for decision in made)


def rise(episodes, middle, width, height):
    return height / (1 + np.exp(-(np.arange(episodes) - middle) / width))


def autoregressive(rng, n, rho, deviation):
    noise, x = rng.normal(size=n) * deviation * math.sqrt(1 - rho**2), np.zeros(n)
    for t in range(n):
        x[t] = (rho * x[t - 1] if t else 0.0) + noise[t]
    return x


def test_a_slow_start_a_rise_and_a_plateau():
    for seed in range(5):
        made = of(rise(6000, 2000, 150, 10) + np.random.default_rng(seed).normal(size=6000))
        assert switches(made) == "ML"
        middle, late = made
        assert 1300 < middle.episodes < 2000
        assert 2500 < late.episodes < 4500
        assert middle.frames == 13.0 * middle.episodes


def test_each_decision_says_why_in_words_and_numbers():
    middle, late = of(rise(6000, 2000, 150, 10) + np.random.default_rng(0).normal(size=6000))
    assert middle.before is EARLY
    assert middle.reason.startswith("left the band of random play: mean return ")
    assert middle.numbers["mean"] > middle.numbers["random_mean"] + middle.numbers["band"]
    assert f"{middle.numbers['mean']:.4g}" in middle.reason
    assert late.before is MIDDLE
    assert late.reason.startswith("on a plateau at ")
    numbers = late.numbers
    assert numbers["change_low"] < numbers["change"] < numbers["change_high"] < 0.1 * numbers["gain"]
    assert numbers["gain"] == pytest.approx(10, abs=0.5)


RANDOM_PLAY = {
    "normal": lambda rng, n: rng.normal(size=n),
    "pong": lambda rng, n: -21.0 + rng.poisson(0.8, size=n),
    "rare reward": lambda rng, n: (rng.random(n) < 0.01).astype(float),
    "less rare": lambda rng, n: (rng.random(n) < 0.1).astype(float),
    "heavy tails": lambda rng, n: rng.lognormal(0, 1.5, size=n),
    "one value": lambda rng, n: np.full(n, -15.0),
    "no worse than random": lambda rng, n: np.minimum(0, 50 - np.arange(n) / 10) / 100 + rng.normal(size=n),
}


def test_what_never_leaves_random_play_stays_early():
    """Measured over 100 seeds of 5,000 episodes each of the first five: 1 switch in 500 runs."""
    runs = itertools.product(RANDOM_PLAY, range(12))
    left = Counter(name for name, seed in runs if of(RANDOM_PLAY[name](np.random.default_rng(seed), 3000)))
    assert left.total() <= 1, left


def test_a_spike_of_luck_is_no_progress():
    for seed in range(10):
        returns = np.random.default_rng(seed).normal(size=2000)
        returns[400:430] += 8
        assert of(returns) == []


def test_a_longer_spike_is_left_again():
    for seed in range(10):
        returns = np.random.default_rng(seed).normal(size=2000)
        returns[400:550] += 8
        middle, early = of(returns)
        assert (middle.stage, early.stage) == (MIDDLE, EARLY)
        assert early.reason.startswith("fell back into the band of random play")


def test_a_run_that_still_rises_is_never_late():
    for seed in range(5):
        returns = np.maximum(0, np.arange(5000) - 300) / 500 + np.random.default_rng(seed).normal(size=5000)
        assert switches(of(returns)) == "M"


def test_a_drop_ends_a_plateau_until_there_is_another():
    for seed in range(5):
        returns = rise(6000, 1000, 100, 10) + np.random.default_rng(seed).normal(size=6000)
        returns[4000:] -= 5
        made = of(returns)
        assert switches(made) == "MLML"
        assert made[2].reason.startswith("fell below the plateau at ")
        assert 4000 < made[2].episodes < 4500


def test_a_second_rise_ends_a_plateau():
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=8000)
        made = of(rise(8000, 1000, 100, 5) + rise(8000, 5000, 100, 5) + noise)
        assert switches(made) == "MLML"
        assert made[2].reason.startswith("rose above the plateau")


def test_a_collapse_after_a_plateau_is_early_again():
    for seed in range(5):
        returns = rise(5000, 1000, 100, 10)
        returns[4000:] = 0
        made = of(returns + np.random.default_rng(seed).normal(size=5000))
        assert switches(made) in ("MLE", "MLME")
        assert made[2].episodes < 4300


def test_it_does_not_flap_on_autocorrelated_returns():
    """A plateau of returns with ρ = 0.8 between episodes; measured over 100 seeds: 97 ML, 3 M, nothing else."""
    seen = Counter(
        switches(of(rise(6000, 2000, 150, 10) + autoregressive(np.random.default_rng(seed), 6000, 0.8, 1.5)))
        for seed in range(15)
    )
    assert seen["ML"] >= 12, seen
    assert seen["ML"] + seen["M"] >= 14, seen


def test_the_rewards_range_does_not_matter():
    returns = rise(4000, 1000, 100, 10) + np.random.default_rng(1).normal(size=4000)
    plain, scaled = of(returns), of(1e-3 * returns - 500)
    assert [(d.stage, d.episodes) for d in plain] == [(d.stage, d.episodes) for d in scaled]
    assert switches(plain) == "ML"


def test_stages_last_as_long_as_asked():
    returns = np.random.default_rng(0).normal(size=4000) + 8 * (np.arange(4000) // 150 % 2)
    for dwell, share in ((0, 0.0), (400, 0.0), (0, 0.1), (200, 0.3)):
        made = of(returns, DetectedStages(dwell_episodes=dwell, dwell_share=share))
        assert len(made) > 2
        assert all(b.episodes - a.episodes >= max(dwell, share * a.episodes) for a, b in itertools.pairwise(made))


def test_the_state_is_a_small_value():
    """Stored halfway and read again it goes on alike, and it does not grow with the run."""
    returns = rise(30_000, 1000, 400, 10) + np.random.default_rng(1).normal(size=30_000)
    state, other, made, again = State(), State(), [], []
    for i, value in enumerate(returns):
        state, decision = observe(state, i, value, DETECTED)
        made += [decision] if decision else []
        other, decision = observe(other, i, value, DETECTED)
        again += [decision] if decision else []
        if i == 2000:
            other = pickle.loads(pickle.dumps(other))
    assert made == again
    assert made
    assert state == other
    assert len(state.blocks) < MOST
    assert len(pickle.dumps(state)) < 5000


@pytest.mark.parametrize(
    ("name", "expected"), [("catch", "ML"), ("cartpole", "M"), ("lost", ""), ("catch_swings", "MEM")]
)
def test_recorded_curves(name, expected):
    """Of real runs: Catch, CartPole that just came to its best, Catch with a learning rate too small to learn, and
    Catch that goes up and down for long before it learns."""
    curve = np.load(CURVES / f"returns_{name}.npz")
    made = decisions(zip(curve["frames"].tolist(), curve["returns"].tolist(), strict=True), DETECTED)
    assert switches(made) == expected
    for decision in made:
        at = decision.episodes
        newest = curve["returns"][at - 100 : at].mean()
        assert newest == pytest.approx(decision.numbers["mean"])


def test_thresholds_by_return():
    stages = StagesByReturn(middle_above=2, late_above=8, margin=1, window_episodes=50, dwell_episodes=0)
    made = of(np.concatenate([np.linspace(0, 10, 1000), np.linspace(10, 0, 1000)]), stages)
    assert switches(made) == "MLME"
    assert [d.numbers["mean"] for d in made] == pytest.approx([2, 8, 7, 1], abs=0.02)
    assert made[0].reason == "mean return 2.007 of the last 50 episodes against the given 2 and 8"


def test_thresholds_by_frames():
    made = of(np.zeros(100), StagesByFrames(middle_from=130, late_from=1000))
    assert [(d.stage, d.frames) for d in made] == [(MIDDLE, 130), (LATE, 1001)]
    assert made[0].reason == "middle from 130 frames on, as given"
    assert of([0.0], StagesByFrames(middle_from=1, late_from=2))[0].stage is LATE
    in_disorder = decisions([(200, 0.0), (100, 0.0), (300, 0.0)], StagesByFrames(middle_from=150, late_from=1000))
    assert [d.frames for d in in_disorder] == [200]


def test_a_return_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match=r"episode_return = nan at 13 frames: must be a finite number"):
        of([math.nan])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"kind": "detected", "inner_band": 0.5},
            ["stages.detector.inner_band = 0.5", "detector.band = 0.5", "set less"],
        ),
        (
            {"kind": "detected", "flat_gain": 0.3},
            ["stages.detector.flat_gain = 0.3", "detector.changed_gain = 0.2"],
        ),
        ({"kind": "detected", "random_episodes": 39}, ["stages.detector.random_episodes = 39", "set 40 or more"]),
        ({"kind": "detected", "window_episodes": 150}, ["stages.detector.window_episodes = 150", "set 160 or more"]),
        (
            {"kind": "by_return", "middle_above": 5, "late_above": 5},
            ["detector.middle_above = 5", "detector.late_above"],
        ),
        (
            {"kind": "by_return", "middle_above": 1, "late_above": 5, "margin": 4},
            ["detector.margin = 4", "set less"],
        ),
        (
            {"kind": "by_frames", "middle_from": 2e6, "late_from": 1e6},
            ["detector.middle_from", "detector.late_from"],
        ),
        ({"kind": "by_frames", "middle_from": -1, "late_from": 1e6}, ["middle_from", "greater than 0"]),
        ({"kind": "by_return", "late_above": 5}, ["middle_above", "required"]),
    ],
)
def test_contradictions_are_named(given, words):
    with pytest.raises(ValidationError) as error:
        TypeAdapter(Detector).validate_python(given)
    assert all(word in str(error.value) for word in words), error.value
