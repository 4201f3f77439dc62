"""What helps A3C in which stage: each helper alone, all, and none, over seeds.

    make bench-staged                                        # hours; what has a row is not run again
    make bench-staged ARGS="--games Catch --seeds 1,2"
    make bench-staged ARGS=--missing                         # what there is no row for

The arms are the recipe `staged` with some of its helpers off, all with the same detector and correction. Pong is played
without helpers and with the autoencoder, the proposal's own comparison.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.arms.harness import main as run
from benchmarks.arms.scoring import ONE_MODEL
from benchmarks.arms.study import Arm, Game, Study

TEXT = """\
A server and three workers. `none`: A3C with V-trace that is told its stages and gets no help; `autoencoder`: the torso
also learns to make frames again until the early stage is over; `replay`: workers learn from their rollouts again in the
middle stage; `central replay`: from those of all workers, which the server keeps; `negative reward`: a quarter of what
they draw is from rollouts with negative rewards; `ensemble`: in the late stage workers go on apart, learn from each
other's mixture, and become one model again; `all`: autoencoder, replay and ensemble. The autoencoder's own cost is the
phase pretext; the replay's is in batch (drawing) and gradient (its batches are trained on like fresh ones); the
ensemble's is in peers (the others' networks, and the one model's learning) and exchange. The return is that of the last
games of all workers, who are apart in the late stage, and whose entropy bonuses then differ. The scores are of what
comes of it: the server's network, in the late stage the one model that learns from the workers' mixture, in full games
after the run."""
NO_EARLY, NO_MIDDLE, NO_LATE = "stages.early=none", "stages.middle=none", "stages.late=none"


def arm(name: str, *settings: str) -> Arm:
    """Return the recipe with these settings."""
    return Arm(name, "staged", 4, settings, against="" if name == "none" else "none")


STUDY = Study(
    name="staged",
    title="Help by stages",
    text=TEXT,
    arms=(
        arm("none", NO_EARLY, NO_MIDDLE, NO_LATE),
        arm("autoencoder", NO_MIDDLE, NO_LATE),
        arm("replay", NO_EARLY, NO_LATE),
        arm("central replay", NO_EARLY, NO_LATE, "stages.middle.held_by=server"),
        arm("negative reward", NO_EARLY, NO_LATE, "stages.middle.negative_share=0.25"),
        arm("ensemble", NO_EARLY, NO_MIDDLE),
        arm("all"),
    ),
    games=(
        Game(
            "Catch",
            "hpcddrl/Catch-v0",
            120,
            (-0.5, 0.0, 0.5),
            (-0.85, 1.0),
            settings=(
                "network.torso=nips",  # convolutions
                "env.options.pixels=2",  # a cell's, with which they see the whole image
                "env.frame_stack=2",  # to tell what moves
                "algorithm.unroll_length=13",  # the steps of a game
                "algorithm.entropy_coefficient=0.03",
                "optimization.learning_rate=2e-3",  # so that the late stage comes within the time
            ),
        ),
        Game(
            "MinAtar Breakout",  # images of 10 pixels have no convolutions to learn
            "minatar.gym:BaseEnv",
            60,
            (2.0, 4.0),
            (0.5, 10.0),
            settings=("env.options.game=breakout", "env.frame_stack=1", "network.torso=auto"),
            arms=("none", "replay", "central replay", "ensemble"),  # no reward of it is negative
            needs="minatar",
        ),
        Game(
            "Pong",
            "ALE/Pong-v5",
            900,
            (-20.0, -18.0, 0.0),
            (-21.0, 21.0),
            seeds=(1, 2),
            arms=("none", "autoencoder"),
        ),
    ),
    helpers=("pretext", "batch", "gradient", "peers", "exchange"),
    scoring=ONE_MODEL,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write it down."""
    return run(STUDY, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
