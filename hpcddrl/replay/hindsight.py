"""Hindsight: what was reached by accident is made the goal, so that failures teach as well (Andrychowicz et al. 2017).

The paper (arXiv:1707.01495) stores every transition k times more with other goals. Here each is stored once, as it was,
and a drawn one gets another goal with probability k / (k + 1), which is the same in expectation.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from hpcddrl.replay.gathered import Gathered
from hpcddrl.replay.n_step import Returns, returns
from hpcddrl.replay.ring import Ring
from hpcddrl.types import Array, EnvSpec, GoalOutcome

Choice = Literal["future", "final", "episode"]


class Hindsight:
    """Gives drawn transitions goals that their own episode achieved.

    All that depends on the goal is made anew: the goal in both observations, every reward of the sum, where the sum
    ends, and whether anything follows. An episode that goes on still is taken as far as it is in.

    Args:
        spec: the environments'; they have a goal.
        outcome: what transitions are worth under any goal.
        choice: a frame behind the transition ("future"), the episode's last ("final"), or any of it ("episode").
        relabels: k.
    """

    def __init__(self, spec: EnvSpec, outcome: GoalOutcome, choice: Choice, relabels: int) -> None:
        assert spec.goal is not None, "checked when the run started"
        self._spec, self._layout, self._outcome = spec, spec.goal, outcome
        self._choice, self._share = choice, relabels / (relabels + 1)

    def relabel(self, ring: Ring, keys: Array, n: int, gamma: float, out: Gathered, rng: np.random.Generator) -> Array:
        """Give some of the gathered transitions another goal; return which rows [M].

        Args:
            ring: where their frames are.
            keys: [N] of the transitions.
            n: steps.
            gamma: γ.
            out: the transitions [N], changed in place.
            rng: for the choices.
        """
        rows = np.flatnonzero(rng.random(len(keys)) < self._share)
        keys = keys[rows]
        goals = ring.frames(self._chosen(ring, keys, rng))[:, self._layout.achieved]
        earned = self._returns(ring, keys, n, gamma, goals)
        ends = np.empty((len(rows), *self._spec.observation_shape), self._spec.frame_dtype)
        ring.observe(ring.after(keys, earned.steps), ends)
        out.next_observation[rows] = self._aimed(ends, goals)
        out.observation[rows] = self._aimed(out.observation[rows], goals)
        out.reward[rows], out.discount[rows] = earned.reward, earned.discount
        return rows

    def _chosen(self, ring: Ring, keys: Array, rng: np.random.Generator) -> Array:
        """Return the keys [M] of the frames whose achieved goals are taken."""
        ahead = ring.ahead(keys)
        match self._choice:
            case "future":
                steps = rng.integers(1, ahead, endpoint=True)
            case "final":
                steps = ahead
            case "episode":
                steps = rng.integers(-ring.behind(keys), ahead, endpoint=True)
        return ring.after(keys, steps)

    def _returns(self, ring: Ring, keys: Array, n: int, gamma: float, goals: Array) -> Returns:
        """Sum what the steps from each key on earn under goals [M, *goal].

        A step that terminated although its goal was not reached did so for another reason, and still does.
        """
        steps = ring.steps(keys, n)
        frames = ring.frames(ring.after(keys[:, None], 1 + np.arange(n)))
        achieved = _flat(frames[:, :, self._layout.achieved])
        _, by_goal = self._outcome(achieved, _flat(frames[:, :, self._layout.desired]))
        reward, ends = self._outcome(achieved, goals.repeat(n, axis=0))
        shape = steps.reward.shape
        otherwise = (steps.discount == 0) & ~by_goal.reshape(shape)
        ends = ends.reshape(shape) | otherwise
        return returns(steps._replace(reward=reward.reshape(shape), discount=1.0 - ends), gamma)

    def _aimed(self, observation: Array, goals: Array) -> Array:
        """Return observations [M, *observation_shape] with other goals [M, *goal] in each of their K frames."""
        frames = observation.reshape(len(observation), self._spec.frame_stack, *self._spec.frame_shape)
        frames[:, :, self._layout.desired] = goals[:, None]
        return frames.reshape(observation.shape)


def _flat(x: Array) -> Array:
    """Merge the first two axes."""
    return x.reshape(-1, *x.shape[2:])
