"""Which stage a run is in, told from the returns of its episodes alone, without knowing the reward's range.

- *Early*: within the band of random play. The first episodes are taken for it: their mean, and the deviation σ of a
  single one. The run leaves it when the mean of the newest episodes is surely above (Welch's test on the means of
  blocks) and by some part of σ. Where many environments start together their short episodes end first, so the band
  should be of several episodes of each.
- *Late*: on a plateau. Over the latter half of the episodes since random play was left, both bounds of the change lie
  within a small share of all that was gained so far (Schuirmann 1987: two one-sided tests; `trends.line` allows for
  autocorrelation). This is more than "no significant slope", which too little data always show.
- *Middle*: neither.

Hysteresis: a stage is left by a larger change than it is entered by. Besides, each stage lasts for a least number of
episodes and for a share of those before it, so that a run that swings for long switches ever more seldom; and several
judgements in a row must agree on a switch.

The state is a value, so it can be stored, sent or replayed. Its size is bounded: neighbouring blocks are merged when
there are too many, so the time it takes to judge a plateau grows with the run.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hpcddrl.config.stages import DetectedStages, StagesByFrames, StagesByReturn, Telling
from hpcddrl.rl.trends import Estimate, block_mean, difference, line
from hpcddrl.types import Stage

BLOCK = 10  # episodes whose mean is one value of the tests
RECENT = 10  # blocks that say how the run plays now
MOST = 64  # blocks kept since random play was left
SURE = 0.9999  # confidence of each bound that a stage is left by
FLAT = 0.95  # confidence of each of the two bounds on a plateau's change


class Decision(NamedTuple):
    """A switch, and why."""

    stage: Stage
    before: Stage
    frames: float
    episodes: int
    reason: str  # in words
    numbers: dict[str, float]  # that the reason rests on


class Random(NamedTuple):
    """What random play returns."""

    mean: Estimate
    deviation: float  # of a single episode


class State(NamedTuple):
    """What is known of a run after so many episodes."""

    stage: Stage = Stage.EARLY
    episodes: int = 0
    entered: int = 0  # episodes when this stage began
    newest: tuple[float, ...] = ()  # returns that make no whole block yet; all, where a window is given by hand
    recent: tuple[float, ...] = ()  # means of the newest blocks
    random: Random | None = None
    blocks: tuple[float, ...] = ()  # means of larger blocks since this stage began
    width: int = 1  # how many blocks each of these is made of
    filling: tuple[float, ...] = ()  # means of blocks that make no larger one yet
    plateau: Estimate | None = None  # of the late stage
    wanted: Stage = Stage.EARLY  # the last judgement
    agreed: int = 0  # how often it was the same in a row


class Judgement(NamedTuple):
    """What the returns say by themselves, without dwell and confirmations."""

    stage: Stage
    reason: str = ""
    numbers: dict[str, float] = {}  # noqa: RUF012 - a NamedTuple's default, never written to


def observe(state: State, frames: float, episode_return: float, stages: Telling) -> tuple[State, Decision | None]:
    """Take one more episode into account; return the new state, and a decision if the stage switches.

    Args:
        state: after the episode before; `State()` at first.
        frames: the job's environment frames when it ended.
        episode_return: unclipped.
        stages: how to tell.

    Raises:
        ValueError: a return that is no finite number.
    """
    if not math.isfinite(episode_return):
        raise ValueError(f"episode_return = {episode_return} at {frames:g} frames: must be a finite number")
    state = state._replace(episodes=state.episodes + 1)
    match stages:
        case StagesByFrames():
            return _switched(state, _by_frames(state, frames, stages), frames)
        case StagesByReturn():
            newest = (*state.newest, episode_return)[-stages.window_episodes :]
            state = state._replace(newest=newest)
            return _decided(state, _by_return(state, stages), frames, stages, confirmations=1)
    state = state._replace(newest=(*state.newest, episode_return))
    if state.random is None:
        return _measured(state, stages), None
    if len(state.newest) < BLOCK:
        return state, None
    state = _with_block(state)
    return _decided(state, _detected(state, stages), frames, stages, stages.confirmations)


def decisions(episodes: Iterable[tuple[float, float]], stages: Telling) -> list[Decision]:
    """Return all decisions about a run's episodes (frames, return)."""
    state, made = State(), []
    for frames, episode_return in episodes:
        state, decision = observe(state, frames, episode_return, stages)
        made += [decision] if decision else []
    return made


