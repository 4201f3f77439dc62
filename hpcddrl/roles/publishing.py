"""Weights from learners to actors: actors ask shortly before they need them, learners answer with the newest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from hpcddrl.comm.channel import Comm, Ending, Receiver, Sender, Slot, Tag, Traffic, ignore
from hpcddrl.comm.messages import PublishedMessage, published_layout, pull_layout
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.device import HostSide
from hpcddrl.types import Array, Batch, Stage, Transitions, Weights

FIXED_LAG = 1  # in deterministic runs: updates between the weights that act and those that learn from it


class Packing(Protocol):
    """The form in which weights are published."""

    nbytes: int  # at most

    def see(self, batch: Batch | Transitions) -> None:
        """Look at what is learned from, for what has to be calibrated or distilled on it."""

    def renew(self, weights: Weights) -> int:
        """Bring the packed form up to date if that is due; return the version that it is of."""

    def pack(self) -> Array:
        """Return the packed form, [nbytes] u8 or less."""

    def end(self) -> None:
        """Wait for what was begun: nothing will be asked for any more."""


class AsTheyAre:
    """Weights as the learner has them.

    Args:
        values: [P] f32, the learner's own.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._values, self._host = values, HostSide()
        self._bytes = self._host.of(values).numpy().view(np.uint8)
        self.nbytes = len(self._bytes)

    def see(self, batch: Batch | Transitions) -> None:
        """See `Packing`."""

    def renew(self, weights: Weights) -> int:
        """See `Packing`."""
        return weights.version

    def pack(self) -> Array:
        """See `Packing`."""
        self._host.fetch(self._values)
        return self._bytes

    def end(self) -> None:
        """See `Packing`."""


class Following:
    """Weights that are packed as another packing does it, and copied for who acts or compresses with a copy.

    Args:
        packing: of the weights.
        copy: takes them, [P] f32: into the format that what acts computes in, or to another device.
    """

    def __init__(self, packing: Packing, copy: Callable[[torch.Tensor], object]) -> None:
        self._packing, self._copy, self.nbytes = packing, copy, packing.nbytes
        self._copied: tuple[int, int] | None = None  # the version, and that with which its stage began

    def see(self, batch: Batch | Transitions) -> None:
        """See `Packing`."""
        self._packing.see(batch)

    def renew(self, weights: Weights) -> int:
        """See `Packing`; each version is copied once."""
        at = weights.version, weights.since  # who joins others again may get other weights of the same version
        if at != self._copied:
            self._copy(weights.flat)
            self._copied = at
        return self._packing.renew(weights)

    def pack(self) -> Array:
        """See `Packing`."""
        return self._packing.pack()

    def end(self) -> None:
        """See `Packing`."""
        self._packing.end()


class Publishing(Protocol):
    """A learner's way to whoever acts."""

    version: int  # of the weights that act, where this learner does

    def put(self, weights: Weights, batch: Batch | Transitions | None = None) -> None:
        """Make these the newest weights, learned from this batch."""

    def serve(self) -> None:
        """Answer the requests that can be answered now."""

    def postpone(self, waits: Callable[[int], bool]) -> None:
        """Answer no actor while this is true of it: it could not act with the weights yet, and will get newer ones."""

    def end(self) -> Ending:
        """Tell whoever asks that no more weights will come."""


class AtHand:
    """For a learner that acts itself: what it would publish acts where it stands.

    Args:
        packing: what acts.
    """

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self.version = -1

    def put(self, weights: Weights, batch: Batch | Transitions | None = None) -> None:
        """See `Publishing`."""
        if batch is not None:
            self._packing.see(batch)
        self.version = self._packing.renew(weights)

    def serve(self) -> None:
        """See `Publishing`; nobody asks."""

    def postpone(self, waits: Callable[[int], bool]) -> None:
        """See `Publishing`; nobody asks."""

    def end(self) -> Ending:
        """See `Publishing`."""
        self._packing.end()
        return Ending()


