"""The other groups of a job that averages weights, as one of its learners sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hpcddrl.comm.channel import Ending
from hpcddrl.roles.meetings import Meetings
from hpcddrl.types import State, Weights


class AveragingPeers:
    """Groups that go on from the mean of their weights, each time they meet.

    The optimizer's state stays each group's own. A peer's weights are used once, at the meeting at which they came.

    Args:
        meetings: with the other groups, all of the same architecture.
    """

    def __init__(self, meetings: Meetings) -> None:
        self._meetings = meetings

    def state(self) -> State:
        """See `Stateful`."""
        return {"meetings": self._meetings.state()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._meetings.restore(state["meetings"])

    def targets(self, batch: Any, weights: Weights) -> None:
        """See `Peers`: nothing is said of batches."""

    def exchange(self, weights: Weights) -> None:
        """See `Peers`: the weights are changed in place. Collective over ``learners`` every so many updates."""
        if not self._meetings.due(weights):
            return
        members = self._meetings.members
        self._meetings.hold(weights, np.empty(0))
        before = weights.flat.clone()
        for n, group in enumerate(members.known, 1):
            theirs = torch.from_numpy(members.buffer(group))
            weights.flat.lerp_(theirs.to(weights.flat.device), 1 / (n + 1))
        self._meetings.note(moved=float((weights.flat - before).norm()))
        members.forget(members.known)

    def end(self) -> Ending:
        """See `Peers`."""
        return self._meetings.end()
