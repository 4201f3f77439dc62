"""Choosing how a network computes, by timing it at the batch sizes in use."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

from hpcddrl.networks.device import finished
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.held import held
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import EnvSpec

Key = TypeVar("Key", bound=Hashable)
GAIN = 1.1  # a format must beat plain fp32 by this factor to be chosen
TURNS = 3
MOST = 128  # observations that a format is timed on: with more, a sample takes about as long
HOPELESS = 5.0  # times another's shortest call: from then on a format is not called again
LONG_S = (
    1.0  # a first call that takes longer is judged as it is; shorter ones are longer than the next for their buffers
)


def choose_precision(
    network: AnyNetwork, spec: EnvSpec, wanted: str, batch: int, trains: bool, seconds: float = 0.15
) -> tuple[Precision, dict[str, float]]:
    """Return the fastest precision for ``batch`` observations, and the samples per second of each that was timed.

    ``wanted`` is fp32, bf16 or auto; channels-last is tried with either, for images. Each candidate is timed for about
    ``seconds`` on as many observations, but for 128 at most, forward and backward if it ``trains``, else forward, held
    in its format; its shortest call counts. On vectors there is nothing to gain: fp32.
    """
    if not spec.is_image:
        return Precision("bf16" if wanted == "bf16" else "fp32"), {}
    names = ("fp32", "bf16") if wanted == "auto" else (wanted,)
    candidates = [Precision(name, last) for name in names for last in (False, True)]  # type: ignore[arg-type]
    device, batch = next(network.parameters()).device, min(batch, MOST)
    observation = torch.randint(0, 255, (batch, *spec.observation_shape), dtype=torch.uint8, device=device)
    once = _training if trains else _answering
    shortest = shortest_calls({c: finished(once(network, c, observation), device) for c in candidates}, seconds)
    rates = {c: batch / shortest[c] for c in candidates}
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


def shortest_calls(
    calls: Mapping[Key, Callable[[], object]], seconds: float, prepare: Callable[[Key], object] | None = None
) -> dict[Key, float]:
    """Return the seconds of each one's shortest call among those of about ``seconds``.

    They take turns, and the shortest is what a call takes undisturbed: other ranks start on the same cores meanwhile,
    and a mean over 0.1 s was seen ten times too long. One that takes many times as long as another gets no more turns:
    a processor without bf16 was seen to train a resnet in it ten times slower, for two minutes before the run began.
    ``prepare`` is called before a turn, outside its time.
    """
    shortest = dict.fromkeys(calls, math.inf)
    for turn in range(TURNS):
        for key, once in calls.items():
            enough = HOPELESS * min(shortest.values())
            if turn > 0 and shortest[key] > enough:
                continue
            if prepare is not None:
                prepare(key)
            if turn == 0:
                start = time.perf_counter()
                once()  # the first call makes its buffers
                first = time.perf_counter() - start
                if first > max(enough, LONG_S):
                    shortest[key] = first
                    continue
            until = time.perf_counter() + seconds / TURNS
            now = -math.inf
            while now < until:
                start = time.perf_counter()
                once()
                now = time.perf_counter()
                shortest[key] = min(shortest[key], now - start)
    return shortest


def rate_of(once: Callable[[], object], samples: int, seconds: float) -> float:
    """Return the samples per second of a function that handles so many in a call, timed for about ``seconds``."""
    once()  # the first call makes its buffers
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or calls < 2:
        once()
        calls += 1
    return samples * calls / elapsed
