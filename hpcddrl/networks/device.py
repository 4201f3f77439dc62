"""The way of data between host memory and the device that computes; what computes on cores stays where it is.

Environments, messages, replays and files know host memory only. Where a role computes on a GPU, its batches and
vectors pass through pinned host memory: from there the GPU fetches them by itself, while the host goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from hpcddrl.types import Answer

CPU = torch.device("cpu")
Records = TypeVar("Records", bound=tuple[Any, ...])


def gpus() -> tuple[str, ...]:
    """Return the names of the GPUs that torch sees from this process."""
    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def host_room(shape: Sequence[int], dtype: np.dtype[Any] | type, device: torch.device) -> Tensor:
    """Return zeros in host memory for what goes to a device or comes from it: pinned if that is a GPU."""
    return _pinned(torch.from_numpy(np.zeros(shape, dtype)), device)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device: itself if it is there, else what is being copied there through pinned memory."""
    return x if x.device == device else _pinned(x, device).to(device, non_blocking=True)


def _pinned(x: Tensor, device: torch.device) -> Tensor:
    """Return what stands in host memory where this device, if it is a GPU, can fetch it by itself."""
    return x.pin_memory() if _is_gpu(device) and not x.is_pinned() else x


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_available()


def batch_to(batch: Records, device: torch.device) -> Records:
    """Return a record, of tensors and of what the host alone reads, with its tensors on a device."""
    if device == CPU:
        return batch
    return type(batch)(*(to_device(x, device) if isinstance(x, Tensor) else x for x in batch))


def on_host(state: Any) -> Any:
    """Return nested dictionaries, lists and tuples with their tensors in host memory, as files hold them."""
    match state:
        case Tensor():
            return state.cpu()
        case dict():
            return {key: on_host(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(map(on_host, state))
    return state


def answering_on(network: Answer, device: torch.device) -> Answer:
    """Return what answers observations of the host's with a network on a device; the answers stay there."""
    return network if device == CPU else lambda observation: network(to_device(observation, device))


def finished(call: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return a call that ends when a device has done what it was told, as what is timed must."""
    if not _is_gpu(device):
        return call

    def once() -> None:
        call()
        torch.cuda.synchronize(device)

    return once


class Rows:
    """Rows that the host writes one by one and a device reads; on cores both are the same memory.

    A row is on its way while the host writes the next one.

    Args:
        host: [rows, ...] in host memory.
        device: that reads them.
    """

    def __init__(self, host: Tensor, device: torch.device) -> None:
        self.host, self._there = host, host if device == CPU else torch.empty_like(host, device=device)
        self._sent = torch.cuda.Event() if _is_gpu(device) else None  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """Wait until the rows sent before have left, and may be written anew."""
        if self._sent is not None:
            self._sent.synchronize()

    def send(self, row: int) -> None:
        """Let a row that is written go to the device."""
        if self._there is not self.host:
            self._there[row].copy_(self.host[row], non_blocking=True)

    def first(self, count: int) -> Tensor:
        """Return so many rows where they are read; what is done there with them waits until they have come."""
        if self._sent is not None:
            self._sent.record()
        return self._there[:count]


class HostSide:
    """The place of a device's vector, of f32, in host memory, from where it is sent or to where it is received.

    It is made with the first vector that is not in host memory; one that is has its place already.
    """

    def __init__(self) -> None:
        self._room: Tensor | None = None

    def of(self, vector: Tensor) -> Tensor:
        """Return where the host has this vector, of the size that all have, with whatever stands there."""
        if vector.is_cpu:
            return vector
        if self._room is None:
            self._room = host_room(vector.shape, np.float32, vector.device)
        return self._room

    def fetch(self, vector: Tensor) -> Tensor:
        """Return the vector in host memory, where its values have come."""
        room = self.of(vector)
        return room if room is vector else room.copy_(vector)

    def store(self, vector: Tensor) -> None:
        """Give the vector the values that stand in its place in host memory."""
        room = self.of(vector)
        if room is not vector:
            vector.copy_(room)
