"""Who has fallen silent: rank 0 sees it by the statuses that don't come, and tells everyone."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import numpy as np

from hpcddrl.comm.channel import Ending, Receiver, Sender, Tag, Traffic
from hpcddrl.comm.control_messages import RollCallMessage, roll_layout
from hpcddrl.comm.world import World

What = Literal["lost", "silent", "back"]
CODES: dict[What, int] = {"lost": 0, "silent": 1, "back": 2}  # in files


class Change(NamedTuple):
    """What has become of a rank."""

    rank: int
    what: What
    since_s: float  # it was heard of last; of one that is back: how long it was silent

    def line(self, world: World) -> str:
        """Say it to people."""
        clock = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() - self.since_s))
        match self.what:
            case "lost":
                return f"lost: {world.named(self.rank)} has died; its last word came {self.since_s:.1f} s before"
            case "silent":
                return f"silent: {world.named(self.rank)} has said nothing since {clock} ({self.since_s:.0f} s)"
            case "back":
                return f"back: {world.named(self.rank)}, after {self.since_s:.0f} s of silence"


class RollCall:
    """Rank 0's side.

    Args:
        world: all ranks.
        silent_after_s: without a word that make a rank a silent one.
        traffic: where messages are counted.
    """

    def __init__(self, world: World, silent_after_s: float, traffic: Traffic) -> None:
        self._world, self._silent_after_s = world, silent_after_s
        self._others = list(range(1, world.size))
        self._began: float | None = None
        # Whoever falls silent before it has taken one keeps a buffer from the others.
        self._sender = Sender(world, Tag.ROLL, roll_layout(world.size), world.size + 1, traffic)
        self._lost: frozenset[int] = frozenset()
        self._silent: dict[int, float] = {}  # with the moment of their last words
        self._final = self._untold = False

    def call(self, heard: Mapping[int, float], speaking: Collection[int]) -> list[Change]:
        """Return what has changed since the last call, and tell everyone who is silent if that has.

        Args:
            heard: when (`time.monotonic`) the last word of each rank came.
            speaking: the ranks that have more to say.
        """
        now, lost = time.monotonic(), self._world.lost
        began = self._began = self._began or now  # nothing is said before
        silent = {r: max(t, began) for r, t in heard.items() if r in speaking and r not in lost}
        silent = {r: t for r, t in silent.items() if now - t > self._silent_after_s}
        if self._final:  # nobody who was done without is taken back
            silent = {r: t for r, t in self._silent.items() if r not in lost} | silent
        changes = [Change(r, "lost", now - heard[r]) for r in sorted(lost - self._lost)]
        changes += [Change(r, "silent", now - t) for r, t in silent.items() if r not in self._silent]
        back = self._silent.keys() - silent.keys() - lost
        changes += [Change(r, "back", now - self._silent[r]) for r in sorted(back)]
        self._untold |= silent.keys() != self._silent.keys()
        self._lost, self._silent = lost, silent
        self._tell()
        return changes

    def finish(self) -> None:
        """The run ends: whoever is silent now, or falls silent later, is waited for no more."""
        self._final = True
        self._untold |= bool(self._silent)
        self._tell()

    def end(self) -> Ending:
        """Say the last to everyone; return what is still to be handed over."""
        self._sender.say_last(self._others)
        return Ending(senders=(self._sender,))

    def _tell(self) -> None:
        if self._final:
            self._world.give_up(frozenset(self._silent))
        else:
            self._world.silent = frozenset(self._silent)
        slot = self._sender.take() if self._untold else None
        if slot is None:
            return
        slot.record.silent[:] = np.isin(np.arange(self._world.size), list(self._silent))
        slot.record.final[0] = self._final
        for rank in self._others:
            if rank not in self._silent:  # it would take nothing, and keep the buffer
                self._sender.send(slot, rank)
        self._sender.release(slot)
        self._untold = False


class RollListener:
    """Every other rank's side.

    Args:
        world: all ranks.
        silent_after_s: without taking a status that make rank 0 a silent one.
    """

    def __init__(self, world: World, silent_after_s: float) -> None:
        self._world, self._silent_after_s = world, silent_after_s
        self._taken, self._said = time.monotonic(), False
        self._receiver = Receiver(world, [0], Tag.ROLL, roll_layout(world.size), slots=1)

    def listen(self) -> None:
        """Take what rank 0 says."""
        for slot in self._receiver.poll():
            self._heed(slot.record)
            self._receiver.release(slot)

    def reported(self, taken: bool) -> None:
        """Note whether rank 0 has room for a status; if it has not for long, rank 1 says so, as rank 0 cannot."""
        now = time.monotonic()
        if taken:
            self._taken, self._said = now, False
        elif now - self._taken > self._silent_after_s and self._world.rank == 1 and not self._said:
            self._said = True
            sys.stderr.write(f"hpcddrl: {Change(0, 'silent', now - self._taken).line(self._world)}\n")

    def end(self) -> Ending:
        """Return what is still to come."""
        return Ending(((self._receiver, self._heed),))

    def _heed(self, record: RollCallMessage) -> None:
        if record.last[0]:
            return
        silent = frozenset(np.flatnonzero(record.silent).tolist())
        if record.final[0]:
            self._world.give_up(silent)
        else:
            self._world.silent = silent
