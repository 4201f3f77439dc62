"""The other groups' networks, at the newest weights that came of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hpcddrl.comm.exchange import Arrived
from hpcddrl.networks.device import to_device
from hpcddrl.networks.flat import architecture, bind, size
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.roles.peers import opinion
from hpcddrl.types import Array, Batch, Opinion, State, Transitions

NONE = -1  # the version of a group of which nothing is known


class Members:
    """What a learner knows of the other groups.

    Groups with the same network share one module, whose parameters are bound to the weights of whoever is asked.

    Args:
        networks: a module for each group; the same one for groups with the same architecture.
        q_temperature: τ, see `config.Ensemble`.
    """

    def __init__(self, networks: Sequence[AnyNetwork], q_temperature: float) -> None:
        self._networks, self._q_temperature = list(networks), q_temperature
        self._device = next(networks[0].parameters()).device
        self._sizes = [size(network) for network in networks]
        self._architectures = [architecture(network) for network in networks]
        for network in networks:
            network.requires_grad_(False)
            for parameter in network.parameters():
                parameter.grad = None
        self._weights: dict[int, torch.Tensor] = {}  # in host memory
        self._there: dict[int, torch.Tensor] = {}  # where their networks compute, of those that have not changed since
        self.versions = np.full(len(networks), NONE, np.int64)  # of the weights that are known, group by group
        self.came = np.full(len(networks), NONE, np.int64)  # this group's own version when they came
        self.scores = np.full(len(networks), np.nan)  # their mean returns
        self.tunings = np.ones((len(networks), 2))  # their hyper-parameters, see `types.Tuning`

    def state(self) -> State:
        """See `Stateful`."""
        known = {group: self._weights[group] for group in self.known}
        return {"weights": known, **{name: getattr(self, name) for name in ("versions", "came", "scores", "tunings")}}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        for group, values in state["weights"].items():
            self.buffer(group)[:] = values.numpy()
        for name in ("versions", "came", "scores", "tunings"):
            getattr(self, name)[:] = state[name]

    @property
    def known(self) -> list[int]:
        """Return the groups whose weights are known."""
        return [int(group) for group in np.flatnonzero(self.versions != NONE)]

    def complaint(self, group: int, arch: int, flat: Array) -> str | None:
        """Return what is wrong with weights of a group, if anything."""
        if arch != self._architectures[group]:
            return "are of another architecture than its configuration says"
        return None if np.isfinite(flat).all() else "are not finite"

    def store(self, group: int, arrived: Arrived, now: int) -> None:
        """Keep a copy of a group's newest weights, which came at this group's own version ``now``."""
        self.buffer(group)[:] = arrived.flat
        self.versions[group], self.came[group] = arrived.version, now
        self.scores[group], self.tunings[group] = arrived.score, arrived.tuning

    def buffer(self, group: int) -> Array:
        """Return where a group's weights stand, [P] f32, to be written to."""
        self._there.pop(group, None)
        if group not in self._weights:
            self._weights[group] = torch.empty(self._sizes[group])
        found: Array = self._weights[group].numpy()
        return found

    def forget(self, groups: Sequence[int]) -> None:
        """Drop what is known of some groups."""
        for group in groups:
            self._weights.pop(group, None)
            self._there.pop(group, None)
            self.versions[group] = self.came[group] = NONE
            self.scores[group] = np.nan

    def older_than(self, max_age: int, now: int) -> list[int]:
        """Return the groups whose newest weights came more than so many of this group's own updates ago."""
        return [group for group in self.known if now - self.came[group] > max_age]

    def opinion(self, group: int, batch: Batch | Transitions, rows: slice) -> Opinion:
        """Return what a group's network thinks of some rows of a batch."""
        network = self._networks[group]
        if group not in self._there:
            self._there[group] = to_device(self._weights[group], self._device)
        bind(network, self._there[group])
        return opinion(network, batch, rows, self._q_temperature)


def in_turn(groups: Sequence[int], most: int | None, number: int) -> list[int]:
    """Return at most so many of the groups: with each number the next ones, so that all have their turn."""
    if most is None or most >= len(groups):
        return list(groups)
    start = number * most
    return sorted(groups[(start + i) % len(groups)] for i in range(most))
