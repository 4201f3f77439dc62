"""A job's trace: what each rank did and sent, on one clock, in one file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from mpi4py import MPI

from hpcddrl.comm.channel import Tag
from hpcddrl.comm.clocks import clocks_ahead
from hpcddrl.comm.placement import Place
from hpcddrl.config import Logging
from hpcddrl.logs.timeline import Clock, Track, write_timeline
from hpcddrl.logs.trace import Recorder

FILE = "trace.json.gz"


class Trace:
    """Records this rank's events from now on; at the end, rank 0 gathers all ranks' and writes the file.

    Ranks of a host share its clock, so that only hosts are compared: with rank 0's, now and at the end. Collective over
    ``world``, as `gather` is.

    Args:
        config: how much to keep.
        world: all ranks.
        places: of all ranks.
        hosts: of all ranks.
    """

    def __init__(self, config: Logging, world: MPI.Comm, places: Sequence[Place], hosts: Sequence[str]) -> None:
        self.recorder = Recorder(max(1, config.trace_events // world.size))
        self._world, self._places, self._hosts = world, places, hosts
        self._first = {host: rank for rank, host in reversed(list(enumerate(hosts)))}  # of each host
        self._began = self._compare()
        self._tracks: list[Track] = []
        self._seen = 0

    def gather(self) -> None:
        """Bring all ranks' events to rank 0. Collective over ``world``."""
        ended = self._compare()
        gathered = self._world.gather((self.recorder.events(), self.recorder.seen))
        for rank, (events, seen) in enumerate(gathered or []):
            place, host = self._places[rank], self._hosts[rank]
            first, (begin, then), (end, now) = self._first[host], self._began, ended
            clock = Clock((begin, end), (then.get(first, 0.0), now.get(first, 0.0)))
            owner = "servers" if place.group is None else f"group {place.group}"
            name = f"rank {rank} {place.role}" + (f" on {host}" if len(self._first) > 1 else "")
            self._tracks.append(Track(owner, name, clock, events))
            self._seen += seen

    def write(self, folder: Path) -> str:
        """Write, on rank 0, what was gathered; return a line about it."""
        kept, path = sum(len(track.events) for track in self._tracks), folder / FILE
        about = {"ranks": len(self._tracks), "events": kept, "events_seen": self._seen}
        write_timeline(path, self._tracks, {int(tag): tag.name.lower() for tag in Tag}, about)
        what = f"all {kept:,} events" if kept == self._seen else f"the newest {kept:,} of {self._seen:,} events"
        return f"trace of {what} in {path}; open it in https://ui.perfetto.dev"

    def _compare(self) -> tuple[float, dict[int, float]]:
        """Return the time, and how far the clocks of the hosts' first ranks are ahead. Collective over ``world``."""
        ahead = clocks_ahead(self._world, sorted(rank for rank in self._first.values() if rank))
        return time.perf_counter(), ahead