def stage_at(frames: float, stages: StagesByFrames) -> Stage:
    """Return the stage that begins at or before so many frames."""
    return Stage((frames >= stages.middle_from) + (frames >= stages.late_from))


def _by_frames(state: State, frames: float, stages: StagesByFrames) -> Judgement:
    stage = max(state.stage, stage_at(frames, stages))  # episodes of several ranks need not come in order
    begins = {Stage.MIDDLE: stages.middle_from, Stage.LATE: stages.late_from}.get(stage, 0.0)
    return Judgement(stage, f"{stage.name.lower()} from {begins:g} frames on, as given", {"begins": begins})


def _by_return(state: State, stages: StagesByReturn) -> Judgement:
    if len(state.newest) < stages.window_episodes:
        return Judgement(state.stage)
    mean, stage = statistics.fmean(state.newest), Stage.EARLY
    for higher, threshold in ((Stage.MIDDLE, stages.middle_above), (Stage.LATE, stages.late_above)):
        if mean > threshold - stages.margin * (state.stage >= higher):
            stage = higher
    low, high, window = stages.middle_above, stages.late_above, stages.window_episodes
    text = f"mean return {mean:.4g} of the last {window} episodes against the given {low:g} and {high:g}"
    numbers = {"mean": mean, "middle_above": low, "late_above": high, "margin": stages.margin}
    return Judgement(stage, text, numbers)


def _measured(state: State, stages: DetectedStages) -> State:
    """Return the state with the band of random play, once its episodes are in."""
    returns = state.newest
    if len(returns) < stages.random_episodes:
        return state
    means = [statistics.fmean(returns[i : i + BLOCK]) for i in range(0, len(returns) - BLOCK + 1, BLOCK)]
    random = Random(block_mean(means), float(np.std(returns, ddof=1)))
    return state._replace(random=random, newest=(), recent=tuple(means[-RECENT:]))


def _with_block(state: State) -> State:
    """Return the state with the newest returns as one more block, merging neighbours where there are too many."""
    mean = statistics.fmean(state.newest)
    blocks, width, filling = state.blocks, state.width, (*state.filling, mean)
    if len(filling) == width:
        blocks, filling = (*blocks, statistics.fmean(filling)), ()
    if state.stage is Stage.LATE:
        blocks = blocks[-RECENT:]
    elif len(blocks) == MOST:
        blocks, width = tuple((a + b) / 2 for a, b in zip(blocks[::2], blocks[1::2], strict=True)), 2 * width
    recent = (*state.recent, mean)[-RECENT:]
    return state._replace(newest=(), recent=recent, blocks=blocks, width=width, filling=filling)


def _detected(state: State, stages: DetectedStages) -> Judgement:
    assert state.random is not None
    now = block_mean(state.recent)
    above = difference(now, state.random.mean)
    surely_above = above.bounds(SURE)[0]
    band = (stages.band if state.stage is Stage.EARLY else stages.inner_band) * state.random.deviation
    numbers = {
        "mean": now.value,
        "random_mean": state.random.mean.value,
        "random_deviation": state.random.deviation,
        "above_random": above.value,
        "surely_above_random": surely_above,
        "band": band,
    }
    against = (
        f"mean return {now.value:.4g} of the last {BLOCK * len(state.recent)} episodes against random play's "
        f"{state.random.mean.value:.4g} ± {state.random.deviation:.3g}"
    )
    if state.stage is Stage.EARLY:
        if above.value > band and surely_above > 0:
            return Judgement(Stage.MIDDLE, f"left the band of random play: {against}", numbers)
        return Judgement(Stage.EARLY)
    if above.value <= band:
        return Judgement(Stage.EARLY, f"fell back into the band of random play: {against}", numbers)
    return _flat(state, stages, numbers) if state.stage is Stage.MIDDLE else _changed(state, stages, numbers)