class Publisher:
    """A learner's side: keeps the newest weights at hand and answers requests.

    A version is copied once, and only if somebody asks for it. In ``exact`` (deterministic) runs each actor gets the
    version that it names, so the last ``FIXED_LAG + 1`` versions are kept.

    Args:
        world: whose ranks are meant.
        actors: the ranks that ask this learner.
        packing: what is published of them.
        exact: answer with the version asked for.
        timing: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: Comm,
        actors: Sequence[int],
        packing: Packing,
        exact: bool,
        timing: Timing,
        traffic: Traffic,
    ) -> None:
        self._actors, self._packing, self._exact, self._timing = list(actors), packing, exact, timing
        self._requests = Receiver(world, actors, Tag.PULL, pull_layout(), slots=2)
        self._layout = published_layout(packing.nbytes)
        self._sender = Sender(world, Tag.WEIGHTS, self._layout, len(self._actors) + FIXED_LAG + 2, traffic)
        self._kept: dict[int, Slot[PublishedMessage]] = {}
        self._asked: dict[int, int] = {}
        self._waits: Callable[[int], bool] = lambda actor: False
        self._weights: Weights | None = None
        self.version = -1

    def put(self, weights: Weights, batch: Batch | Transitions | None = None) -> None:
        """Make these the newest weights, learned from this batch, and answer whoever waits for them."""
        self.version = weights.version
        if not self._actors:
            return
        with self._timing(Phase.PUBLISH):
            self._weights = weights
            if batch is not None:
                self._packing.see(batch)
            keep = FIXED_LAG if self._exact else 0
            for version in [v for v in self._kept if v < weights.version - keep]:
                self._sender.release(self._kept.pop(version))
            if self._exact:
                self._packing.renew(weights)
                self._keep(weights.version)
            self.serve()

    def serve(self) -> None:
        """Answer the requests that can be answered now."""
        for slot in self._requests.poll():
            if not slot.record.last[0]:
                self._asked[slot.source] = int(slot.record.wanted[0])
            self._requests.release(slot)
        if self._weights is None or not self._asked:
            return
        newest = self._weights.version if self._exact else self._packing.renew(self._weights)
        for actor, wanted in list(self._asked.items()):
            version = wanted if self._exact else newest
            if version > newest or (not self._exact and newest <= wanted) or self._waits(actor):
                continue
            assert version in self._kept or version == newest, "nobody asks for what is no longer kept"
            kept = self._kept.get(version) or self._keep(version)
            self._sender.send(kept, actor, self._layout.up_to("packed", int(kept.record.length[0])))
            del self._asked[actor]

    def postpone(self, waits: Callable[[int], bool]) -> None:
        """See `Publishing`."""
        self._waits = waits

    def end(self) -> Ending:
        """Tell the actors that no more weights will come; they part with a last request."""
        self._packing.end()
        for slot in self._kept.values():
            self._sender.release(slot)
        self._kept, self._asked = {}, {}
        if self._actors:
            self._sender.say_last(self._actors)
        return Ending(((self._requests, ignore),), (self._sender,))

    def _keep(self, version: int) -> Slot[PublishedMessage]:
        slot = self._sender.take()
        assert slot is not None, "there are more slots than actors and kept versions"
        packed = self._packing.pack()
        slot.record.version[0], slot.record.length[0] = version, len(packed)
        assert self._weights is not None
        slot.record.stage[0], slot.record.since[0] = self._weights.stage, self._weights.since
        slot.record.packed[: len(packed)] = packed
        self._kept[version] = slot
        return slot


class Inbox:
    """An actor's side: asks for weights and takes the newest that came.

    Args:
        world: whose ranks are meant.
        learners: the ranks that answer: the first of them that is still there.
        nbytes: of what arrives, at most.
        unpack: takes what has arrived, [nbytes] u8 or less.
        exact: ask for versions by name.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: Comm,
        learners: Sequence[int],
        nbytes: int,
        unpack: Callable[[Array], None],
        exact: bool,
        traffic: Traffic,
    ) -> None:
        self._learners, self._unpack, self._exact = list(learners), unpack, exact
        self._requests = Sender(world, Tag.PULL, pull_layout(), 2, traffic)
        self._weights = Receiver(world, learners, Tag.WEIGHTS, published_layout(nbytes), slots=2)
        self._asked: int | None = None  # who owes an answer
        self._last = False
        self.version = -1
        self.stage, self.since = Stage.EARLY, 0  # of the run, as the learner that answers has entered it

    @property
    def last(self) -> bool:
        """Say whether no more weights will come."""
        return self._last or not self._weights.open

    @property
    def owed(self) -> bool:
        """Say whether an answer is to come."""
        return self._asked in self._weights.open

    def ask(self, version: int) -> None:
        """Ask for this version (exact), or for anything newer than what is here; once until it is answered."""
        answers = [rank for rank in self._learners if rank in self._weights.open]
        if self._asked in answers or self.last or (self._exact and self.version == version):
            return
        slot = self._requests.take()
        assert slot is not None, "the request before was answered, so it was taken"
        slot.record.wanted[0] = version if self._exact else self.version
        self._requests.send(slot, answers[0])
        self._requests.release(slot)
        self._asked = answers[0]

    def refresh(self) -> bool:
        """Take the weights that have arrived; say whether there were any."""
        arrived = self._weights.poll()
        for slot in arrived:
            record = slot.record
            if record.last[0]:
                self._last = True
            elif record.version[0] > self.version:
                self._unpack(record.packed[: record.length[0]])
                self.version = int(record.version[0])
                self.stage, self.since = Stage(int(record.stage[0])), int(record.since[0])
            self._asked = None
            self._weights.release(slot)
        return bool(arrived)

    def end(self) -> Ending:
        """Part from the learners at the end of a leg; return what is still to come."""
        self._last, self._asked = False, None
        self._requests.say_last(self._learners)
        return Ending(((self._weights, ignore),), (self._requests,))
