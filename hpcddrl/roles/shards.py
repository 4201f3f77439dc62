"""A learner's links to the server ranks that own the weights, and the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from hpcddrl.comm.channel import Comm, Ending, Receiver, Sender, Slot, Tag, Traffic, ignore
from hpcddrl.comm.messages import GradientMessage, WeightsMessage, gradient_layout, weights_layout
from hpcddrl.comm.placement import slices
from hpcddrl.comm.wait import Backoff, wait_until
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.device import HostSide
from hpcddrl.roles.updates import clip
from hpcddrl.types import Metrics, Stage, Weights


class Shard(NamedTuple):
    """A learner's link to the server rank that owns a part of the weights."""

    rank: int
    owned: slice
    gradients: Sender[GradientMessage]
    weights: Receiver[WeightsMessage]


class ServerUpdate:
    """Send each shard of the server its part of the gradient, and take the weights that they answer with.

    Every shard counts its own updates, and a gradient carries the version of that shard's weights that it is of; the
    version that others see is the first shard's. A shard that admits or refuses gradients is asked before the others
    are told, so that none is applied in part; its age is then that at the first shard.

    Args:
        world: whose ranks are meant.
        servers: the ranks that own a part each, in order.
        parameters: of the network.
        most: norm to clip gradients to before they are sent, if any.
        asks: the first shard may refuse a gradient.
        meanwhile: called while their answers are awaited.
        timing: of this rank.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: Comm,
        servers: Sequence[int],
        parameters: int,
        most: float | None,
        asks: bool,
        meanwhile: Callable[[], None],
        timing: Timing,
        traffic: Traffic,
    ) -> None:
        self._most, self._meanwhile, self._timing = most, meanwhile, timing
        self._shards = [
            Shard(
                rank,
                owned,
                Sender(world, Tag.GRADIENT, gradient_layout(owned.stop - owned.start), 1, traffic),
                Receiver(world, [rank], Tag.WEIGHTS, weights_layout(owned.stop - owned.start), slots=1),
            )
            for rank, owned in zip(servers, slices(parameters, len(servers)), strict=True)
        ]
        numbers = range(len(servers))
        self._gradient, self._values = HostSide(), HostSide()  # from where and to where messages go
        self._rounds = [numbers[:1], numbers[1:]] if asks else [numbers]  # of shards that are told at the same time
        self._versions = [0] * len(servers)
        self.metrics: Metrics = {}
        self.refused = False

    def first(self, weights: Weights) -> Weights:
        """See `Update`: wait for the shards' first weights."""
        return self._pull(weights, range(len(self._shards)))

    def __call__(
        self, weights: Weights, gradient: Tensor, frames: int, samples: int, loss: float, stop: bool
    ) -> Weights:
        """See `Update`. The server decides about the end."""
        with self._timing(Phase.REDUCE):
            own = gradient[: weights.flat.numel()]
            self.metrics = {"grad_norm": clip(own, self._most)}
            self.refused = False
            sent = self._gradient.fetch(own)
            for numbers in self._rounds:
                for number in numbers:
                    self._push(number, sent, self._versions[number], frames, samples=samples, loss=loss)
                weights = self._pull(weights, numbers)
            wait_until(lambda: all(shard.gradients.idle for shard in self._shards))
        return weights

    def report(self, weights: Weights, frames: float, successor: Tensor | None) -> Weights:
        """Tell the servers what a learner did that went on without them; return their weights, in the same vector.

        The first shard, which alone knows of stages, says whether the successor is taken; the others do as it did.

        Args:
            weights: that it has come to.
            frames: environment frames that are new since it last told them of any.
            successor: [P] weights for them to go on from, if any.
        """
        with self._timing(Phase.REDUCE):
            told = self._gradient.fetch(weights.flat if successor is None else successor)
            first, others = [0], range(1, len(self._shards))
            succeeds, version = successor is not None, weights.version
            for numbers in (first, others):
                self.refused = False
                for number in numbers:
                    self._push(number, told, version, frames, refused=True, succeeds=succeeds)
                weights = self._pull(weights, numbers)
                succeeds = succeeds and not self.refused
            wait_until(lambda: all(shard.gradients.idle for shard in self._shards))
        self.refused = False
        return weights

    def optimizer_state(self) -> None:
        """See `Update`: the server holds it."""

    def end(self) -> Ending:
        """See `Update`."""
        for shard in self._shards:
            shard.gradients.say_last([shard.rank])
        return Ending(tuple((s.weights, ignore) for s in self._shards), tuple(s.gradients for s in self._shards))

    def close(self) -> None:
        """See `Update`: nothing is held."""

    def _push(
        self,
        number: int,
        flat: Tensor,
        version: int,
        frames: float,
        *,
        samples: int = 0,
        loss: float = 0.0,
        refused: bool | None = None,
        succeeds: bool = False,
    ) -> None:
        shard = self._shards[number]
        slot = shard.gradients.take()
        assert slot is not None, "the shard answered, so it has taken the gradient before"
        record = slot.record
        record.version[0], record.frames[0], record.samples[0], record.loss[0] = version, frames, samples, loss
        record.refused[0], record.succeeds[0] = self.refused if refused is None else refused, succeeds
        record.flat[:] = flat[shard.owned].numpy()
        shard.gradients.send(slot, shard.rank)
        shard.gradients.release(slot)

    def _pull(self, weights: Weights, numbers: Sequence[int]) -> Weights:
        """Wait for these shards' answers and write them into the weights."""
        arrived: dict[int, Slot[WeightsMessage]] = {}
        backoff = Backoff(longest_s=1e-3)
        with self._timing(Phase.WAIT):
            while True:
                arrived |= {number: slot for number in numbers for slot in self._shards[number].weights.poll()}
                if len(arrived) == len(numbers):
                    break
                self._meanwhile()
                backoff.pause()
        values = self._values.of(weights.flat).numpy()
        for number, slot in arrived.items():
            record, shard = slot.record, self._shards[number]
            values[shard.owned] = record.flat
            self._versions[number] = int(record.version[0])
            self.refused = self.refused or bool(record.refused[0])
            weights = weights._replace(last=weights.last or bool(record.last[0]))
            if number == 0:
                stage, since = Stage(int(record.stage[0])), int(record.since[0])
                version, frames = int(record.version[0]), float(record.frames[0])
                weights = weights._replace(version=version, frames=frames, stage=stage, since=since)
            shard.weights.release(slot)
        self._values.store(weights.flat)
        return weights
