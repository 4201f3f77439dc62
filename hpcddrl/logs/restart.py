"""Checkpoints of a whole job: a folder each, one file a node, and a mark when everything is there.

All ranks write at the same time, each at its own place in its node's file, into a folder with a temporary name. When
every file is synced, the folder takes its name and gets its ``DONE``, which says where each rank's part stands and its
checksum. A folder without it, or with one that does not agree with the files, is no checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcddrl.logs.packing import Packed, unpack
from hpcddrl.types import Array, State

SCHEMA = 1
CHUNK = 1 << 26  # bytes that are written or checked at once
DONE = "DONE"


class Section(NamedTuple):
    """Where a rank's part stands."""

    file: str
    offset: int
    nbytes: int
    crc32: int


class Seat(NamedTuple):
    """What a rank was: its role, its group (none for a server) and its number among the group's of that role."""

    role: str
    group: int | None
    number: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``DONE`` says of a checkpoint."""

    number: int
    recipe: str
    config: dict[str, Any]
    seats: tuple[Seat, ...]  # by rank
    sections: tuple[Section, ...]  # by rank
    versions: tuple[int, ...]  # of the weights that each rank holds, 0 if it holds none
    frames: tuple[float, ...]  # behind them
    account: dict[str, float]  # what the job did since its start, over all segments
    schema: int = SCHEMA


class NewerSchemaError(ValueError):
    """A checkpoint of a later program: not damaged, but not readable here."""


class RestartFolder:
    """The checkpoints of a run.

    Args:
        path: of the folder with all of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def numbers(self) -> list[int]:
        """Return the numbers of all that claim to be whole, the newest first."""
        return sorted((int(p.parent.name) for p in self.path.glob(f"[0-9]*/{DONE}")), reverse=True)

    def name(self, number: int) -> Path:
        """Return where a checkpoint stands."""
        return self.path / f"{number:06d}"

    def begin(self, number: int) -> None:
        """Make room for a checkpoint; what was left there by one that was cut short is thrown away.

        Raises:
            OSError: it cannot be made.
        """
        shutil.rmtree(self._new(number), ignore_errors=True)
        self._new(number).mkdir(parents=True)

    def write(self, number: int, file: str, offset: int, packed: Packed) -> int:
        """Write a rank's part and sync it; return its checksum.

        Raises:
            OSError: it cannot be written.
        """
        checksum = 0
        descriptor = os.open(self._new(number) / file, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            for piece in packed.pieces():
                for start in range(0, len(piece), CHUNK):
                    part = piece[start : start + CHUNK]
                    checksum = zlib.crc32(part, checksum)
                    while len(part):
                        written = os.pwrite(descriptor, part, offset)
                        part, offset = part[written:], offset + written
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return checksum

    def finish(self, manifest: Manifest, keep: int) -> None:
        """Give a written checkpoint its name and its mark; drop all but the newest ``keep``.

        Raises:
            OSError: it cannot be written.
        """
        final = self.name(manifest.number)
        shutil.rmtree(final, ignore_errors=True)  # of a run that went on from before it
        _sync(self._new(manifest.number))
        os.replace(self._new(manifest.number), final)
        body = asdict(manifest)
        with open(final / f"{DONE}.new", "w") as file:
            json.dump({"crc32": _checksum(body), "manifest": body}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(final / f"{DONE}.new", final / DONE)
        _sync(final)
        _sync(self.path)
        for old in [n for n in self.numbers if n <= manifest.number][keep:]:
            shutil.rmtree(self.name(old), ignore_errors=True)

    def discard(self, number: int) -> None:
        """Throw away what was written of a checkpoint that cannot be finished."""
        shutil.rmtree(self._new(number), ignore_errors=True)

    def manifest(self, number: int) -> Manifest:
        """Read a checkpoint's mark and look whether its files are as long as it says.

        Raises:
            NewerSchemaError: a later program wrote it.
            ValueError: it is damaged.
        """
        path = self.name(number) / DONE
        try:
            data = json.loads(path.read_text())
            body = data["manifest"]
            if body["schema"] > SCHEMA:
                raise NewerSchemaError(
                    f"{self.name(number)}: schema {body['schema']} of checkpoints, and this program reads {SCHEMA}; "
                    "update hpcddrl"
                )
            if data["crc32"] != _checksum(body):
                raise ValueError(f"{DONE} does not agree with its checksum")
            found = _manifest(body)
            for section in found.sections:
                size = (self.name(number) / section.file).stat().st_size
                if size < section.offset + section.nbytes:
                    raise ValueError(f"{section.file} is cut off at {size:,} bytes")
        except NewerSchemaError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.name(number)}: {error}") from error
        return found

    def read(self, number: int, section: Section) -> State:
        """Read a rank's part; its arrays are loaded as they are looked at, and may be changed.

        Raises:
            ValueError: it is damaged.
        """
        path = self.name(number) / section.file
        try:
            data: Array = np.memmap(path, np.uint8, "c", section.offset, (section.nbytes,))
            checksum = 0
            for start in range(0, section.nbytes, CHUNK):
                checksum = zlib.crc32(data[start : start + CHUNK].data, checksum)
            if checksum != section.crc32:
                raise ValueError("the bytes do not agree with their checksum")
            return unpack(data)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    def _new(self, number: int) -> Path:
        return self.path / f"{number:06d}.new"


def _manifest(body: dict[str, Any]) -> Manifest:
    lists = {
        "seats": tuple(Seat(*seat) for seat in body["seats"]),
        "sections": tuple(Section(*section) for section in body["sections"]),
        "versions": tuple(body["versions"]),
        "frames": tuple(body["frames"]),
    }
    return Manifest(**(body | lists))


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
