"""The other groups of an ensemble, as one of its learners sees them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpcddrl.comm.channel import Ending
from hpcddrl.config import Ensemble
from hpcddrl.logs.timing import Phase
from hpcddrl.rl.diversity import guard
from hpcddrl.roles.control import Control
from hpcddrl.roles.meetings import Meetings
from hpcddrl.roles.members import in_turn
from hpcddrl.roles.mixing import Account, Mixer
from hpcddrl.roles.plateau import Plateau, Returns
from hpcddrl.types import Batch, Mixture, Opinion, State, Targets, Transitions, Weights

# Frames of the group, those when its return levelled off, and updates since the last meeting -> 0 … 1
Share = Callable[[float, float | None, int], float]


class EnsemblePeers:
    """The other groups, whose policies and this group's own make the ensemble that its learners are drawn to.

    All that the loss depends on is agreed on at the group's meetings, so that every learner's loss uses the same
    ensemble.

    Args:
        config: of the ensemble.
        meetings: with the other groups.
        mixer: of opinions.
        share: of β, by the schedule.
        plateau: where the schedule asks for it.
        returns: where the mixing asks for them.
        control: of this rank.
    """

    def __init__(
        self,
        config: Ensemble,
        meetings: Meetings,
        mixer: Mixer,
        share: Share,
        plateau: Plateau | None,
        returns: Returns | None,
        control: Control,
    ) -> None:
        self._config, self._meetings, self._mixer, self._control = config, meetings, mixer, control
        self._share, self._plateau, self._returns = share, plateau, returns
        self._levelled, self._guard = np.nan, 1.0  # agreed on in the group
        self._scores = meetings.members.scores.copy()
        self._beta = 0.0

    def state(self) -> State:
        """See `Stateful`."""
        return {
            "meetings": self._meetings.state(),
            "mixer": self._mixer.state(),
            "plateau": None if self._plateau is None else self._plateau.state(),
            "returns": None if self._returns is None else self._returns.state(),
            "agreed": (float(self._levelled), self._guard),
            "scores": self._scores,
        }

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._meetings.restore(state["meetings"])
        self._mixer.restore(state["mixer"])
        for part, name in ((self._plateau, "plateau"), (self._returns, "returns")):
            if part is not None and state[name] is not None:
                part.restore(state[name])
        self._levelled, self._guard = state["agreed"]
        self._scores = state["scores"].copy()

    def targets(self, batch: Batch | Transitions, weights: Weights) -> Targets | None:
        """See `Peers`: every n-th row, other ones each update, by the peers whose turn it is."""
        for watching in (self._plateau, self._returns):
            if watching is not None and isinstance(batch, Batch):
                watching.see(batch, weights.frames)
        levelled = None if np.isnan(self._levelled) else self._levelled
        meetings, members = self._meetings, self._meetings.members
        self._beta = self._config.beta * self._share(weights.frames, levelled, meetings.since)
        groups = in_turn(members.known, self._config.max_peers, meetings.version)
        if not groups or self._beta == 0:
            return None
        count = len(batch.action)
        every = min(self._config.evaluate_every, count)  # a short rollout has one such step at least
        rows = slice(meetings.version % every, count, every)
        with self._control.timing(Phase.PEERS):
            opinions = [members.opinion(group, batch, rows) for group in groups]

        def mix(own: Opinion) -> Mixture:
            return self._mixer.mix(groups, opinions, own)

        return Targets(rows, self._beta * self._guard, mix)

    def exchange(self, weights: Weights) -> None:
        """See `Peers`. Collective over ``learners`` every ``exchange_every`` updates."""
        if not self._meetings.due(weights):
            return
        account = self._mixer.close_account()
        levelled = np.nan if self._plateau is None or self._plateau.frames is None else self._plateau.frames
        score = np.nan if self._returns is None else self._returns.newest
        said = np.concatenate([self._mixer.seen, [score, levelled, account.divergence]])
        agreed = self._meetings.hold(weights, said, score)
        self._scores = self._meetings.members.scores.copy()
        self._scores[self._meetings.group] = agreed[-3]
        self._mixer.agree(agreed[:-3], self._scores)
        self._levelled = agreed[-2]
        if not np.isnan(agreed[-1]):
            self._guard = guard(agreed[-1], self._config.min_divergence)
        self._log(account)

    def hear(self) -> None:
        """See `Meetings`."""
        self._meetings.hear()

    def begin_anew(self) -> None:
        """Meet the other groups as if for the first time."""
        self._meetings.begin_anew()
        self._mixer.close_account()
        self._guard = 1.0

    def end(self) -> Ending:
        """See `Peers`."""
        return self._meetings.end()

    def _log(self, account: Account) -> None:
        meetings = self._meetings
        meetings.note(
            kl=account.kl,
            divergence=account.divergence,
            disagreement=account.disagreement,
            beta=self._beta * self._guard,
            guard=self._guard,
        )
        now, members, weights = meetings.version, meetings.members, account.weights
        for group in np.flatnonzero(~np.isnan(weights)):
            own = group == meetings.group
            self._control.note(
                "peers",
                version=now,
                group=float(group),
                peer_version=float(now if own else members.versions[group]),
                since=0.0 if own else float(now - members.came[group]),
                weight=weights[group],
                score=self._scores[group],
                divergence=account.from_own[group],
                disagreement=account.differs[group],
            )
