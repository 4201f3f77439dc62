"""What a rank asks of its process and of the C library before anything is computed."""

from __future__ import annotations

import ctypes

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them
KEPT_BYTES = 256 << 20
BLOCKS = (64 << 20, 32 << 20)  # bytes from which a block is mapped on its own; old glibc takes 32 MiB at most


def prepare_process() -> None:
    """Keep freed memory for the next batch, and take numbers too small for float32's exponent for zero.

    An optimizer's running mean of squared gradients is full of such numbers (a sixth to a half of it where a policy
    hardly changes), and processors take many times as long over each of them: RMSProp's step, four times. Threads that
    are started later have it from this one.
    """
    keep_freed()
    torch.set_flush_denormal(True)


def keep_freed() -> bool:
    """Let the C library keep what is freed for the next batch, instead of giving it back to the system each time.

    The tensors of a batch are as large as those of the last. Where they are given back between the two, each of their
    pages is mapped and zeroed anew, which can take longer than what is computed in them. Large blocks, as a replay has,
    are still given back.

    Returns:
        Whether the C library does so (glibc); another is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mapped = any(mallopt(MMAP_THRESHOLD, size) for size in BLOCKS)
    return mapped and bool(mallopt(TRIM_THRESHOLD, KEPT_BYTES))
