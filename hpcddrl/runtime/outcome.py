"""Choosing what to export from a run, by playing it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

from torch import nn

from hpcddrl.config import Config
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.flat import size
from hpcddrl.rl.policies import Policy, policy_for
from hpcddrl.runtime.distillation import distil, moments_of
from hpcddrl.runtime.evaluation import Score, returns_of
from hpcddrl.runtime.export import Outputs, ensemble_of, groups_of, spec_of, write, write_onnx
from hpcddrl.types import EnvSpec

MOMENT_BATCHES = 4  # of each group's states, for values that are normalised
FAR = 1_000_000  # between the seeds of games that score and games that are learned from


class Line(NamedTuple):
    """What a network reached, and its size."""

    name: str
    mean: float
    low: float
    high: float
    weights: int


class Outcome(NamedTuple):
    """What is exported, and what else there was."""

    config: Config
    spec: EnvSpec
    network: nn.Module
    chosen: Line
    others: tuple[Line, ...]


def outcome(run: RunDirectory, what: str, episodes: int, updates: int, seed: int) -> Outcome:
    """Return what a run has come to: the ``best`` of its groups, their ``ensemble``, or one ``distilled`` from that.

    Everything is scored by the same greedy games.

    Raises:
        ValueError: no run, no checkpoint, or no ensemble of one network.
    """
    config = run.config()
    spec = spec_of(config)
    policy, groups = policy_for(spec.action), groups_of(run, spec)

    def line(name: str, network: nn.Module) -> Line:
        return _line(name, network, policy, config, episodes, seed)

    alone = tuple(line(f"{group.name} version {group.version}", group.network) for group in groups)
    best = max(range(len(groups)), key=lambda i: alone[i].mean)
    if what == "best":
        return Outcome(config, spec, groups[best].network, alone[best], alone)
    moments = moments_of(config, groups, policy, MOMENT_BATCHES, seed + FAR)
    ensemble = ensemble_of(config, groups, spec, moments, [line.mean for line in alone])
    together = line("ensemble", ensemble)
    if what == "ensemble":
        return Outcome(config, spec, ensemble, together, alone)
    student = copy.deepcopy(groups[best].network)
    distil(ensemble, student, policy, config, updates, seed + 2 * FAR)
    return Outcome(config, spec, student, line("distilled", student), (*alone, together))


def write_outcome(found: Outcome, what: str, path: Path, onnx: bool) -> list[Path]:
    """Write what is exported; return the files.

    Raises:
        ValueError: ONNX is wanted and cannot be written here.
    """
    files = [path]
    write(found.network, found.spec, found.config, what, path)
    if onnx:
        files.append(path.with_suffix(".onnx"))
        write_onnx(found.network, found.spec, files[-1])
    return files


def _line(name: str, network: nn.Module, policy: Policy, config: Config, episodes: int, seed: int) -> Line:
    returns = returns_of(config, Outputs(network), policy, episodes, greedy=True, seed=seed)
    score = Score(0, 0, returns)
    low, high = score.interval
    return Line(name, score.mean, low, high, size(network))
