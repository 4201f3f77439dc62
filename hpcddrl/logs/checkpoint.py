"""Checkpoints: a network (or a shard of it), its optimizer and its counters as one file by version, never torn."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Checkpoint(NamedTuple):
    """What one owner of an optimizer needs to go on, and what anyone needs to play."""

    version: int
    frames: int
    network: dict[str, torch.Tensor]  # the network's state_dict; of a tensor that is cut, this shard's part, flattened
    optimizer: dict[str, Any]  # the optimizer's state_dict
    config: str  # the run's configuration as JSON
    shard: tuple[int, int] = (0, 1)  # its number, of how many
    cut: tuple[tuple[str, tuple[int, ...]], ...] = ()  # the tensors of which it has only a part, and their shapes


def part(
    network: Mapping[str, torch.Tensor], owned: slice
) -> tuple[dict[str, torch.Tensor], tuple[tuple[str, tuple[int, ...]], ...]]:
    """Return ``network`` and ``cut`` of a checkpoint: copies of what of a state_dict is in a slice of its values."""
    parts: dict[str, torch.Tensor] = {}
    cut: list[tuple[str, tuple[int, ...]]] = []
    offset = 0
    for name, tensor in network.items():
        start, stop = max(owned.start - offset, 0), min(owned.stop - offset, tensor.numel())
        if start < stop:
            piece = tensor.detach().reshape(-1)[start:stop].clone()
            whole = len(piece) == tensor.numel()
            parts[name] = piece.view(tensor.shape) if whole else piece
            cut += [] if whole else [(name, tuple(tensor.shape))]
        offset += tensor.numel()
    return parts, tuple(cut)


def vector(state: Checkpoint) -> torch.Tensor:
    """Return the values [P] of a checkpoint's parameters, in order: its slice of the network's flat vector."""
    return torch.cat([tensor.reshape(-1) for tensor in state.network.values()])


def write(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint as ``version-<n>.pt`` under a temporary name, sync, rename, and drop all but ``keep``.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"version-{checkpoint.version:08d}.pt"
    new = path.with_suffix(".new")
    data = io.BytesIO()  # torch, writing to a full disk, raises an error that does not say so
    torch.save(checkpoint._asdict(), data)
    try:
        with open(new, "wb") as file:
            file.write(data.getbuffer())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        new.unlink(missing_ok=True)
        raise
    os.replace(new, path)
    for old in versions(folder)[:-keep]:
        old.unlink()
    return path


def versions(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(folder.glob("version-*.pt"))


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        ValueError: the file is torn or is no checkpoint.
    """
    try:
        return Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ValueError(f"{path}: not a readable checkpoint: {error}") from error


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint in a folder, or None if it has none."""
    found = versions(folder)
    return read(found[-1]) if found else None


def newest_of_all(folder: Path) -> dict[str, Checkpoint]:
    """Return the newest checkpoint of every owner in a run's folder of checkpoints, with its whole network.

    An owner is a group, or all of a server's shards, which are joined under the first one's name: version, frames and
    optimizer are the first's. Each shard saves when it likes, so that parts may be some updates apart; they were while
    learning too.

    Raises:
        ValueError: a shard's checkpoint is missing, or a file is not readable.
    """
    owners: dict[str, dict[str, Checkpoint]] = defaultdict(dict)
    for own in sorted(p for p in folder.glob("*-*") if p.is_dir()):
        state = newest(own)
        if state is not None:
            kind, _, number = own.name.partition("-")
            owners[_name(kind, int(number) - state.shard[0])][own.name] = state
    for owner, found in owners.items():
        kind, _, first = owner.partition("-")
        count = next(iter(found.values())).shard[1]
        missing = sorted({_name(kind, int(first) + k) for k in range(count)} - set(found))
        if missing:
            raise ValueError(f"{folder}: no checkpoint of {', '.join(missing)}, of the {count} that share the weights")
    return {owner: _join(list(found.values())) for owner, found in owners.items()}


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number:04d}"


def _join(parts: list[Checkpoint]) -> Checkpoint:
    shapes = dict(pair for state in parts for pair in state.cut)
    pieces: dict[str, list[torch.Tensor]] = defaultdict(list)
    for state in parts:
        for name, piece in state.network.items():
            pieces[name].append(piece)
    network = {
        name: torch.cat(found).view(shapes[name]) if name in shapes else found[0] for name, found in pieces.items()
    }
    return parts[0]._replace(network=network, cut=())
