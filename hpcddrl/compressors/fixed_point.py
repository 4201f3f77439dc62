"""Fixed-point numbers Qm.n, with a bit width for each layer by its share of the noise (Lin et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hpcddrl.compressors.compressed import Bytes

FINER = 4  # fraction bits beyond those that let the largest number in


class Q(NamedTuple):
    """A format: ``bits`` in two's complement, ``fraction`` of them behind the point (negative: multiples of 2ᵏ)."""

    bits: int
    fraction: int


def integers(x: Tensor, q: Q) -> Tensor:
    """Return the integers [like x] i32 whose 2^−fraction-fold is nearest; what does not fit becomes the range's end."""
    half = 2 ** (q.bits - 1)
    return torch.ldexp(x.detach().double(), torch.tensor(q.fraction)).round().clamp(-half, half - 1).int()


def fixed(x: Tensor, q: Q) -> Tensor:
    """Return the nearest numbers of a format, as floats (exactly: a float32 has 24 bits)."""
    return torch.ldexp(integers(x, q).double(), torch.tensor(-q.fraction)).to(x.dtype)


def noise(x: Tensor, q: Q) -> float:
    """Return the quantisation noise over the signal, Σ (x − q(x))² / Σ x²: the inverse of the SQNR."""
    signal = float(x.detach().double().square().sum())
    return float((x.detach() - fixed(x, q)).double().square().sum()) / signal if signal else 0.0


def best_format(x: Tensor, bits: int) -> Q:
    """Return the format of so many bits with the least noise: finer ones clip the rare large numbers."""
    largest = float(x.detach().abs().max())
    covering = bits - 1 - (math.ceil(math.log2(largest)) if largest else 0)
    return min((Q(bits, covering + finer) for finer in range(FINER)), key=lambda q: noise(x, q))


def bit_widths(sizes: Sequence[int], noises: Sequence[Sequence[float]], least: int, budget: float) -> list[int]:
    """Return the widths that need the fewest bits in all, Σ size · width, with Σ noise ≤ budget; exactly.

    Lin et al. (2016, equation 12) have the solution where all layers lose 10^(−κ/10) a bit: widths then differ by
    10 log₁₀(size ratio) / κ. Here each layer's noise is measured, so the choice is a knapsack, solved layer by layer
    over the sums that nothing beats in both bits and noise. Where no widths meet the budget: the largest.

    Args:
        sizes: numbers in each layer.
        noises: [layers][widths] noise over signal with least, least + 1, … bits.
        least: the smallest width.
        budget: of the sum of all noises.
    """
    if sum(row[-1] for row in noises) > budget:
        return [least + len(row) - 1 for row in noises]
    rest = [sum(min(row) for row in noises[i + 1 :]) for i in range(len(noises))]  # noise still to come, at least
    front: list[tuple[int, float, tuple[int, ...]]] = [(0, 0.0, ())]
    for size, row, coming in zip(sizes, noises, rest, strict=True):
        sums = sorted(
            (bits + size * (least + i), sofar + lost, (*widths, least + i))
            for bits, sofar, widths in front
            for i, lost in enumerate(row)
            if sofar + lost + coming <= budget
        )
        front, quietest = [], math.inf
        for entry in sums:
            if entry[1] < quietest:
                front.append(entry)
                quietest = entry[1]
    return list(front[0][2])


def packed_bits(values: Tensor, bits: int) -> Bytes:
    """Return integers [n] as a stream of so many bits each, two's complement, padded to whole bytes."""
    unsigned = values.numpy().astype(np.int64) & (2**bits - 1)
    return np.packbits((unsigned[:, None] >> np.arange(bits)) & 1)


def unpacked_bits(data: Bytes, bits: int, count: int) -> Tensor:
    """Return the integers [count] i32 of `packed_bits`."""
    table = np.unpackbits(data, count=bits * count).reshape(count, bits).astype(np.int64)
    unsigned = (table << np.arange(bits)).sum(1)
    return torch.from_numpy(np.where(unsigned >= 2 ** (bits - 1), unsigned - 2**bits, unsigned).astype(np.int32))
