"""Checkpoints: a network, its optimizer and its counters as one file by version, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Checkpoint(NamedTuple):
    """What one owner of an optimizer needs to go on, and what anyone needs to play."""

    version: int
    frames: int
    network: dict[str, torch.Tensor]  # the network's state_dict
    optimizer: dict[str, Any]  # the optimizer's state_dict
    config: str  # the run's configuration as JSON


def write(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint as ``version-<n>.pt`` under a temporary name, sync, rename, and drop all but ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"version-{checkpoint.version:08d}.pt"
    new = path.with_suffix(".new")
    with open(new, "wb") as file:
        torch.save(checkpoint._asdict(), file)
        file.flush()
        os.fsync(file.fileno())
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
        return Checkpoint(**torch.load(path, weights_only=True))
    except Exception as error:
        raise ValueError(f"{path}: not a readable checkpoint: {error}") from error


def newest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint in a folder, or None if it has none."""
    found = versions(folder)
    return read(found[-1]) if found else None
