"""The other groups of a population, as one of its learners sees them."""

from __future__ import annotations

import random

import numpy as np
import torch

from hpcddrl.comm.channel import Ending
from hpcddrl.config import Population
from hpcddrl.rl.population import explored, lags_behind
from hpcddrl.roles.control import Control
from hpcddrl.roles.meetings import Meetings
from hpcddrl.roles.members import NONE
from hpcddrl.roles.plateau import Returns
from hpcddrl.types import Batch, State, Tuning, Weights


class PopulationPeers:
    """Groups of which one that lags behind takes over a better one's weights and hyper-parameters, varied a little.

    At each meeting a group looks at one of those whose weights have come, drawn from seed, group and version. Its own
    return is measured anew after it has taken over another's weights, and until then it neither takes nor gives.

    Args:
        config: of the population.
        meetings: with the other groups, all of the same architecture.
        tuning: this group's hyper-parameters, to be changed.
        seed: of the run.
        control: of this rank.
    """

    def __init__(self, config: Population, meetings: Meetings, tuning: Tuning, seed: int, control: Control) -> None:
        self._config, self._meetings, self._tuning, self._seed = config, meetings, tuning, seed
        self._control, self._returns = control, Returns(config.window_frames)

    def state(self) -> State:
        """See `Stateful`."""
        tuning = (self._tuning.learning_rate, self._tuning.entropy)
        return {"meetings": self._meetings.state(), "returns": self._returns.state(), "tuning": tuning}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._meetings.restore(state["meetings"])
        self._returns.restore(state["returns"])
        self._tuning.learning_rate, self._tuning.entropy = state["tuning"]

    def targets(self, batch: Batch, weights: Weights) -> None:
        """See `Peers`: nothing is said of batches; their returns are counted."""
        self._returns.see(batch, weights.frames)

    def exchange(self, weights: Weights) -> None:
        """See `Peers`: the weights are changed in place. Collective over ``learners`` every so many updates."""
        if not self._meetings.due(weights):
            return
        score, members = self._returns.newest, self._meetings.members
        own = float(self._meetings.hold(weights, np.array([score]), score, self._tuning)[0])
        self._meetings.note()
        dice = random.Random(f"{self._seed} {self._meetings.group} {weights.version}")
        parent = dice.choice(members.known) if members.known else NONE
        early = weights.frames < self._config.burn_in_frames
        if parent != NONE and not early and lags_behind(own, members.scores[parent], self._config.margin):
            self._take_over(parent, own, weights, dice)
        members.forget(members.known)

    def end(self) -> Ending:
        """See `Peers`."""
        return self._meetings.end()

    def _take_over(self, parent: int, own: float, weights: Weights, dice: random.Random) -> None:
        members, config = self._meetings.members, self._config
        weights.flat.copy_(torch.from_numpy(members.buffer(parent)))
        theirs = members.tunings[parent]
        varied = explored((theirs[0], theirs[1]), config.step, config.chance, dice)
        self._tuning.learning_rate, self._tuning.entropy = varied
        self._returns = Returns(config.window_frames)
        self._control.note(
            "lineage",
            version=weights.version,
            frames=weights.frames,
            parent=parent,
            parent_version=float(members.versions[parent]),
            score=own,
            parent_score=float(members.scores[parent]),
            learning_rate=self._tuning.learning_rate,
            entropy=self._tuning.entropy,
        )
