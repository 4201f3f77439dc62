"""Records as they travel: named arrays at fixed places in one contiguous buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from hpcddrl.types import Array

ALIGNMENT = 64  # bytes; a cache line, and enough for any vector instruction


class Record(Protocol):
    """A NamedTuple of arrays; ``last`` [1] u8 says that its sender will send no more."""

    @property
    def last(self) -> Array:
        """Say that nothing more comes from this sender."""


R = TypeVar("R", bound=Record)


class Layout(Generic[R]):
    """Where each field of a record type stands in its buffer.

    Args:
        record: a NamedTuple class with a field ``last``.
        fields: shape and dtype of each other field.
    """

    def __init__(self, record: type[R], fields: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        self._record = record
        self._fields = {"last": ((1,), np.uint8), **fields}
        assert set(self._fields) == set(record._fields), record  # type: ignore[attr-defined]
        self._offsets, offset = {}, 0
        for name, (shape, dtype) in self._fields.items():
            self._offsets[name] = offset
            nbytes = math.prod(shape) * np.dtype(dtype).itemsize
            offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
        self.nbytes = offset

    def up_to(self, name: str, nbytes: int) -> int:
        """Return how much of the buffer reaches to the end of a field's first so many bytes."""
        return self._offsets[name] + nbytes

    def allocate(self) -> tuple[Array, R]:
        """Return a zeroed buffer [nbytes] u8 and the record of views into it."""
        buffer = np.zeros(self.nbytes, np.uint8)
        views = {}
        for name, (shape, dtype) in self._fields.items():
            start, nbytes = self._offsets[name], math.prod(shape) * np.dtype(dtype).itemsize
            views[name] = buffer[start : start + nbytes].view(dtype).reshape(shape)
        return buffer, self._record(**views)
