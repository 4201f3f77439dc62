"""Legs: what a job does between two checkpoints, and the checkpoint of all ranks at the end of each.

A leg ends as a run does: who owns weights says its last, all channels are drained, and so every transition is accounted
for and nothing is on its way. Then all ranks write their parts, and go on with the channels open again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hpcddrl.comm.channel import Comm
from hpcddrl.comm.wait import wait_until
from hpcddrl.logs.packing import Packed, pack
from hpcddrl.logs.restart import Manifest, RestartFolder, Section
from hpcddrl.logs.timing import Phase
from hpcddrl.roles.control import Control
from hpcddrl.roles.counters import COUNTERS, account
from hpcddrl.types import Array, Stateful

_REPORT = np.dtype(
    [
        ("version", "i8"),
        ("frames", "f8"),
        ("nbytes", "i8"),
        ("crc32", "u4"),
        ("ends", "u1"),  # rank 0 has ended the run
        ("finished", "u1"),
        ("failed", "S160"),
        ("counters", "f8", (len(COUNTERS),)),
    ]
)


class Files(NamedTuple):
    """Where the checkpoints of a run go."""

    folder: RestartFolder
    nodes: tuple[int, ...]  # the number of each rank's node; each has a file of its own
    keep: int


class Start(NamedTuple):
    """Where a segment goes on from."""

    number: int = 0  # of the checkpoint
    version: int = 0  # of this rank's weights, or of those that it acts with
    account: Mapping[str, float] = {}  # what the job had done since its start


class Legs:
    """One rank's part in the checkpoints of the job.

    Args:
        world: all ranks.
        control: of this rank.
        files: to be written.
        draft: what every checkpoint's mark says alike.
        parts: of this rank, by name, to be remembered.
        start: where this segment goes on from.
        every: updates of a leg, in exact runs; else None, and rank 0's clock says when one ends.
        enough: says whether so many frames end an exact run; None on ranks that own no weights.
        restart: called with the number of each leg but the first, when it begins in an exact run.
        say: called with what there is to say, on rank 0.
    """

    def __init__(
        self,
        world: Comm,
        control: Control,
        files: Files,
        draft: Manifest,
        parts: Mapping[str, Stateful],
        start: Start,
        every: int | None,
        enough: Callable[[float], bool] | None,
        restart: Sequence[Callable[[int], None]],
        say: Callable[[str], None],
    ) -> None:
        self._world, self._control, self._files, self._draft, self._parts = world, control, files, draft, parts
        self._number, self._version, self._before = start.number, start.version, dict(start.account)
        self._every, self._enough, self._restart, self._say = every, enough, restart, say
        self._versions = np.full(world.size, start.version, np.int64)
        self._good: int | None = start.number or None
        control.begin_leg(self._number)

    def finished(self, frames: float) -> bool:
        """Say whether so many frames, of those who share the weights, are all that is to be done."""
        return self._enough is not None and self._enough(frames)

    def over(self, version: int, frames: float) -> bool:
        """Say whether the leg ends with the weights of this version, which have so many frames behind them."""
        return self._control.ending or self.finished(frames) or not self.covers(version - self._version)

    def covers(self, update: int) -> bool:
        """Say whether the leg's update of this number, from 0, is one of the leg, as far as can be foreseen."""
        return self._every is None or update < self._every

    def version_of(self, rank: int) -> int:
        """Return the version of a rank's weights at the start of the leg."""
        return int(self._versions[rank])

    def between(self, version: int = 0, frames: float = 0.0, save: Callable[[], None] = lambda: None) -> bool:
        """Write the checkpoint at the end of a leg; say whether another leg follows. Collective over ``world``.

        An exact run that is stopped before its end writes none: it would not be one of those that the uncut run has.
        It is done anew from the one before.

        Args:
            version: of this rank's weights, if it owns any.
            frames: behind them.
            save: writes what this rank leaves for others to play.
        """
        began, number = time.perf_counter(), self._number + 1
        with self._control.timing(Phase.CHECKPOINT):
            own = np.zeros(1, _REPORT)
            packed = self._prepare(own, version, frames, save)
            self._meet()
            rest_s = time.perf_counter() - began
            own["ends"], own["counters"] = self._control.stop, self._control.counters.vector()
            ranks = self._gather(own)
            finished = bool(ranks["finished"].all())
            stopped = bool(ranks["ends"][0])
            if self._every is None or finished or not stopped:
                self._write(number, packed, own, ranks, began, rest_s)
            elif self._world.rank == 0:
                self._files.folder.discard(number)
                self._say(f"stopped between two checkpoints: a deterministic run goes on from {self._newest}")
        goes_on = not stopped and not finished
        if goes_on:
            self._number, self._version, self._versions = number, version, ranks["version"].copy()
            self._control.begin_leg(number)
            if self._every is not None:
                for restart in self._restart:
                    restart(number)
        return goes_on

    @property
    def _newest(self) -> str:
        return "its start" if self._good is None else f"checkpoint {self._good}"

    def _prepare(self, own: Array, version: int, frames: float, save: Callable[[], None]) -> Packed:
        """Fill in what this rank has to report, and pack its state."""
        state = {name: part.state() for name, part in self._parts.items()}
        packed = pack(state | {"weights": {"version": version, "frames": float(frames)}})
        own["version"], own["frames"], own["nbytes"] = version, frames, packed.nbytes
        own["finished"] = self._enough is None or self._enough(frames)
        try:
            save()
            if self._world.rank == 0:
                self._files.folder.begin(self._number + 1)
        except OSError as error:
            own["failed"] = _short(error)
        return packed

    def _meet(self) -> None:
        """Wait, reporting meanwhile, until every rank has come to rest."""
        arrived = self._world.Ibarrier()

        def here() -> bool:
            self._control.tick()
            return bool(arrived.Test())

        wait_until(here)

    def _gather(self, own: Array) -> Array:
        """Return the reports of all ranks. Collective over ``world``."""
        everyone = np.zeros(self._world.size, _REPORT)
        self._world.Allgather(own.view(np.uint8), everyone.view(np.uint8))
        return everyone

    def _write(self, number: int, packed: Packed, own: Array, ranks: Array, began: float, rest_s: float) -> None:
        """Write all parts and, when they are there, the mark; or say why there is none. Collective over ``world``."""
        sections, rank, folder = _layout(self._files.nodes, ranks["nbytes"]), self._world.rank, self._files.folder
        if not ranks["failed"].any():
            try:
                own["crc32"] = folder.write(number, sections[rank].file, sections[rank].offset, packed)
            except OSError as error:
                own["failed"] = _short(error)
        self._meet()
        ranks = self._gather(own)
        failed = [(r, text.decode(errors="replace")) for r, text in enumerate(ranks["failed"]) if text]
        if rank == 0 and not failed:
            try:
                folder.finish(self._manifest(number, sections, ranks), self._files.keep)
            except OSError as error:
                failed = [(0, _short(error).decode())]
        seconds, nbytes = time.perf_counter() - began, int(ranks["nbytes"].sum())
        if failed:
            if rank == 0:
                folder.discard(number)
            self._say(
                f"checkpoint {number} could not be written: rank {failed[0][0]}: {failed[0][1]}; "
                f"the newest good one is {self._newest}"
            )
            return
        self._good = number
        self._say(
            f"checkpoint {number} at version {ranks['version'].max():,}: {nbytes / 1e6:.1f} MB in {seconds:.2f} s, "
            f"{rest_s:.2f} s of them until all were at rest"
        )
        self._control.note("checkpoint", number=number, seconds=seconds, rest=rest_s, bytes=packed.nbytes)

    def _manifest(self, number: int, sections: Sequence[Section], ranks: Array) -> Manifest:
        summed = [section._replace(crc32=int(crc)) for section, crc in zip(sections, ranks["crc32"], strict=True)]
        return replace(
            self._draft,
            number=number,
            sections=tuple(summed),
            versions=tuple(ranks["version"].tolist()),
            frames=tuple(ranks["frames"].tolist()),
            account=account(self._before, ranks["counters"]),
        )


def _layout(nodes: Sequence[int], nbytes: Array) -> list[Section]:
    """Return each rank's place in its node's file: in the order of ranks, without gaps."""
    ends: dict[int, int] = {}
    sections = []
    for node, size in zip(nodes, nbytes, strict=True):
        start = ends.get(node, 0)
        ends[node] = start + int(size)
        sections.append(Section(f"node-{node:04d}.bin", start, int(size), 0))
    return sections


def _short(error: OSError) -> bytes:
    return str(error).partition("\n")[0].encode()[:160]
