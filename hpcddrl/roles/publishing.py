"""Weights from learners to actors: actors ask shortly before they need them, learners answer with the newest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from hpcddrl.comm.channel import Comm, Ending, Receiver, Sender, Slot, Tag, Traffic, ignore
from hpcddrl.comm.messages import WeightsMessage, pull_layout, weights_layout
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.held import fill
from hpcddrl.types import Weights

FIXED_LAG = 1  # in deterministic runs: updates between the weights that act and those that learn from it


class Publisher:
    """A learner's side: keeps the newest weights at hand and answers requests.

    A version is copied once, and only if somebody asks for it. In ``exact`` (deterministic) runs each actor gets the
    version that it names, so the last ``FIXED_LAG + 1`` versions are kept.

    Args:
        world: whose ranks are meant.
        actors: the ranks that ask this learner.
        parameters: P.
        exact: answer with the version asked for.
        timing: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: Comm,
        actors: Sequence[int],
        parameters: int,
        exact: bool,
        timing: Timing,
        traffic: Traffic,
    ) -> None:
        self._actors, self._exact, self._timing = list(actors), exact, timing
        self._requests = Receiver(world, actors, Tag.PULL, pull_layout(), slots=2)
        self._sender = Sender(
            world, Tag.WEIGHTS, weights_layout(parameters), len(self._actors) + FIXED_LAG + 2, traffic
        )
        self._kept: dict[int, Slot[WeightsMessage]] = {}
        self._asked: dict[int, int] = {}
        self._weights: Weights | None = None

    def put(self, weights: Weights) -> None:
        """Make these the newest weights, and answer whoever waits for them."""
        if not self._actors:
            return
        with self._timing(Phase.PUBLISH):
            self._weights = weights
            keep = FIXED_LAG if self._exact else 0
            for version in [v for v in self._kept if v < weights.version - keep]:
                self._sender.release(self._kept.pop(version))
            if self._exact:
                self._keep()
            self.serve()

    def serve(self) -> None:
        """Answer the requests that can be answered now."""
        for slot in self._requests.poll():
            if not slot.record.last[0]:
                self._asked[slot.source] = int(slot.record.wanted[0])
            self._requests.release(slot)
        if self._weights is None:
            return
        newest = self._weights.version
        for actor, wanted in list(self._asked.items()):
            version = wanted if self._exact else newest
            if version > newest or (not self._exact and newest <= wanted):
                continue
            kept = self._kept.get(version) or self._keep()
            assert int(kept.record.version[0]) == version
            self._sender.send(kept, actor)
            del self._asked[actor]

    def end(self) -> Ending:
        """Tell the actors that no more weights will come; they part with a last request."""
        for slot in self._kept.values():
            self._sender.release(slot)
        if self._actors:
            self._sender.say_last(self._actors)
        return Ending(((self._requests, ignore),), (self._sender,))

    def _keep(self) -> Slot[WeightsMessage]:
        assert self._weights is not None
        slot = self._sender.take()
        assert slot is not None, "there are more slots than actors and kept versions"
        slot.record.version[0] = self._weights.version
        slot.record.flat[:] = self._weights.flat.numpy()
        self._kept[self._weights.version] = slot
        return slot


class Inbox:
    """An actor's side: asks for weights and takes the newest that came.

    Args:
        world: whose ranks are meant.
        learner: the rank that answers.
        network: that arriving weights are copied into.
        exact: ask for versions by name.
        traffic: where messages are counted.
    """

    def __init__(self, world: Comm, learner: int, network: nn.Module, exact: bool, traffic: Traffic) -> None:
        self._learner, self._network, self._exact = learner, network, exact
        self._requests = Sender(world, Tag.PULL, pull_layout(), 2, traffic)
        parameters = sum(p.numel() for p in network.parameters())
        self._weights = Receiver(world, [learner], Tag.WEIGHTS, weights_layout(parameters), slots=2)
        self._asking = False
        self.version = -1
        self.last = False

    def ask(self, version: int) -> None:
        """Ask for this version (exact), or for anything newer than what is here; once until it is answered."""
        if self._asking or self.last or (self._exact and self.version == version):
            return
        slot = self._requests.take()
        assert slot is not None, "the request before was answered, so it was taken"
        slot.record.wanted[0] = version if self._exact else self.version
        self._requests.send(slot, self._learner)
        self._requests.release(slot)
        self._asking = True

    def refresh(self) -> bool:
        """Take the weights that have arrived; say whether there were any."""
        arrived = self._weights.poll()
        for slot in arrived:
            record = slot.record
            if record.last[0]:
                self.last = True
            elif record.version[0] > self.version:
                fill(self._network, torch.from_numpy(record.flat))
                self.version = int(record.version[0])
            self._asking = False
            self._weights.release(slot)
        return bool(arrived)

    def end(self) -> Ending:
        """Part from the learner; return what is still to come."""
        self._requests.say_last([self._learner])
        return Ending(((self._weights, ignore),), (self._requests,))
