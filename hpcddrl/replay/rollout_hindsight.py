"""Hindsight for whole rollouts: what was reached by accident is made the goal of all steps that led there.

Importance weights make this right for on-policy algorithms (hindsight policy gradients, Rauber et al. 2019,
arXiv:1711.06006): the policy acts under the new goal with π(a|s, g'), the rollout was acted with μ(a|s, g), and the
ratio of the two, which V-trace takes from the stored log μ, corrects for the one as for the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcddrl.replay.hindsight import Choice
from hpcddrl.types import Array, EnvSpec, GoalOutcome, Rollout


class Relabelled(NamedTuple):
    """Rollouts of n environments, some episodes of which have another goal."""

    rollout: Rollout
    learned: Array  # [T, n] bool: steps to learn from
    own: Array  # [n] bool: all of them still have the goals that they were acted with


class RolloutHindsight:
    """Gives episodes, as far as they are in a rollout, goals that they achieved in it.

    All that depends on the goal is made anew: the goal in each frame of the episode, its rewards, and where it ends.

    Args:
        spec: the environments'; they have a goal.
        outcome: what steps are worth under any goal.
        choice: the goal achieved by the episode's last frame in the rollout ("final"), by any ("episode"), or by any,
            and then only the steps up to it are learned from, whose future it is ("future").
        relabels: k: so many episodes in k + 1 get another goal.
    """

    def __init__(self, spec: EnvSpec, outcome: GoalOutcome, choice: Choice, relabels: int) -> None:
        assert spec.goal is not None, "checked when the run started"
        self._layout, self._depth, self._outcome = spec.goal, spec.frame_stack, outcome
        self._choice, self._share = choice, relabels / (relabels + 1)

    def __call__(self, rollout: Rollout, rng: np.random.Generator) -> Relabelled:
        """Return the rollout with other goals; its arrays are changed in place."""
        steps, envs = rollout.reward.shape
        episodes = np.cumsum(rollout.first, axis=0)  # [K + T, n]: its number in the rollout, of each frame
        learned, own = np.ones((steps, envs), bool), np.ones(envs, bool)
        frames, goals = [], []  # whose they are
        for env in range(envs):
            for episode in np.unique(episodes[self._depth :, env]):
                reached = self._reached(episodes[:, env] == episode, rollout.first[:, env])
                if not len(reached) or rng.random() >= self._share:
                    continue
                chosen = int(reached[-1] if self._choice == "final" else rng.choice(reached))
                mine = np.flatnonzero(episodes[:, env] == episode)
                frames.append((mine, np.full(len(mine), env)))
                goals.append(np.repeat(rollout.frames[chosen, env, self._layout.achieved][None], len(mine), axis=0))
                own[env] = False
                if self._choice == "future":
                    learned[max(0, chosen + 1 - self._depth) : mine[-1] + 1 - self._depth, env] = False
        if frames:
            at = tuple(np.concatenate(part) for part in zip(*frames, strict=True))
            self._relabel(rollout, (at[0], at[1]), np.concatenate(goals))
        return Relabelled(rollout, learned, own)

    def _reached(self, mine: Array, first: Array) -> Array:
        """Return the frames of an episode that a step of the rollout led to."""
        frames: Array = np.flatnonzero(mine & ~first)
        return frames[frames >= self._depth]

    def _relabel(self, rollout: Rollout, at: tuple[Array, Array], goals: Array) -> None:
        """Put goals [M, *goal] into frames, and make the steps that led to them anew.

        A step that terminated although its goal was not reached did so for another reason, and still does.
        """
        frames, envs = at
        steps = frames - self._depth
        led = (steps >= 0) & ~rollout.first[frames, envs]
        where = steps[led], envs[led]
        after = rollout.frames[frames[led], envs[led]]
        achieved = after[:, self._layout.achieved]
        _, by_goal = self._outcome(achieved, after[:, self._layout.desired])
        reward, ends = self._outcome(achieved, goals[led])
        ends = ends | ((rollout.discount[where] == 0) & ~by_goal)
        rollout.reward[where], rollout.discount[where] = reward, 1.0 - ends
        rollout.frames[:, :, self._layout.desired][frames, envs] = goals
