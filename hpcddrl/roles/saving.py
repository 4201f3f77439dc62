"""Writing what others play: each owner's network, with its optimizer, at the end of each leg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from hpcddrl.comm.placement import slices
from hpcddrl.config import Config
from hpcddrl.logs import checkpoint
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.device import on_host
from hpcddrl.networks.flat import size
from hpcddrl.settings import dump
from hpcddrl.types import Weights


class Saver:
    """Saves a network (or a shard of it) and its optimizer; ranks that hold no optimizer of their own save nothing.

    Args:
        folder: of this owner's checkpoints; None on ranks that don't save.
        network: whose parameters are views of the weights.
        shard: the part that this rank owns: its number, of how many.
        config: of the run.
        timing: of this rank.
    """

    def __init__(
        self, folder: Path | None, network: torch.nn.Module, shard: tuple[int, int], config: Config, timing: Timing
    ) -> None:
        self._folder, self._network, self._shard, self._timing = folder, network, shard, timing
        number, shards = shard
        self._owned = slices(size(network), shards)[number]
        self._config, self._logging = json.dumps(dump(config)), config.logging

    def save(self, weights: Weights, optimizer_state: dict[str, Any] | None) -> None:
        """Save now."""
        if self._folder is None or optimizer_state is None:
            return
        with self._timing(Phase.CHECKPOINT):
            network, cut = checkpoint.part(on_host(self._network.state_dict()), self._owned)
            state = checkpoint.Checkpoint(
                weights.version, int(weights.frames), network, on_host(optimizer_state), self._config, self._shard, cut
            )
            checkpoint.write(self._folder, state, self._logging.keep_checkpoints)
