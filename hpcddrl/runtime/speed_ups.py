"""What compressed networks could do for a run that had none, and what they did in others of the same job."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from hpcddrl.compressors.amdahl import Row, sheet
from hpcddrl.compressors.make import make_compressor, name_of
from hpcddrl.compressors.report import Latency, report
from hpcddrl.config import Config, Uncompressed
from hpcddrl.config.compression import Auto, Candidate, Whole
from hpcddrl.envs.make import probe
from hpcddrl.logs.measured import Measured, read_measured
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.logs.timing import Phase
from hpcddrl.runtime.pace import one_thread
from hpcddrl.runtime.parts import blueprint_of
from hpcddrl.types import EnvSpec

SAME = ("env", "topology", "acting", "network")  # in runs whose pace can be compared
STATES = 32  # observations that ranges are calibrated on, at least


class Gain(NamedTuple):
    """A compressor's row of the sheet, and how its answers were timed."""

    row: Row
    latency: Latency


def gains(run: RunDirectory, compressed: Sequence[RunDirectory], repetitions: int) -> list[Gain]:
    """Return what each compressor should give a run, by the law, and what it gave in others: the usual ones and theirs.

    Predictions take what they took on the ranks that choose actions. Compressors are timed here, on one thread, on as
    many observations as were answered at once; that takes about a second each.

    Args:
        run: without compression.
        compressed: the same job with it; of several with the same compressor the mean counts.
        repetitions: of each timing.

    Raises:
        ValueError: one of them is no run, was too short, or is not what it has to be here.
    """
    config, measured = run.config(), read_measured(run.path)
    if not isinstance(config.compression, Uncompressed) or config.group_settings:
        raise ValueError(
            f"{run.path}: compression.kind = {config.compression.kind!r}; the first run has to be one without, whose "
            "groups are all alike"
        )
    others = [(_candidate_of(other, config), _pace(read_measured(other.path))) for other in compressed]
    candidates = {name_of(candidate): candidate for candidate in (*Auto().candidates, *(c for c, _ in others))}
    predicting = [m for m in measured if m.events[Phase.ACT]]
    together = sum(m.counts["predictions"] for m in predicting) / sum(m.events[Phase.ACT] for m in predicting)
    latencies = _latencies(config, probe(config.env), candidates.values(), max(1, round(together)), repetitions)
    found: dict[str, list[float]] = {name_of(candidate): [] for candidate, _ in others}
    for candidate, pace in others:
        found[name_of(candidate)].append(pace / _pace(measured))
    rows = sheet(
        {str(phase): sum(m.seconds[phase] for m in predicting) for phase in Phase},
        {name: latency.best_float_s / latency.seconds for name, latency in latencies.items()},
        {name: float(np.mean(factors)) for name, factors in found.items()},
    )
    return [Gain(row, latencies[row.name]) for row in rows]


def _candidate_of(run: RunDirectory, plain: Config) -> Candidate:
    """Return what a run compressed with, if it is the same job otherwise."""
    config = run.config()
    if isinstance(config.compression, Uncompressed | Auto) or config.group_settings:
        raise ValueError(
            f"{run.path}: compression.kind = {config.compression.kind!r}; name runs with one compressor each, such as "
            "--set compression=student"
        )
    other = [axis for axis in SAME if getattr(config, axis) != getattr(plain, axis)]
    if other:
        raise ValueError(
            f"{run.path}: its {other[0]} is not that of the run without compression; compare runs that differ in no "
            f"other of {', '.join(SAME)}"
        )
    return config.compression


def _pace(measured: Iterable[Measured]) -> float:
    """Return a job's predictions/s."""
    return sum(m.counts["predictions"] / m.wall_s for m in measured)


def _latencies(
    config: Config, spec: EnvSpec, candidates: Iterable[Candidate], together: int, repetitions: int
) -> dict[str, Latency]:
    """Time candidates; what they have learned changes no speed, so they follow a random network for a step."""
    blueprint, generator = blueprint_of(config, spec, config.seed), torch.Generator().manual_seed(0)
    shape = (max(STATES, together), *spec.observation_shape)
    images = spec.frame_dtype == np.uint8
    states = (
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        if images
        else torch.randn(shape, generator=generator)
    )
    with one_thread():
        teacher = blueprint.build()
        compressors = {name_of(c): make_compressor(_once(c), blueprint) for c in candidates}
        for compressor in compressors.values():
            compressor.follow(teacher, states[:STATES])
        return {
            row.name: row.latencies[0]
            for row in report(compressors, blueprint, teacher, states, [together], repetitions, summary=min)
        }


def _once(candidate: Candidate) -> Candidate:
    if isinstance(candidate, Whole):
        return candidate
    return replace(candidate, distillation=replace(candidate.distillation, steps=1, batch_size=8))
