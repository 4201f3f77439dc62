"""Meetings of groups: leaders exchange weights, and hand what they took to the learners of their group."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hpcddrl.comm.channel import Ending
from hpcddrl.comm.circle import Circle
from hpcddrl.comm.exchange import Arrived, Exchange
from hpcddrl.comm.partners import partners
from hpcddrl.config import Averaging, Ensemble, Population
from hpcddrl.logs.timing import Phase
from hpcddrl.networks.device import HostSide
from hpcddrl.roles.control import Control
from hpcddrl.roles.members import NONE, Members
from hpcddrl.types import Array, State, Tuning, Weights


class Meetings:
    """One learner's part in the exchanges of weights between groups.

    Leaders exchange point to point every ``exchange_every`` updates; a leader hands what it took to the learners of
    its group at that same version, so that all of them know the same of the others.

    Args:
        config: how often, who hears whom, and how old weights may be.
        members: what is known of the other groups.
        leaders: world ranks of all groups' leaders, by group.
        group: this learner's.
        exchange: between leaders; None on a learner that does not lead.
        learners: the group's learners.
        seed: of the run.
        exact: wait for every peer's weights of each exchange (deterministic runs).
        control: of this rank.
    """

    def __init__(
        self,
        config: Ensemble | Averaging | Population,
        members: Members,
        leaders: Sequence[int],
        group: int,
        exchange: Exchange | None,
        learners: Circle,
        seed: int,
        exact: bool,
        control: Control,
    ) -> None:
        self.members, self.group, self.version = members, group, 0
        self._max_age = config.max_age if isinstance(config, Ensemble) else None
        self._config, self._leaders, self._seed, self._exact = config, list(leaders), seed, exact
        self._exchange, self._learners, self._control = exchange, learners, control
        self._shared = members.versions.copy()  # those that all learners of the group have
        self._host = HostSide()
        self._refused: Counter[int] = Counter()
        self._dropped = 0
        self._seconds = 0.0

    @property
    def since(self) -> int:
        """Return the updates since the last meeting."""
        return self.version % self._config.exchange_every

    def state(self) -> State:
        """See `Stateful`."""
        return {"members": self.members.state(), "shared": self._shared, "version": self.version}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self.members.restore(state["members"])
        self._shared, self.version = state["shared"].copy(), int(state["version"])

    def due(self, weights: Weights) -> bool:
        """Say whether groups meet now; if not, let peers send again."""
        self.version = weights.version
        if self.since == 0 and not weights.last:
            return True
        if self._exchange is not None and not self._exact:
            with self._control.timing(Phase.EXCHANGE):
                self._exchange.look()
        return False

    def hold(self, weights: Weights, said: Array, score: float = np.nan, tuning: Tuning | None = None) -> Array:
        """Exchange weights, how good they are and how they were learned. Collective over ``learners``.

        Returns:
            What this group's leader ``said``, numbers of any meaning.
        """
        began = time.perf_counter()
        with self._control.timing(Phase.EXCHANGE):
            if self._exchange is not None:
                self._meet(self._exchange, weights, score, tuning or Tuning())
            agreed = self._share(said)
        self._seconds = time.perf_counter() - began
        return agreed

    def hear(self) -> None:
        """Take what has come since the last meeting: of a group with one learner, who has nobody to agree with.

        Without it, whoever is the first at a meeting would know nobody until the next.
        """
        assert self._learners.size == 1
        if self._exchange is not None and not self._exact:
            with self._control.timing(Phase.EXCHANGE):
                self._exchange.take(self._store)

    def note(self, **more: float) -> None:
        """Write a row of the meeting just held."""
        members, exchange, now = self.members, self._exchange, self.version
        known = members.known
        self._control.note(
            "exchange",
            version=now,
            peers=len(known),
            age=now - float(members.versions[known].mean()) if known else np.nan,
            since=float((now - members.came[known]).max()) if known else np.nan,
            skipped=0 if exchange is None else exchange.skipped,
            refused=self._refused.total(),
            dropped=self._dropped,
            bytes=0 if exchange is None else exchange.nbytes,
            seconds=self._seconds,
            **more,
        )

    def begin_anew(self) -> None:
        """Forget what is known of the other groups, and what has come of them."""
        self.members.forget(self.members.known)
        self.version = 0
        if self._exchange is not None:
            self._exchange.take(lambda arrived: None)

    def end(self) -> Ending:
        """Part from the other groups; return what is still to come."""
        return self._exchange.end() if self._exchange is not None else Ending()

    def _meet(self, exchange: Exchange, weights: Weights, score: float, tuning: Tuning) -> None:
        """Post this group's weights to the partners of this round, and take what has come."""
        number = weights.version // self._config.exchange_every
        to, by = partners(self._config.topology, len(self._leaders), self.group, number, self._seed)
        weights = weights._replace(flat=self._host.fetch(weights.flat))
        exchange.post(weights, score, tuning, [self._leaders[group] for group in to])
        if self._exact:
            exchange.take_from([self._leaders[group] for group in by], self._store)
        else:
            exchange.take(self._store)
        self.members.forget([group for group in self.members.known if self._leaders[group] in exchange.gone])
        if self._max_age is not None:
            old = self.members.older_than(self._max_age, weights.version)
            self.members.forget(old)
            self._dropped += len(old)

    def _store(self, arrived: Arrived) -> None:
        group = self._leaders.index(arrived.rank)
        wrong = self.members.complaint(group, arrived.architecture, arrived.flat)
        if wrong is None:
            self.members.store(group, arrived, self.version)
            return
        if not self._refused[group]:
            sys.stderr.write(
                f"hpcddrl: group {self.group} refuses group {group}'s weights of version {arrived.version}: "
                f"they {wrong}\n"
            )
        self._refused[group] += 1

    def _share(self, said: Array) -> Array:
        """Give all learners of the group what its leader has. Collective over ``learners``."""
        members, groups = self.members, len(self._leaders)
        if self._learners.size == 1:
            return said
        known = [members.versions, members.came, members.scores, members.tunings.ravel()]
        everything = np.concatenate([*known, said])
        self._learners.Bcast(everything, root=0)
        versions, came = everything[: 2 * groups].astype(np.int64).reshape(2, groups)
        for group in np.flatnonzero((versions != NONE) & (versions != self._shared)):
            self._learners.Bcast(members.buffer(int(group)), root=0)
        members.forget([int(group) for group in np.flatnonzero(versions == NONE)])
        members.versions[:], members.came[:] = versions, came
        members.scores[:] = everything[2 * groups : 3 * groups]
        members.tunings[:] = everything[3 * groups : 5 * groups].reshape(groups, 2)
        self._shared = versions
        return everything[5 * groups :]
