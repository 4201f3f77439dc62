"""The other groups of an ensemble, as one of its learners sees them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from hpcddrl.comm.channel import Comm, Ending
from hpcddrl.comm.exchange import Arrived, Exchange
from hpcddrl.comm.partners import partners
from hpcddrl.config import Ensemble
from hpcddrl.logs.timing import Phase
from hpcddrl.rl.diversity import guard
from hpcddrl.roles.control import Control
from hpcddrl.roles.members import NONE, Members, in_turn
from hpcddrl.roles.mixing import Account, Mixer
from hpcddrl.roles.plateau import Plateau
from hpcddrl.types import Batch, Mixture, Opinion, Targets, Transitions, Weights

Share = Callable[[float, float | None], float]  # frames of the group, and when its return levelled off -> 0 … 1


class EnsemblePeers:
    """The other groups, whose policies and this group's own make the ensemble that its learners are drawn to.

    Leaders exchange point to point every ``exchange_every`` updates; a leader hands what it took to the learners of
    its group at that same version, with all else that the loss depends on, so that every learner's loss uses the same
    ensemble.

    Args:
        config: of the ensemble.
        members: the other groups' networks.
        mixer: of opinions.
        share: of β, by the schedule.
        plateau: where the schedule asks for it.
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
        config: Ensemble,
        members: Members,
        mixer: Mixer,
        share: Share,
        plateau: Plateau | None,
        leaders: Sequence[int],
        group: int,
        exchange: Exchange | None,
        learners: Comm,
        seed: int,
        exact: bool,
        control: Control,
    ) -> None:
        self._config, self._members, self._mixer, self._control = config, members, mixer, control
        self._share, self._plateau = share, plateau
        self._leaders, self._group, self._seed, self._exact = list(leaders), group, seed, exact
        self._exchange, self._learners = exchange, learners
        self._version, self._beta = 0, 0.0
        self._levelled, self._guard = np.nan, 1.0  # agreed upon in the group, as are the members' versions
        self._shared = members.versions.copy()  # those that all learners of the group have
        self._refused: Counter[int] = Counter()
        self._dropped = 0

    def targets(self, batch: Batch | Transitions, weights: Weights) -> Targets | None:
        """See `Peers`: every n-th row, other ones each update, by the peers whose turn it is."""
        if self._plateau is not None and isinstance(batch, Batch):
            self._plateau.see(batch, weights.frames)
        levelled = None if np.isnan(self._levelled) else self._levelled
        self._beta = self._config.beta * self._share(weights.frames, levelled)
        groups = in_turn(self._members.known, self._config.max_peers, self._version)
        if not groups or self._beta == 0:
            return None
        count = len(batch.action)
        every = min(self._config.evaluate_every, count)  # a short rollout has one such step at least
        rows = slice(self._version % every, count, every)
        with self._control.timing(Phase.PEERS):
            opinions = [self._members.opinion(group, batch, rows) for group in groups]

        def mix(own: Opinion) -> Mixture:
            return self._mixer.mix(groups, opinions, own)

        return Targets(rows, self._beta * self._guard, mix)

    def exchange(self, weights: Weights) -> None:
        """See `Peers`. Collective over ``learners`` every ``exchange_every`` updates."""
        self._version = weights.version
        due = weights.version % self._config.exchange_every == 0 and not weights.last
        if self._exchange is not None and not self._exact and not due:
            with self._control.timing(Phase.EXCHANGE):
                self._exchange.look()
        if not due:
            return
        began = time.perf_counter()
        with self._control.timing(Phase.EXCHANGE):
            if self._exchange is not None:
                self._meet(self._exchange, weights)
            account = self._mixer.close_account()
            self._agree(account)
        self._log(account, time.perf_counter() - began)

    def end(self) -> Ending:
        """See `Peers`."""
        return self._exchange.end() if self._exchange is not None else Ending()

    def _meet(self, exchange: Exchange, weights: Weights) -> None:
        """Post this group's weights to the partners of this round, and take what has come."""
        number = weights.version // self._config.exchange_every
        to, by = partners(self._config.topology, len(self._leaders), self._group, number, self._seed)
        exchange.post(weights, [self._leaders[group] for group in to])
        if self._exact:
            exchange.take_from([self._leaders[group] for group in by], self._store)
        else:
            exchange.take(self._store)
        if self._config.max_age is not None:
            old = self._members.older_than(self._config.max_age, weights.version)
            self._members.forget(old)
            self._dropped += len(old)

    def _store(self, arrived: Arrived) -> None:
        group = self._leaders.index(arrived.rank)
        wrong = self._members.complaint(group, arrived.architecture, arrived.flat)
        if wrong is None:
            self._members.store(group, arrived.version, arrived.flat, self._version)
            return
        if not self._refused[group]:
            sys.stderr.write(
                f"hpcddrl: group {self._group} refuses group {group}'s weights of version {arrived.version}: "
                f"they {wrong}\n"
            )
        self._refused[group] += 1

    def _agree(self, account: Account) -> None:
        """Let all learners of the group have what its leader has. Collective over ``learners``."""
        members, groups = self._members, len(self._leaders)
        levelled = np.nan if self._plateau is None or self._plateau.frames is None else self._plateau.frames
        said = np.concatenate([members.versions, members.came, self._mixer.seen, [levelled, account.divergence]])
        if self._learners.size > 1:
            self._learners.Bcast(said, root=0)
        versions, came = said[:groups].astype(np.int64), said[groups : 2 * groups].astype(np.int64)
        if self._learners.size > 1:
            for group in np.flatnonzero((versions != NONE) & (versions != self._shared)):
                self._learners.Bcast(members.buffer(int(group)), root=0)
            members.forget([int(group) for group in np.flatnonzero(versions == NONE)])
            members.versions[:], members.came[:] = versions, came
        self._shared = versions
        self._mixer.agree(said[2 * groups : -2])
        self._levelled = said[-2]
        if not np.isnan(said[-1]):
            self._guard = guard(said[-1], self._config.min_divergence)

    def _log(self, account: Account, seconds: float) -> None:
        members, exchange = self._members, self._exchange
        known, now = members.known, self._version
        since = now - members.came
        self._control.note(
            "exchange",
            version=now,
            peers=len(known),
            age=now - float(members.versions[known].mean()) if known else np.nan,
            since=float(since[known].max()) if known else np.nan,
            skipped=0 if exchange is None else exchange.skipped,
            refused=self._refused.total(),
            dropped=self._dropped,
            bytes=0 if exchange is None else exchange.nbytes,
            seconds=seconds,
            kl=account.kl,
            divergence=account.divergence,
            disagreement=account.disagreement,
            beta=self._beta * self._guard,
            guard=self._guard,
        )
        weights = account.weights
        for group in np.flatnonzero(~np.isnan(weights)):
            own = group == self._group
            self._control.note(
                "peers",
                version=now,
                group=float(group),
                peer_version=float(now if own else members.versions[group]),
                since=0.0 if own else float(since[group]),
                weight=weights[group],
                divergence=account.from_own[group],
                disagreement=account.differs[group],
            )
