"""How a run's networks are scored after it: all groups', or the one that a server holds."""

from __future__ import annotations

from benchmarks.arms import tables
from benchmarks.arms.study import Play, Scoring

SERVER = "server-0000"

GROUPS = Scoring(
    plays=(Play("export", ("export", "--what", "distilled")),),
    table=tables.scores,
)
"""The groups, their ensemble, and one network that learns from it, greedily."""

ONE_MODEL = Scoring(
    text="""\
Scores are of the server's network,
which `python -m hpcddrl evaluate` plays after the run: greedily, with the likeliest action, and sampled, with drawn
ones.""",
    plays=(  # what the last finds stays in the run's evaluation.json
        Play("sampled", ("evaluate", "--sampled"), SERVER),
        Play("greedy", ("evaluate",), SERVER),
    ),
    table=tables.single_scores,
)
"""The newest checkpoint of a server, which is the one model of its workers."""
