"""What rank 0 makes of the returns that come in, and what it keeps for a resumed run."""

import math

import numpy as np

from hpcddrl.config import DetectedStages, NoDetector, StagesByFrames
from hpcddrl.logs.packing import pack, unpack
from hpcddrl.rl.stages import decisions
from hpcddrl.roles.counters import counters_for
from hpcddrl.roles.stages import RETURNS, Watch, most_returns
from hpcddrl.types import Stage, Step, Weights


def curve():
    """Return returns that rise after a while and stay."""
    rng = np.random.default_rng(0)
    return (10 / (1 + np.exp(-(np.arange(5000) - 1500) / 150)) + rng.normal(size=5000)).tolist()


def test_it_decides_as_the_detector_does_and_says_so():
    said = []
    watch = Watch(DetectedStages(), said.append)
    for i, value in enumerate(curve()):
        watch.see(13.0 * (i + 1), [value])
    wanted = decisions(((13.0 * (i + 1), r) for i, r in enumerate(curve())), DetectedStages())
    assert [d.stage for d in wanted] == [Stage.MIDDLE, Stage.LATE]
    assert [line.split(":")[0] for line in said] == [
        f"stage {d.stage.name.lower()} from {d.frames:,.0f} frames on" for d in wanted
    ]
    assert watch.stage is Stage.LATE
    why = watch.why(Stage.LATE)
    assert why["reason"] == wanted[-1].reason
    assert why["frames"] == wanted[-1].frames
    assert set(wanted[-1].numbers) <= set(why)


def test_a_resumed_run_goes_on_in_its_stage():
    """As if it had never stopped, whatever was known when its checkpoint was written."""
    returns, found = curve(), []
    for cut in (0, 37, 1800, 4400):
        before, after = (Watch(DetectedStages(), lambda line: None) for _ in range(2))
        before.see(1.0, returns[:cut])
        after.restore(unpack(np.frombuffer(b"".join(pack(before.state()).pieces()), np.uint8)))
        assert after.stage is before.stage
        assert cut < 4000 or "the segment before" in after.why(Stage.LATE)["reason"]
        after.see(1.0, returns[cut:])
        found.append(after.state()["known"])
    assert after.stage is Stage.LATE
    assert len(set(found)) == 1


def test_without_a_detector_no_returns_are_sent():
    assert most_returns(NoDetector()) == 0
    assert most_returns(DetectedStages()) == RETURNS


def test_a_return_that_is_no_number_is_passed_over():
    watch = Watch(StagesByFrames(middle_from=5, late_from=9), lambda line: None)
    watch.see(6.0, [math.nan])
    assert watch.stage is Stage.EARLY
    watch.see(6.0, [math.nan, 1.0])
    assert watch.stage is Stage.MIDDLE


def step(*returns):
    values = np.array(returns, np.float32)
    ended = np.isfinite(values)
    return Step(np.zeros(len(values)), ~ended & False, values, values, values, np.where(ended, 7, 0))


def test_returns_are_told_once_the_newest_of_many():
    counters = counters_for(1, 1, returns=3)
    counters.stepped(step(1.0, np.nan, 2.0))
    assert counters.returns() == [1.0, 2.0]
    assert counters.returns() == []
    counters.stepped(step(1.0, 2.0, 3.0, 4.0))
    assert counters.returns() == [2.0, 3.0, 4.0]
    nobody = counters_for(1, 1)
    nobody.stepped(step(1.0))
    assert nobody.returns() == []


def test_weights_enter_a_stage_once():
    weights = Weights(4, None)
    assert weights.entering(None, 5) is weights
    assert weights.entering(Stage.EARLY, 5) is weights
    entered = weights.entering(Stage.MIDDLE, 5)
    assert (entered.stage, entered.since, entered.version) == (Stage.MIDDLE, 5, 4)
    assert entered.entering(Stage.MIDDLE, 9) is entered
