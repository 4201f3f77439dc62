"""Legs: what a job does between two checkpoints, and the checkpoint of all ranks at the end of each.

A leg ends as a run does: who owns weights says its last, all channels are drained, and so every transition is accounted
for and nothing is on its way. Then all ranks write their parts, and go on with the channels open again. Ranks that have
died have no part in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from hpcddrl.comm.assembly import Conclude, assemble
from hpcddrl.comm.channel import PATIENCE_S, Ending, Traffic, drain
from hpcddrl.comm.world import World
from hpcddrl.logs.packing import Packed, pack
from hpcddrl.logs.restart import Manifest, RestartFolder, Section
from hpcddrl.logs.timing import Phase
from hpcddrl.roles.control import Control
from hpcddrl.roles.counters import COUNTERS, account
from hpcddrl.types import Array, Stateful, Weights

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
_ANSWER = np.dtype([("there", "u1"), ("version", "i8"), ("offset", "i8"), ("word", "u1")])  # of each rank
_WRITE, _STOPPED, _FINISHED = 1, 2, 4  # the word, the same of all


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
        traffic: where messages are counted.
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
        world: World,
        control: Control,
        traffic: Traffic,
        files: Files,
        draft: Manifest,
        parts: Mapping[str, Stateful],
        start: Start,
        every: int | None,
        enough: Callable[[float], bool] | None,
        restart: Sequence[Callable[[int], None]],
        say: Callable[[str], None],
    ) -> None:
        self._world, self._control, self._traffic = world, control, traffic
        self._files, self._draft, self._parts = files, draft, parts
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

    def rest(self, *endings: Ending) -> None:
        """Come to rest at the end of a leg: what this rank has yet to receive and to hand over is done with.

        Whoever is silent is waited for, unless the run ends.
        """
        control = self._control
        patience_s = PATIENCE_S if control.stop else math.inf
        with control.timing(Phase.WAIT):
            drain(*endings, patience_s=patience_s, meanwhile=control.tick)

    def between(self, weights: Weights | None = None, save: Callable[[], None] = lambda: None) -> bool:
        """Write the checkpoint at the end of a leg; say whether another leg follows. All who are still there call it.

        An exact run that is stopped before its end writes none: it would not be one of those that the uncut run has.
        It is done anew from the one before.

        Args:
            weights: of this rank, if it owns any.
            save: writes what this rank leaves for others to play.
        """
        began, number = time.perf_counter(), self._number + 1
        with self._control.timing(Phase.CHECKPOINT):
            own = np.zeros((), _REPORT)
            packed = self._prepare(own, weights, save)
            answer, reports = self._agree(own)
            rest_s = time.perf_counter() - began
            word = int(answer["word"].max())
            if word & _WRITE:
                self._write(number, packed, own, reports, answer, began, rest_s)
            elif self._world.rank == 0:
                self._files.folder.discard(number)
                self._say(f"stopped between two checkpoints: a deterministic run goes on from {self._newest}")
        goes_on = not word & (_STOPPED | _FINISHED)
        if goes_on:
            self._number, self._version = number, int(own["version"])
            self._versions = answer["version"].copy()
            self._control.begin_leg(number)
            if self._every is not None:
                for restart in self._restart:
                    restart(number)
        return goes_on

    @property
    def _newest(self) -> str:
        return "its start" if self._good is None else f"checkpoint {self._good}"

    def _prepare(self, own: Array, weights: Weights | None, save: Callable[[], None]) -> Packed:
        """Fill in what this rank has to report, and pack its state."""
        weights = weights or Weights(0, torch.empty(0))
        about = {name: getattr(weights, name) for name in ("version", "frames", "stage", "since")}
        state = {name: part.state() for name, part in self._parts.items()}
        packed = pack(state | {"weights": about | {"frames": float(weights.frames), "stage": int(weights.stage)}})
        own["version"], own["frames"], own["nbytes"] = weights.version, weights.frames, packed.nbytes
        own["finished"] = self._enough is None or self._enough(weights.frames)
        own["ends"], own["counters"] = self._control.stop, self._control.counters.vector()
        try:
            save()
            if self._world.rank == 0:
                self._files.folder.begin(self._number + 1)
        except OSError as error:
            own["failed"] = _short(error)
        return packed

    def _agree(self, own: Array) -> tuple[Array, Array]:
        """Return, alike on all, who is there and what is done, and on rank 0 the reports of all."""
        everyone = np.zeros(self._world.size, _REPORT)

        def conclude(reports: dict[int, Array]) -> Array:
            there = sorted(reports)
            for rank in there:
                everyone[rank] = reports[rank].view(_REPORT)[0]
            everyone["ends"][0] |= self._control.stop  # while others were awaited
            answer = np.zeros(self._world.size, _ANSWER)
            answer["there"][there], answer["version"] = 1, everyone["version"]
            finished, stopped = bool(everyone["finished"][there].all()), bool(everyone["ends"][0])
            writes = self._every is None or finished or not stopped
            answer["word"] = writes * _WRITE | stopped * _STOPPED | finished * _FINISHED
            answer["offset"] = [s.offset for s in _layout(self._files.nodes, everyone["nbytes"])]
            return answer.view(np.uint8)

        return self._meet(own, conclude, self._world.size * _ANSWER.itemsize).view(_ANSWER), everyone

    def _meet(self, own: Array, conclude: Conclude, answer_bytes: int) -> Array:
        """Wait, reporting meanwhile, until every rank that is still there has come as far."""
        report = own.reshape(1).view(np.uint8)
        return assemble(
            self._world,
            report,
            conclude,
            answer_bytes,
            self._traffic,
            meanwhile=self._control.tick,
            patience_s=math.inf,
        )

    def _write(
        self, number: int, packed: Packed, own: Array, reports: Array, answer: Array, began: float, rest_s: float
    ) -> None:
        """Write all parts and, when they are there, the mark; or say why there is none. All who are there call it."""
        rank, folder = self._world.rank, self._files.folder
        if not own["failed"]:
            try:
                file = _file(self._files.nodes[rank])
                own["crc32"] = folder.write(number, file, int(answer["offset"][rank]), packed)
            except OSError as error:
                own["failed"] = _short(error)

        def conclude(written: dict[int, Array]) -> Array:
            for source in written:
                reports[source] = written[source].view(_REPORT)[0]
            return np.array([self._finish(number, reports, answer, set(written), began, rest_s)], np.uint8)

        if self._meet(own, conclude, 1)[0]:
            seconds = time.perf_counter() - began
            self._control.note("checkpoint", number=number, seconds=seconds, rest=rest_s, bytes=packed.nbytes)

    def _finish(
        self, number: int, reports: Array, answer: Array, written: set[int], began: float, rest_s: float
    ) -> bool:
        """On rank 0: mark what all have written as good; say what came of it."""
        there, folder = np.flatnonzero(answer["there"]).tolist(), self._files.folder
        failed = [(r, reports["failed"][r].decode(errors="replace")) for r in there if reports["failed"][r]]
        failed += [(r, "it is gone") for r in there if r not in written]
        if not failed:
            try:
                folder.finish(self._manifest(number, reports, there), self._files.keep)
            except OSError as error:
                failed = [(0, _short(error).decode())]
        if failed:
            folder.discard(number)
            self._say(
                f"checkpoint {number} could not be written: rank {failed[0][0]}: {failed[0][1]}; "
                f"the newest good one is {self._newest}"
            )
            return False
        self._good = number
        seconds, nbytes, missing = time.perf_counter() - began, int(reports["nbytes"].sum()), reports.size - len(there)
        self._say(
            f"checkpoint {number} at version {reports['version'].max():,}: {nbytes / 1e6:.1f} MB in {seconds:.2f} s, "
            f"{rest_s:.2f} s of them until all were at rest" + (f"; without {missing} ranks" if missing else "")
        )
        return True

    def _manifest(self, number: int, reports: Array, there: Sequence[int]) -> Manifest:
        """Return the mark of a checkpoint: of those who are there, as if they were all."""
        sections = _layout(self._files.nodes, reports["nbytes"])
        view = self._control.settled({rank: reports["counters"][rank] for rank in there})
        return replace(
            self._draft,
            number=number,
            seats=tuple(self._draft.seats[rank] for rank in there),
            sections=tuple(sections[rank]._replace(crc32=int(reports["crc32"][rank])) for rank in there),
            versions=tuple(reports["version"][there].tolist()),
            frames=tuple(reports["frames"][there].tolist()),
            account=account(self._before, view),
        )


def _layout(nodes: Sequence[int], nbytes: Array) -> list[Section]:
    """Return each rank's place in its node's file: in the order of ranks, without gaps."""
    ends: dict[int, int] = {}
    sections = []
    for node, size in zip(nodes, nbytes, strict=True):
        start = ends.get(node, 0)
        ends[node] = start + int(size)
        sections.append(Section(_file(node), start, int(size), 0))
    return sections


def _file(node: int) -> str:
    return f"node-{node:04d}.bin"


def _short(error: OSError) -> bytes:
    return str(error).partition("\n")[0].encode()[:160]
