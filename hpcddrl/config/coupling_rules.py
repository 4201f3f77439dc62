"""What no run can be, as to what groups tell each other; see `rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcddrl.config.algorithm import QLearning
from hpcddrl.config.coupling import Averaging, CyclicBeta, Ensemble, Population
from hpcddrl.config.fields import Rules

if TYPE_CHECKING:
    from hpcddrl.config.run import Config


def coupling_rules(config: Config) -> Rules:
    """Yield the rules about what groups tell each other, and how it counts."""
    coupling, update, groups = config.coupling, config.update.kind, config.topology.groups
    if isinstance(coupling, Ensemble):
        yield from _ensemble(coupling)
    yield from _returns(config)
    if isinstance(coupling, Ensemble | Averaging | Population):
        yield (
            coupling.topology != "all_to_all" and groups == 2,
            f"coupling.topology = {coupling.topology!r} with topology.groups = 2: of two, all hear all; start three "
            "groups or more, or set coupling.topology=all_to_all",
        )
    yield (
        coupling.kind in ("averaging", "population") and update == "server",
        f"coupling.kind = {coupling.kind!r} with update.kind = 'server': groups have the server's weights already; set "
        "coupling=uncoupled",
    )
    yield (
        coupling.kind == "teacher" and isinstance(config.algorithm, QLearning),
        "coupling.kind = 'teacher' with algorithm.kind = 'q_learning': only a policy can be taught; set "
        "coupling=uncoupled or algorithm=actor_critic",
    )


def _ensemble(ensemble: Ensemble) -> Rules:
    every, schedule = ensemble.exchange_every, ensemble.schedule
    yield (
        ensemble.max_age is not None and ensemble.max_age <= every,
        f"coupling.max_age = {ensemble.max_age}: weights that come every coupling.exchange_every = {every} updates "
        "would all be dropped; set more",
    )
    yield (
        isinstance(schedule, CyclicBeta) and schedule.updates >= every,
        f"coupling.schedule.updates = {getattr(schedule, 'updates', None)}: with coupling.exchange_every = {every} no "
        "updates are left to learn alone; set less, or coupling.schedule=constant",
    )


def _returns(config: Config) -> Rules:
    """Yield the rules about what a learner can see of its group's returns, and whether groups can compare them."""
    coupling, reward = config.coupling, config.env.reward
    compares, asks, instead = "", "", ""
    if isinstance(coupling, Population):
        compares = asks = "coupling.kind = 'population'"
        instead = "coupling=ensemble"
    elif isinstance(coupling, Ensemble) and coupling.mixing.kind == "best_group":
        compares = asks = "coupling.mixing.kind = 'best_group'"
        instead = "coupling.mixing=softmax"
    elif isinstance(coupling, Ensemble) and coupling.schedule.kind == "plateau":
        asks, instead = "coupling.schedule.kind = 'plateau'", "coupling.schedule=warmup"
    atari = all(name.startswith("ALE/") for name in config.env.ids)
    yield (
        compares != "" and (reward == "normalise" or (reward == "auto" and not atari)),
        f"{compares} with env.reward = {reward!r}: each rank would scale its own, and returns could not be compared; "
        "set env.reward=raw or env.reward=clip",
    )
    yield (
        asks != "" and isinstance(config.algorithm, QLearning),
        f"{asks} with algorithm.kind = 'q_learning': what a replay draws does not tell the returns of now; set "
        f"{instead}",
    )
