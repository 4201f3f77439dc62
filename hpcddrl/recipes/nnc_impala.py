"""IMPALA whose actors hold a small student of the network that the learner trains."""

from __future__ import annotations

from dataclasses import replace

from hpcddrl.config import Config
from hpcddrl.config.compression import Student
from hpcddrl.recipes.impala import impala
from hpcddrl.recipes.nnc_ga3c import LITTLE_AND_OFTEN


def nnc_impala() -> Config:
    """`impala` that publishes a student in its weights' place.

    Source: the research proposal's first part, in a framework where actors have weights of their own.

        actor --rollout [T, B] + log μ of the student--> learner --the student, when asked for--> actor
                                                         learner: the student learns the teacher's answers

    Losses, sizes and times are `nnc_ga3c`'s; what is not from the proposal is said there. The correction is IMPALA's
    V-trace, which takes the student for what it is: another policy that acted. Only the student travels, so weights
    take a quarter to a half of the bytes, and ``compression.format=int8`` a quarter of that. Without actors, on one
    rank, the learner steps environments with the student itself.
    """
    return replace(impala(), recipe="nnc_impala", compression=Student(distillation=LITTLE_AND_OFTEN))
