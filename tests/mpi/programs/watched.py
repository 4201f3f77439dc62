"""Run a job and note what every learner's weights are after each update: watched.py OUT ZERO_RANK OPTION...

OPTIONs are those of ``hpcddrl run`` after the recipe; the gradient of ZERO_RANK (-1: none) is set to zero before it is
reduced. Each learner leaves OUT/learner-<rank>.json, a list of [version, digest of the weights].
"""

import hashlib
import json
import sys
from pathlib import Path

from mpi4py import MPI

import hpcddrl.runtime.build as build
from hpcddrl.commands.cli import main
from hpcddrl.roles.reducing import AllReduceUpdate


class Watched(AllReduceUpdate):
    """The update itself, and a note of what it left."""

    notes: list[tuple[int, str]] = []  # noqa: RUF012

    def __call__(self, weights, gradient, *told):
        if not self.notes:
            self.notes.append((0, digest(weights)))
        if MPI.COMM_WORLD.rank == int(zero_rank):
            gradient.zero_()
        after = super().__call__(weights, gradient, *told)
        self.notes.append((after.version, digest(after)))
        return after


def digest(weights):
    return hashlib.sha256(weights.flat.numpy().tobytes()).hexdigest()


out, zero_rank, *options = sys.argv[1:]
build.AllReduceUpdate = Watched
sys.argv[1:] = ["run", *options]
try:
    main()
finally:
    if Watched.notes:
        Path(out, f"learner-{MPI.COMM_WORLD.rank}.json").write_text(json.dumps(Watched.notes))
