"""What each role computes on."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from hpcddrl.config.fields import STRICT

Choice = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Device:
    """What learners compute on; actors, servers and replays compute on cores.

    The ranks of a node that compute on its GPUs take them in turn, by their order on the node.
    """

    learner: Choice = "auto"
    """auto: a GPU where the node has one and the network is convolutional, else cores."""
    inference: Choice = "auto"
    """Where a learner chooses actions, for its actors or in environments of its own. auto: where it learns, but cores
    if what acts is compressed."""
