"""Whether a folder is one that ranks can write their files into."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py

from hpcddrl.logs.rank_log import RankLog
from hpcddrl.logs.schema import SCHEMA


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    whole = folder.absolute()
    return next(path for path in (whole, *whole.parents) if path.is_dir())


def complaint(folder: Path) -> str:
    """Say why a rank's file cannot be written, replaced and read in a folder that is there; "" if it can.

    HDF5 locks files that it opens, which some shared file systems do not allow.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".hpcddrl-doctor-") as here:
            log = RankLog(Path(here) / "rank-0000.h5", {"schema": SCHEMA})
            log.append("progress", {"frames": 1.0})
            with h5py.File(log.path, "r"):  # somebody looks, with a lock, while it is replaced
                log.flush()
            with h5py.File(log.path, "r") as file:
                return "" if file["progress/frames"][0] == 1.0 else "what was written is not what is read"
    except OSError as error:
        return f"{error}".splitlines()[0]
