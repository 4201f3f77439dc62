"""Choosing how a network computes, by timing it at the batch sizes in use."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.held import held
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import EnvSpec

GAIN = 1.1  # a format must beat plain fp32 by this factor to be chosen


def choose_precision(
    network: AnyNetwork, spec: EnvSpec, wanted: str, batch: int, trains: bool, seconds: float = 0.15
) -> tuple[Precision, dict[str, float]]:
    """Return the fastest precision for ``batch`` observations, and the samples per second of each that was timed.

    ``wanted`` is fp32, bf16 or auto; channels-last is tried with either, for images. Each candidate is timed for about
    ``seconds``: forward and backward if it ``trains``, else forward, held in its format. On vectors there is nothing
    to gain: fp32.
    """
    if not spec.is_image:
        return Precision("bf16" if wanted == "bf16" else "fp32"), {}
    names = ("fp32", "bf16") if wanted == "auto" else (wanted,)
    candidates = [Precision(name, last) for name in names for last in (False, True)]  # type: ignore[arg-type]
    observation = torch.randint(0, 255, (batch, *spec.observation_shape), dtype=torch.uint8)
    once = _training if trains else _answering
    rates = {c: rate_of(once(network, c, observation), batch, seconds) for c in candidates}
    best = max(rates, key=lambda c: rates[c])
    if rates[best] < GAIN * rates[candidates[0]]:
        best = candidates[0]
    return best, {f"{c.name} {'NHWC' if c.channels_last else 'NCHW'}": rate for c, rate in rates.items()}


def _training(network: AnyNetwork, precision: Precision, observation: torch.Tensor) -> Callable[[], None]:
    def once() -> None:
        network.precision = precision
        output = network(observation)
        (output.policy.square().mean() + output.value.square().mean()).backward()

    return once


def _answering(network: AnyNetwork, precision: Precision, observation: torch.Tensor) -> Callable[[], None]:
    answers = held(network, precision)

    def once() -> None:
        with torch.no_grad():
            answers(observation)

    return once


def rate_of(once: Callable[[], object], samples: int, seconds: float) -> float:
    """Return the samples per second of a function that handles so many in a call, timed for about ``seconds``."""
    once()  # the first call makes its buffers
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or calls < 2:
        once()
        calls += 1
    return samples * calls / elapsed
