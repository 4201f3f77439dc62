"""What each rank finds where it runs, and what they find out together."""

from __future__ import annotations

import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hpcddrl.comm import installed
from hpcddrl.comm.links import Link, measure_links
from hpcddrl.envs.roms import roms
from hpcddrl.logs.folder import complaint, nearest
from hpcddrl.logs.run_dir import versions
from hpcddrl.networks.device import gpus

SHARED_MEMORY = Path("/dev/shm")
QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Facts(NamedTuple):
    """What one rank finds; it travels as it is."""

    rank: int
    host: str
    processors: tuple[int, ...]  # that it is bound to
    cpus: int  # that its host has
    quota: float  # processors that its container may use at once; ∞ without a limit
    omp_num_threads: str  # as set by the user; "" if not
    shared_bytes: float  # free in /dev/shm; NaN where there is none
    gpus: tuple[str, ...]  # that torch sees
    devices: int  # GPUs that the host has, as far as its device files tell
    mpi: installed.Mpi
    launched: int  # processes that the launcher says it started
    horovod: installed.Horovod
    games: int
    no_games: str  # why not, if so
    no_file: str  # why it cannot write into the folder, if so
    sees_folder: bool  # that rank 0 writes to
    versions: dict[str, str]


class Survey(NamedTuple):
    """What all ranks found."""

    folder: str
    facts: tuple[Facts, ...]  # in rank order
    links: tuple[Link, ...]

    @property
    def hosts(self) -> dict[str, list[Facts]]:
        """Return the ranks of each host."""
        found: dict[str, list[Facts]] = {}
        for fact in self.facts:
            found.setdefault(fact.host, []).append(fact)
        return found


def survey(out: Path) -> Survey | None:
    """Look around on every rank; return, on rank 0, what all found. Collective over the job.

    Args:
        out: folder of runs, which need not be there yet.
    """
    from mpi4py import MPI

    world, folder = MPI.COMM_WORLD, nearest(out)
    with _left_in(folder if world.rank == 0 else None) as name:
        seen = world.bcast(name)
        mine = _facts(world.rank, folder, sees=not seen or Path(seen).exists())
        facts = world.gather(mine)
    links = world.gather(measure_links(world, pairs(world.allgather(mine.host))))
    if facts is None or links is None:
        return None
    return Survey(str(folder), tuple(facts), tuple(link for own in links for link in own))


@contextmanager
def _left_in(folder: Path | None) -> Iterator[str]:
    """Leave an empty folder in this one, if any, for others to see; give its name, "" if it cannot be made."""
    with ExitStack() as stack:
        name = ""
        if folder is not None:
            with suppress(OSError):
                name = stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".hpcddrl-doctor-"))
        yield name


def pairs(hosts: Sequence[str]) -> list[tuple[int, int]]:
    """Return the ranks whose links are worth measuring: rank 0 with one of its own host, and with one of each other."""
    first: dict[str, int] = {}
    for rank, host in enumerate(hosts):
        first.setdefault(host, rank)
    beside = [rank for rank, host in enumerate(hosts) if rank and host == hosts[0]][:1]
    return [(0, rank) for rank in (*beside, *first.values()) if rank]


def _facts(rank: int, folder: Path, sees: bool) -> Facts:
    games, no_games = roms()
    return Facts(
        rank=rank,
        host=socket.gethostname(),
        processors=tuple(sorted(os.sched_getaffinity(0))),
        cpus=os.cpu_count() or 1,
        quota=_quota(),
        omp_num_threads=os.environ.get("OMP_NUM_THREADS", ""),
        shared_bytes=float(shutil.disk_usage(SHARED_MEMORY).free) if SHARED_MEMORY.is_dir() else math.nan,
        gpus=gpus(),
        devices=len(list(Path("/dev").glob("nvidia[0-9]*"))),
        mpi=installed.mpi(),
        launched=installed.started_by_launcher(),
        horovod=installed.horovod(),
        games=games,
        no_games=no_games,
        no_file=complaint(folder),
        sees_folder=sees,
        versions=versions(),
    )


def _quota() -> float:
    """Return the processors that a container's limit lets its processes use at once."""
    try:
        most, period = QUOTA.read_text().split()
        return math.inf if most == "max" else float(most) / float(period)
    except (OSError, ValueError):
        return math.inf
