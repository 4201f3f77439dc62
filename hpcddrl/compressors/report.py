"""What a compressor saves and what it costs, measured where it acts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hpcddrl.compressors.cast import CastStandIn
from hpcddrl.compressors.compressed import Blueprint, Compressor, StandIn
from hpcddrl.compressors.cost import Cost, cost_of
from hpcddrl.compressors.distillation import answers, likeness_of, mean_kl
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import Output

GAIN = 0.9  # of the best float format's latency, at most, to be called a real speed-up
Verdict = Literal["real speed", "not faster", "simulated"]
Answering = Callable[[Tensor], Output]
Summary = Callable[[Sequence[float]], float]


class Latency(NamedTuple):
    """How long a batch of observations takes, beside the teacher's best float format in the same call."""

    batch: int
    seconds: float
    best_float_s: float
    best_float: str  # its name
    simulated: bool

    @property
    def ratio(self) -> float:
        """Return the latency as a part of the best float format's."""
        return self.seconds / self.best_float_s

    @property
    def verdict(self) -> Verdict:
        """Say what the latency is worth; what computes in the place of something else is simulated at any speed."""
        if self.simulated:
            return "simulated"
        return "real speed" if self.ratio <= GAIN else "not faster"

    def __str__(self) -> str:
        """Say it in a line."""
        took, ratio = f"{1e3 * self.seconds:.3f} ms for {self.batch} observations", f"{self.ratio:.2f}"
        return f"{took}, {ratio} of {self.best_float}'s, {self.verdict}"


class Report(NamedTuple):
    """A compressor beside its teacher."""

    name: str
    cost: Cost
    nbytes: int  # published
    agreement: float  # part of the states where both take the same greedy action
    kl: float  # mean KL(teacher ‖ compressed) in nats; NaN where answers are not finite
    latencies: tuple[Latency, ...]


def report(
    compressors: Mapping[str, Compressor],
    blueprint: Blueprint,
    teacher: AnyNetwork,
    states: Tensor,
    batches: Sequence[int],
    repetitions: int = 7,
    summary: Summary = median,
) -> list[Report]:
    """Compare compressors that have followed a teacher with it, on this core.

    Args:
        compressors: by their names.
        blueprint: of the teacher.
        teacher: what they are compared with.
        states: [N, *observation_shape] that agreement and KL are of.
        batches: sizes to time, with observations from the states.
        repetitions: of each timing; all take turns.
        summary: of a timing's repetitions. The least is what an answer takes where nobody else is at work, which is
            what to ask for while others are.
    """
    likeness, wanted = likeness_of(teacher, blueprint.spec), answers(teacher, states)
    stand_ins = {name: compressor.stand_in for name, compressor in compressors.items()}
    found: dict[str, list[Latency]] = {name: [] for name in compressors}
    for batch in batches:
        observation = _batch(states, batch)
        for name, latency in latencies(stand_ins, blueprint, teacher, observation, repetitions, summary).items():
            found[name].append(latency)
    made = []
    for name, compressor in compressors.items():
        given = answers(compressor.stand_in, states)
        made.append(
            Report(
                name=name,
                cost=cost_of(compressor.shape.network, blueprint.spec),
                nbytes=len(compressor.stand_in.pack()),
                agreement=float(likeness.agrees(wanted, given).float().mean()),
                kl=mean_kl(likeness, wanted, given),
                latencies=tuple(found[name]),
            )
        )
    return made


def float_formats(blueprint: Blueprint, teacher: AnyNetwork, images: bool) -> dict[str, Answering]:
    """Return the teacher in every float format: fp32, bf16 arithmetic and bf16 weights, each channels last or not."""
    found: dict[str, Answering] = {}
    for last in (False, True) if images else (False,):
        layout = " NHWC" if last else ""
        for name in ("fp32", "bf16"):
            network = blueprint.build()
            network.load_state_dict(teacher.state_dict())
            network.precision = Precision(name, last)
            found[f"{name}{layout}"] = network
        cast = CastStandIn(blueprint.build(), torch.bfloat16)
        cast.take(teacher, torch.empty(0))
        cast.lay_out(torch.channels_last if last else torch.contiguous_format)
        found[f"bf16 weights{layout}"] = cast
    return found


def seconds_of(
    answering: Mapping[str, Answering], observation: Tensor, repetitions: int, summary: Summary = median
) -> dict[str, float]:
    """Return the latency of each, summed up; they take turns, so that a busy moment meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in answering}
    with torch.no_grad():
        for answer in answering.values():
            answer(observation)  # the first call makes its buffers
        for _ in range(repetitions):
            for name, answer in answering.items():
                start = time.perf_counter()
                answer(observation)
                seconds[name].append(time.perf_counter() - start)
    return {name: summary(measured) for name, measured in seconds.items()}


def latencies(
    stand_ins: Mapping[str, StandIn],
    blueprint: Blueprint,
    teacher: AnyNetwork,
    observation: Tensor,
    repetitions: int,
    summary: Summary,
) -> dict[str, Latency]:
    """Return how long each takes to answer observations [N, *observation_shape], beside the best float format."""
    for stand_in in stand_ins.values():
        stand_in.tune(observation)
    floats = float_formats(blueprint, teacher, observation.dim() == 4)
    named: dict[str, Answering] = {f"stand-in {name}": stand_in for name, stand_in in stand_ins.items()}
    seconds = seconds_of(floats | named, observation, repetitions, summary)
    best = min(floats, key=lambda name: seconds[name])
    return {
        name: Latency(
            batch=len(observation),
            seconds=seconds[f"stand-in {name}"],
            best_float_s=seconds[best],
            best_float=best,
            simulated=stand_in.simulated,
        )
        for name, stand_in in stand_ins.items()
    }


def _batch(states: Tensor, batch: int) -> Tensor:
    return states[torch.arange(batch) % len(states)]
