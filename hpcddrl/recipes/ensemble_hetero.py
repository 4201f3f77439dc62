"""The group ensemble of groups that are not alike."""

from __future__ import annotations

from dataclasses import replace

from hpcddrl.config import Config, Ensemble, SoftmaxMixing
from hpcddrl.recipes.group_ensemble import group_ensemble


def ensemble_hetero() -> Config:
    """`group_ensemble` whose groups differ in algorithm, network and learning rate, four kinds in turn.

    Source: the research proposal's third part, which wants groups good and different, by other algorithms and networks,
    and shows none. What the kinds are is ours:

        0  short rollouts without correction, as in A3C
        1  V-trace over T = 20, as in IMPALA
        2  a clipped surrogate with Adam, as in PPO
        3  V-trace with a network of half the width and more entropy

    c is of values normalised for each group, since their critics differ, and a guard lowers β where the groups become
    alike (below 0.001 nat). On 8 ranks each kind has one group of learner + actor; fewer groups have the first kinds.
    ``--set group_settings.3.network.torso=nature`` changes one, ``--set 'group_settings=[…]'`` all. A group of
    Q-learning enters by ``algorithm=q_learning`` and ``experience=replay``.
    """
    return replace(
        group_ensemble(),
        recipe="ensemble_hetero",
        coupling=Ensemble(mixing=SoftmaxMixing(normalise=True), min_divergence=1e-3),
        group_settings=(
            ("algorithm.unroll_length=5", "algorithm.correction=none"),
            ("algorithm.unroll_length=20",),
            (
                "algorithm.unroll_length=32",
                "algorithm.correction=none",
                "algorithm.trace_decay=0.95",
                "algorithm.surrogate=clipped",
                "algorithm.normalise_advantages=true",
                "optimization.method=adam",
                "optimization.learning_rate=5e-4",
            ),
            ("network.width=0.5", "algorithm.entropy_coefficient=0.02"),
        ),
    )
