"""Coupling between groups: what the others' policies say of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from hpcddrl.comm.channel import Comm, Ending
from hpcddrl.comm.exchange import Exchange
from hpcddrl.config import Ensemble, Teacher
from hpcddrl.logs.timing import Phase
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.roles.control import Control
from hpcddrl.types import Array, Batch, Peer, Targets, Weights, side_by_side


class Peers(Protocol):
    """The other groups, as seen by a learner."""

    def targets(self, batch: Any, weights: Weights) -> Targets | None:
        """Return what they say of a batch, or None; ``weights`` are the learner's."""

    def exchange(self, weights: Weights) -> None:
        """Tell them of new weights and take theirs, when it is time."""

    def end(self) -> Ending:
        """Part from them; return what is still to come."""


class NoPeers:
    """Groups that tell each other nothing."""

    def targets(self, batch: Any, weights: Weights) -> None:
        """See `Peers`."""

    def exchange(self, weights: Weights) -> None:
        """See `Peers`."""

    def end(self) -> Ending:
        """See `Peers`."""
        return Ending()


def opinion(network: PolicyValueNetwork, batch: Batch, rows: slice) -> Peer:
    """Return what a network thinks of some time steps of a batch."""
    observation = batch.observation[:, rows]
    rollouts, _, envs = observation.shape[:3]
    with torch.no_grad():
        output = network(observation.flatten(0, 2))
    return Peer(*(side_by_side(x, rollouts, envs) for x in output))


class TeacherPeer:
    """A policy that was learned before, and counts for less and less: β falls linearly to 0 (Schmitt et al. 2018).

    Args:
        config: of the teacher.
        network: the teacher's.
    """

    def __init__(self, config: Teacher, network: PolicyValueNetwork) -> None:
        self._config, self._network = config, network.requires_grad_(False)

    def targets(self, batch: Batch, weights: Weights) -> Targets | None:
        """See `Peers`: every time step, while it counts."""
        beta = self._config.beta * max(0.0, 1.0 - weights.frames / self._config.anneal_frames)
        if beta == 0:
            return None
        rows = slice(batch.observation.shape[1] - 1)
        return Targets(rows, (opinion(self._network, batch, rows),), beta, temperature=1.0, with_own=False)

    def exchange(self, weights: Weights) -> None:
        """See `Peers`."""

    def end(self) -> Ending:
        """See `Peers`."""
        return Ending()


class EnsemblePeers:
    """The other groups' networks at their last exchanged weights.

    Leaders exchange point to point every ``exchange_every`` updates; a leader hands what it took to the learners of
    its group at that same version, so that every learner's loss uses the same ensemble.

    Args:
        config: of the ensemble.
        network: makes a network for a peer.
        leaders: world ranks of all groups' leaders, by group.
        group: this learner's.
        exchange: between leaders; None on a learner that does not lead.
        learners: the group's learners.
        exact: wait for every peer's weights of each exchange (deterministic runs).
        control: of this rank.
    """

    def __init__(
        self,
        config: Ensemble,
        network: Callable[[], PolicyValueNetwork],
        leaders: Sequence[int],
        group: int,
        exchange: Exchange | None,
        learners: Comm,
        exact: bool,
        control: Control,
    ) -> None:
        self._config, self._exchange, self._learners, self._exact = config, exchange, learners, exact
        self._control, self._version = control, 0
        self._ranks = [rank for g, rank in enumerate(leaders) if g != group]
        self._networks = {rank: network() for rank in self._ranks}
        self._values = {rank: flatten(net).values for rank, net in self._networks.items()}
        self._versions = dict.fromkeys(self._ranks, -1)  # -1: nothing has come yet
        self._shared = dict(self._versions)  # what all learners of the group have
        for net in self._networks.values():
            net.requires_grad_(False)

    def targets(self, batch: Batch, weights: Weights) -> Targets | None:
        """See `Peers`: every n-th time step, a different one each update."""
        known = [rank for rank in self._ranks if self._versions[rank] >= 0]
        if not known or self._config.beta == 0:
            return None
        steps = batch.observation.shape[1] - 1
        every = min(self._config.evaluate_every, steps)  # a short rollout has one such step at least
        rows = slice(self._version % every, steps, every)
        peers = tuple(opinion(self._networks[rank], batch, rows) for rank in known)
        return Targets(rows, peers, self._config.beta, self._config.temperature, with_own=True)

    def exchange(self, weights: Weights) -> None:
        """See `Peers`. Collective over ``learners`` every ``exchange_every`` updates."""
        self._version = weights.version
        if weights.version % self._config.exchange_every or weights.last:
            return
        with self._control.timing(Phase.EXCHANGE):
            if self._exchange is not None:
                self._exchange.post(weights)
                (self._exchange.take_all if self._exact else self._exchange.take)(self._store)
            if self._learners.size > 1:
                self._share()
        self._log(weights)

    def end(self) -> Ending:
        """See `Peers`."""
        return self._exchange.end() if self._exchange is not None else Ending()

    def _store(self, rank: int, version: int, flat: Array) -> None:
        if np.isfinite(flat).all():
            self._versions[rank] = version
            self._values[rank].numpy()[:] = flat

    def _share(self) -> None:
        """Give the group's other learners what the leader knows. Collective over ``learners``."""
        versions = np.array([self._versions[rank] for rank in self._ranks], np.int64)
        self._learners.Bcast(versions, root=0)
        news = [r for r, v in zip(self._ranks, versions, strict=True) if self._shared[r] != v]
        for rank in news:
            self._learners.Bcast(self._values[rank].numpy(), root=0)
        self._versions = dict(zip(self._ranks, map(int, versions), strict=True))
        self._shared = dict(self._versions)

    def _log(self, weights: Weights) -> None:
        known = [version for version in self._versions.values() if version >= 0]
        age = weights.version - float(np.mean(known)) if known else np.nan
        skipped = self._exchange.skipped if self._exchange is not None else 0
        self._control.note("exchange", version=weights.version, peers=len(known), age=age, skipped=skipped)
