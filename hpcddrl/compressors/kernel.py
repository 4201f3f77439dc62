"""The XNOR kernel: compiled for this processor when it is first needed, and kept."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("xnor.cpp")
COMPILING_S = 120  # at most
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")


class NoKernelError(RuntimeError):
    """There is no compiler here, or it refused."""


class SignWeights(NamedTuple):
    """A layer's signs as the kernel reads them."""

    words: Tensor  # [words, outputs] i64: each window's bits, see `packed_signs`
    tap_sums: Tensor  # [kernel · kernel, outputs] i32
    channels: int
    kernel: int
    stride: int
    padding: int


def packed_signs(positive: Tensor, stride: int, padding: int) -> SignWeights:
    """Lay out signs [outputs, channels, kernel, kernel] bool (true: +1) for the kernel."""
    outputs, channels, kernel, _ = positive.shape
    taps = positive.permute(2, 3, 1, 0).reshape(kernel * kernel, channels, outputs)  # a pixel's channels together
    filled = torch.zeros(kernel * kernel, -(-channels // 8) * 8, outputs, dtype=torch.uint8)
    filled[:, :channels] = taps
    places = (1 << torch.arange(8, dtype=torch.uint8)).view(8, 1)
    rows = (filled.view(-1, 8, outputs) * places).sum(1, dtype=torch.uint8)  # [bytes, outputs]
    padded = torch.zeros(-(-len(rows) // 8) * 8, outputs, dtype=torch.uint8)
    padded[: len(rows)] = rows
    words = padded.view(-1, 8, outputs).transpose(1, 2).flatten().view(torch.int64).view(-1, outputs)
    sums = (2 * taps.int() - 1).sum(1, dtype=torch.int32)
    return SignWeights(words, sums.contiguous(), channels, kernel, stride, padding)


class XnorKernel:
    """Dot products of signs by XNOR and popcount.

    Args:
        library: with the two functions of xnor.cpp.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._pack, self._dot = library.pack_signs, library.dot_signs
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        self._pack.argtypes = [pointer, pointer, count, count, pointer]
        self._dot.argtypes = [pointer, *[count] * 4, pointer, pointer, *[count] * 4, pointer]
        self._pack.restype = self._dot.restype = None

    def __call__(self, x: Tensor, threshold: Tensor, weights: SignWeights) -> Tensor:
        """Return Σ sign(x − threshold) sign(w) over each window, padding counting 0.

        Args:
            x: [N, channels, H, W] f32; read fastest where channels are last.
            threshold: [channels] f32; x equal to it counts as +1.
            weights: of a layer.

        Returns:
            [N, outputs, H', W'] f32 whole numbers, channels last.
        """
        w = weights
        n, channels, height, width = x.shape
        assert channels == w.channels
        x = x.permute(0, 2, 3, 1).contiguous()
        out = [(side + 2 * w.padding - w.kernel) // w.stride + 1 for side in (height, width)]
        outputs = w.words.shape[1]
        bits = torch.empty(n * height * width, -(-channels // 8), dtype=torch.uint8)
        y = torch.empty(n, *out, outputs)
        threshold = threshold.contiguous()
        self._pack(x.data_ptr(), threshold.data_ptr(), len(bits), channels, bits.data_ptr())
        self._dot(
            bits.data_ptr(), n, height, width, channels, w.words.data_ptr(), w.tap_sums.data_ptr(),
            outputs, w.kernel, w.stride, w.padding, y.data_ptr(),
        )  # fmt: skip
        return y.permute(0, 3, 1, 2)


@functools.cache
def xnor_kernel() -> XnorKernel:
    """Return the kernel, compiled if this source never was for this processor.

    The compiler is $CXX, else c++, g++ or clang++ on PATH; the result stands in $XDG_CACHE_HOME/hpcddrl/kernels
    (~/.cache), so that compute nodes without a compiler can use what a node of their kind has compiled.

    Raises:
        NoKernelError: nothing is cached and nothing compiles; says why.
    """
    target = _cached()
    if not target.exists():
        _compile(target)
    try:
        return XnorKernel(ctypes.CDLL(str(target)))
    except OSError as error:
        raise NoKernelError(f"{target} cannot be loaded ({error}); remove it to have it compiled again") from error


def _cached() -> Path:
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode() + _processor().encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "hpcddrl" / "kernels" / f"xnor-{key}.so"


def _processor() -> str:
    """Name what -march=native depends on."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {flags}"


def _compile(target: Path) -> None:
    """Compile to a name of this process's own, then rename: ranks may compile at the same time."""
    named = os.environ.get("CXX")
    found = named or next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if found is None:
        raise NoKernelError("no C++ compiler: none of c++, g++, clang++ is on PATH and CXX is not set")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            command = [*shlex.split(found), *FLAGS, str(SOURCE), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILING_S)
            if done.returncode:
                raise NoKernelError(f"{shlex.join(command)} failed: {done.stderr.strip()[:500]}")
            made.replace(target)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoKernelError(f"{found} could not compile to {target.parent}: {error}") from error
