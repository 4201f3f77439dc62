"""Kickstarting: learn from reward and from a teacher at once, and ever less from the teacher."""

from __future__ import annotations

from dataclasses import replace

from hpcddrl.config import Config, Teacher
from hpcddrl.recipes.impala import impala


def kickstart() -> Config:
    """`impala` with λ KL(teacher ‖ own policy) in the loss, λ falling linearly to 0.

    Paper: Schmitt et al. 2018, arXiv:1803.03835.

        as `impala`; the learner also evaluates the teacher's network on its batch

    The teacher is another run's newest checkpoint of the same environment: ``--set coupling.run=runs/TEACHER``; its
    network may be of any size. As in the paper: the teacher is evaluated on the student's own states, the base is
    V-trace. The paper's term is the cross-entropy, whose gradient is the divergence's. It annealed λ by hand or by
    population-based training; starting at 1 and falling linearly is from memory, unchecked. One teacher, not several.
    """
    return replace(impala(), recipe="kickstart", coupling=Teacher())
