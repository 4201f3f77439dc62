"""Choosing among compressors by trying them where they act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from hpcddrl.compressors.compressed import Blueprint
from hpcddrl.compressors.make import make_compressor, name_of
from hpcddrl.compressors.report import Report, report
from hpcddrl.config.compression import Auto, Candidate
from hpcddrl.networks.make import AnyNetwork

JUDGED = 4  # every n-th state is kept from the students, to judge them by


class Pick(NamedTuple):
    """The candidates that may act, and what was measured of all."""

    chosen: tuple[Candidate, ...]  # the fastest first; none if nothing is to be compressed
    table: tuple[Report, ...]


def pick(
    config: Auto,
    blueprint: Blueprint,
    teacher: AnyNetwork,
    states: Tensor,
    batch: int,
    repetitions: int = 7,
) -> Pick:
    """Return the candidates that answer like the teacher, after they followed once as they are configured to.

    Only a real speed-up counts. A teacher that has learned nothing yet is easily followed: what it will be like later
    is for `Fallback` to watch.

    Args:
        config: the candidates, and the bound on their mean KL.
        blueprint: of the teacher.
        teacher: as it is now.
        states: [N, *observation_shape]; a quarter of them judges, the others are learned from.
        batch: observations answered at once where it will act.
        repetitions: of each timing, whose least counts: other ranks start on the same cores meanwhile.

    Raises:
        ValueError: too few states, or two candidates of the same name.
    """
    names = checked_names(config, len(states))
    judging, learning = states[::JUDGED], states[[i for i in range(len(states)) if i % JUDGED]]
    compressors = {name: make_compressor(c, blueprint) for name, c in zip(names, config.candidates, strict=True)}
    for compressor in compressors.values():
        compressor.follow(teacher, learning)
    table = report(compressors, blueprint, teacher, judging, [batch], repetitions, summary=min)
    return Pick(ranked(config.candidates, table, config.kl_bound), tuple(table))


def checked_names(config: Auto, states: int) -> list[str]:
    """Return the candidates' names, if they can be tried on so many observations.

    Raises:
        ValueError: too few, or two candidates of the same name.
    """
    if states < JUDGED:
        raise ValueError(
            f"compression.kind = 'auto': {states} observations of a first rollout are too few to try candidates on; "
            "set more env.num_envs or a longer algorithm.unroll_length"
        )
    names = [name_of(candidate) for candidate in config.candidates]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"compression.candidates: two are called {twice!r}; leave one")
    return names


def ranked(candidates: Sequence[Candidate], table: Sequence[Report], kl_bound: float) -> tuple[Candidate, ...]:
    """Return those with a real speed-up and a KL within the bound, the fastest first; one latency a report."""
    fitting = [
        (row.latencies[0].seconds, index)
        for index, row in enumerate(table)
        if row.latencies[0].verdict == "real speed" and row.kl <= kl_bound
    ]
    return tuple(candidates[index] for _, index in sorted(fitting))