def _flat(state: State, stages: DetectedStages, numbers: dict[str, float]) -> Judgement:
    """Judge the middle stage: late if the latter half of it is flat."""
    assert state.random is not None
    window = _window(state)
    episodes = len(window) * state.width * BLOCK
    if episodes < stages.window_episodes:
        return Judgement(Stage.MIDDLE)
    level, change = line(window)
    low, high = change.bounds(FLAT)
    gain = level.value - state.random.mean.value
    most = stages.flat_gain * gain
    if not -most < low <= high < most:
        return Judgement(Stage.MIDDLE)
    text = (
        f"on a plateau at {level.value:.4g}: over the last {episodes} episodes the change is between {low:.3g} and "
        f"{high:.3g}, less than {stages.flat_gain:.0%} of the {gain:.4g} gained over random play"
    )
    more = {"change": change.value, "change_low": low, "change_high": high, "gain": gain}
    return Judgement(Stage.LATE, text, numbers | more | {"window_episodes": float(episodes)})


def _window(state: State) -> tuple[float, ...]:
    return state.blocks[len(state.blocks) // 2 :]


def _changed(state: State, stages: DetectedStages, numbers: dict[str, float]) -> Judgement:
    """Judge the late stage: over if its newest blocks lie off the plateau."""
    assert state.random is not None
    assert state.plateau is not None
    if len(state.blocks) < RECENT:
        return Judgement(Stage.LATE)
    now, gain = block_mean(state.blocks[-RECENT:]), state.plateau.value - state.random.mean.value
    change = difference(now, state.plateau)
    low, high = change.bounds(SURE)
    if abs(change.value) < stages.changed_gain * gain or low <= 0 <= high:
        return Judgement(Stage.LATE)
    episodes = RECENT * state.width * BLOCK
    text = (
        f"{'fell below' if change.value < 0 else 'rose above'} the plateau at {state.plateau.value:.4g}: mean return "
        f"{now.value:.4g} of the last {episodes} episodes, more than {stages.changed_gain:.0%} of the {gain:.4g} gained"
    )
    more = {"plateau": state.plateau.value, "change": change.value, "gain": gain, "window_episodes": float(episodes)}
    return Judgement(Stage.MIDDLE, text, numbers | more)


def _decided(
    state: State, judged: Judgement, frames: float, stages: DetectedStages | StagesByReturn, confirmations: int
) -> tuple[State, Decision | None]:
    """Switch if the stage has lasted long enough and so many judgements in a row agree."""
    agreed = state.agreed + 1 if judged.stage is state.wanted else 1
    state = state._replace(wanted=judged.stage, agreed=agreed)
    dwell = max(stages.dwell_episodes, stages.dwell_share * state.entered)
    if state.episodes - state.entered < dwell or agreed < confirmations:
        return state, None
    return _switched(state, judged, frames)


def _switched(state: State, judged: Judgement, frames: float) -> tuple[State, Decision | None]:
    if judged.stage is state.stage:
        return state, None
    decision = Decision(judged.stage, state.stage, frames, state.episodes, judged.reason, judged.numbers)
    late = judged.stage is Stage.LATE and state.random is not None
    plateau = line(_window(state)).middle if late else None
    width = state.width if late else 1  # a plateau is watched at the pace that found it
    state = state._replace(
        stage=judged.stage, entered=state.episodes, blocks=(), filling=(), width=width, plateau=plateau, agreed=0
    )
    return state, decision
