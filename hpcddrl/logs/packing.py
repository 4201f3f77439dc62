"""Plain data with arrays and tensors as bytes, and back: arrays are written and read where they stand, without a copy.

The header is JSON and says where each array stands, so nothing that is read is executed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from hpcddrl.types import Array, State

MAGIC = b"hpcddrl1"
ALIGNMENT = 64
_LENGTHS = len(MAGIC) + 8  # the magic, and the header's length


class Packed(NamedTuple):
    """A state that is ready to be written: it shares memory with what it is of."""

    header: bytes
    arrays: tuple[Array, ...]

    @property
    def nbytes(self) -> int:
        """Return the bytes that it takes, a multiple of `ALIGNMENT`."""
        return _aligned(_LENGTHS + len(self.header)) + sum(_aligned(array.nbytes) for array in self.arrays)

    def pieces(self) -> Iterator[memoryview]:
        """Yield all bytes, in order."""
        head = MAGIC + len(self.header).to_bytes(8, "little") + self.header
        yield memoryview(head + bytes(_aligned(len(head)) - len(head)))
        for array in self.arrays:
            if array.nbytes:
                yield array.reshape(-1).view(np.uint8).data
            yield memoryview(bytes(_aligned(array.nbytes) - array.nbytes))


def pack(state: State) -> Packed:
    """Make a state ready to be written.

    Raises:
        TypeError: something in it is no array, tensor or plain data.
    """
    arrays: list[Array] = []
    tree = _encoded(state, arrays)
    about = [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays]
    return Packed(json.dumps({"tree": tree, "arrays": about}).encode(), tuple(arrays))


def unpack(data: Array) -> State:
    """Return the state that was packed; its arrays are views of ``data`` [nbytes] u8.

    Raises:
        ValueError: that is no packed state.
    """
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise ValueError("does not begin as a part of a checkpoint does")
    try:
        length = int.from_bytes(bytes(data[len(MAGIC) : _LENGTHS]), "little")
        header = json.loads(bytes(data[_LENGTHS : _LENGTHS + length]))
        arrays, offset = [], _aligned(_LENGTHS + length)
        for about in header["arrays"]:
            dtype, shape = np.dtype(about["dtype"]), tuple(about["shape"])
            nbytes = dtype.itemsize * math.prod(shape)
            arrays.append(data[offset : offset + nbytes].view(dtype).reshape(shape))
            offset += _aligned(nbytes)
        state: State = _decoded(header["tree"], arrays)
    except (KeyError, TypeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    return state


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _encoded(value: Any, arrays: list[Array]) -> Any:
    """Return JSON-able data, with arrays named by their place in ``arrays``."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return value.item()
        case torch.Tensor():
            arrays.append(_plain(value.detach().cpu().numpy()))
            return {"tensor": len(arrays) - 1}
        case np.ndarray():
            arrays.append(_plain(value))
            return {"array": len(arrays) - 1}
        case dict():
            return {"dict": [[_encoded(key, arrays), _encoded(item, arrays)] for key, item in value.items()]}
        case tuple():
            return {"tuple": [_encoded(item, arrays) for item in value]}
        case list():
            return [_encoded(item, arrays) for item in value]
    raise TypeError(f"{type(value).__name__} is neither an array nor plain data")


def _decoded(tree: Any, arrays: list[Array]) -> Any:
    match tree:
        case {"tensor": number}:
            return torch.from_numpy(arrays[number])
        case {"array": number}:
            return arrays[number]
        case {"dict": items}:
            return {_decoded(key, arrays): _decoded(item, arrays) for key, item in items}
        case {"tuple": items}:
            return tuple(_decoded(item, arrays) for item in items)
        case list():
            return [_decoded(item, arrays) for item in tree]
    return tree


def _plain(array: Array) -> Array:
    if array.dtype.hasobject:
        raise TypeError("an array of Python objects is no plain data")
    return np.ascontiguousarray(array).reshape(array.shape)  # of no dimension too, which becomes one
