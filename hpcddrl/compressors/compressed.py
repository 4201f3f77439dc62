"""What every compressor offers, to the rank that compresses and to the rank that acts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcddrl.config import Algorithm, Network
from hpcddrl.config.compression import EveryUpdates, Trigger
from hpcddrl.networks.make import AnyNetwork, make_network
from hpcddrl.types import EnvSpec, Output, State

Bytes = NDArray[np.uint8]
EACH_UPDATE = EveryUpdates(updates=1)


class Blueprint(NamedTuple):
    """What the teacher is built from, known on every rank."""

    network: Network
    algorithm: Algorithm
    spec: EnvSpec
    seed: int
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # in which float32 weights may compute

    def build(self, *, torso: str = "same", width: float | None = None) -> AnyNetwork:
        """Return a network as the teacher's, or with another torso or width."""
        made = Network(
            torso=self.network.torso if torso == "same" else torso,  # type: ignore[arg-type]
            width=self.network.width if width is None else width,
        )
        return make_network(made, self.algorithm, self.spec, self.seed)


class StandIn(Protocol):
    """A network as it acts: it answers like one, and its numbers travel as bytes.

    A new one has as many bytes as there will ever be, so buffers for them are made once.
    """

    @property
    def simulated(self) -> bool:
        """Say whether it computes with floats in the place of what it stands for: its speed says nothing then."""

    def __call__(self, observation: Tensor) -> Output:
        """Return policy and value of observations [N, *observation_shape], as networks do.

        Several threads may ask at the same time; not while another method is at work.
        """

    def take(self, network: AnyNetwork, states: Tensor) -> None:
        """Take over a float network's numbers, calibrated on states [N, *observation_shape] if that is needed.

        Raises:
            ValueError: it must be calibrated, and there are no states.
        """

    def pack(self) -> Bytes:
        """Return its numbers as [nbytes] u8."""

    def unpack(self, data: Bytes) -> None:
        """Take over the numbers of another that was made alike, from its `pack`."""

    def tune(self, observation: Tensor) -> None:
        """Choose by timing how to answer batches of this size, where there is a choice."""


class Shape(Protocol):
    """The float network behind a stand-in, kept like a teacher that moves on."""

    network: AnyNetwork

    def follow(self, teacher: AnyNetwork, states: Tensor) -> int:
        """Come closer to the teacher's answers to states [N, *observation_shape]; return the steps that it took."""

    def state(self) -> State:
        """See `Stateful`: what following a teacher has left behind."""

    def restore(self, state: State) -> None:
        """See `Stateful`."""


class Compressor:
    """A learner's side: keeps a stand-in like its teacher.

    Args:
        shape: what is kept like the teacher.
        stand_in: what acts of it.
        trigger: when it is to follow.
        beside: whether it may learn in a thread of its own.
    """

    choice = 0  # of those that there are

    def __init__(self, shape: Shape, stand_in: StandIn, trigger: Trigger = EACH_UPDATE, beside: bool = False) -> None:
        self.shape, self.stand_in, self.trigger, self.beside = shape, stand_in, trigger, beside

    def follow(self, teacher: AnyNetwork, states: Tensor) -> int:
        """Make the stand-in answer like the teacher again, from states [N, *observation_shape]."""
        steps = self.learn(teacher, states)
        self.take(states)
        return steps

    def learn(self, teacher: AnyNetwork, states: Tensor) -> int:
        """Make the network behind the stand-in answer like the teacher; the stand-in stays as it is."""
        return self.shape.follow(teacher, states)

    def take(self, states: Tensor) -> None:
        """Make the stand-in what the network behind it is by now, calibrated on states."""
        self.stand_in.take(self.shape.network, states)

    def accepts(self, kl: float) -> bool:
        """Say whether the stand-in may go on acting with this KL(teacher ‖ stand-in), in nats: with any."""
        return True

    def state(self) -> State:
        """See `Stateful`: what learns, and what acts of it."""
        return {"shape": self.shape.state(), "acts": self.stand_in.pack()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self.shape.restore(state["shape"])
        self.stand_in.unpack(state["acts"])


def as_bytes(tensors: Iterable[Tensor]) -> Bytes:
    """Return the contents of tensors of any dtype, one after the other, as [nbytes] u8."""
    return torch.cat([t.detach().contiguous().flatten().view(torch.uint8) for t in tensors]).numpy()


def from_bytes(data: Bytes, tensors: Iterable[Tensor]) -> None:
    """Copy `as_bytes`' data into tensors of the same dtypes and sizes."""
    offset = 0
    with torch.no_grad():
        for tensor in tensors:
            end = offset + tensor.numel() * tensor.element_size()
            part = torch.from_numpy(data[offset:end].copy())  # a copy starts where its dtype may
            tensor.copy_(part.view(tensor.dtype).view(tensor.shape))
            offset = end
    assert offset == len(data), "packed by a stand-in of another shape"


def few(states: Tensor, most: int, needed_by: str) -> Tensor:
    """Return the first states, ``most`` of them.

    Raises:
        ValueError: there are none.
    """
    if not len(states):
        raise ValueError(
            f"{needed_by}: ranges are calibrated on observations, and there are none; publish after the first batch "
            "has been collected, or choose fp32 or cast"
        )
    return states[:most]


def scaled(observation: Tensor) -> Tensor:
    """Return observations as a torso takes them: float32, pixels in [0, 1]."""
    x = observation.float()
    return x * (1 / 255) if observation.dtype == torch.uint8 else x
