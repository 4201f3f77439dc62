"""Ape-X whose actors hold a small student of the Q-network that the learner trains."""

from __future__ import annotations

from dataclasses import replace

from hpcddrl.config import Config
from hpcddrl.config.compression import Student
from hpcddrl.recipes.apex import apex
from hpcddrl.recipes.nnc_ga3c import LITTLE_AND_OFTEN


def nnc_apex() -> Config:
    """`apex` that publishes a student in its weights' place.

    Source: the research proposal's first part, for networks whose outputs are values.

        actors --rollouts, the student's values--> replay --prioritised draws--> learner --the student--> actors
                                                         <----- errors δ ------

    As in the proposal: the student minimises the mean of (Q_S − Q_T)² over states and actions. Q-learning needs no
    correction for who acted. Different from `nnc_ga3c`: the student learns on observations drawn from the replay, which
    are older than those that it visited last; first priorities are made of the student's values, as the actors have no
    others. Sizes and times are `nnc_ga3c`'s, ours.
    """
    return replace(apex(), recipe="nnc_apex", compression=Student(distillation=LITTLE_AND_OFTEN))
