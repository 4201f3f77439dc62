"""From what ranks find where they run to what is good, wasteful or wrong there, and the line that mends it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from hpcddrl.runtime.facts import Facts, Survey
from hpcddrl.runtime.processors import evenly

SEGMENT_BYTES = 16 * 2**20  # of /dev/shm, that a rank of Open MPI may fill
SLOW_LATENCY_S, SLOW_BYTES_PER_S = 200e-6, 200e6  # between hosts, worse than which a cluster's network is not in use
IMPORTANT = ("python", "hpcddrl", "torch", "numpy", "mpi4py", "horovod", "gymnasium", "ale_py", "h5py")


class Level(StrEnum):
    """How grave a finding is."""

    OK = "ok"
    WARNING = "warning"  # a job runs, but slower, or not every one
    ERROR = "error"  # no job runs


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Level
    what: str
    says: str
    mend: str = ""  # the line that mends it


def diagnose(survey: Survey) -> list[Finding]:
    """Return what there is to say of where the ranks run, in the order of `RULES`."""
    return [finding for rule in RULES for finding in rule(survey)]


def _ranks(survey: Survey) -> Iterator[Finding]:
    size, launched = len(survey.facts), max(fact.launched for fact in survey.facts)
    if launched > size == 1:
        yield Finding(
            Level.ERROR,
            "ranks",
            f"the launcher started {launched} processes, and each takes itself for a job of one: it is not of the MPI "
            f"that mpi4py runs on, {survey.facts[0].mpi.library}",
            "that MPI's own mpirun; under Slurm srun --mpi=pmix; or take the site's: make clean setup MPI=system",
        )
        return
    hosts = ", ".join(f"{host} ({_list(facts)})" for host, facts in survey.hosts.items())
    yield Finding(Level.OK, "ranks", f"{size} on {hosts}")


def _mpi(survey: Survey) -> Iterator[Finding]:
    libraries = {fact.mpi.library for fact in survey.facts}
    if len(libraries) > 1:
        yield Finding(
            Level.ERROR,
            "MPI",
            f"ranks run on different libraries: {_who(survey.facts, lambda fact: fact.mpi.library)}",
            "load the same MPI module on all hosts, and the one that mpi4py was built with",
        )
    mpi = survey.facts[0].mpi
    yield Finding(Level.OK, "MPI", f"{mpi.library}, standard {mpi.standard[0]}.{mpi.standard[1]}")
    if mpi.thread_level == "multiple" or not survey.facts[0].horovod.version:
        yield Finding(Level.OK, "thread level", mpi.thread_level)
    else:
        yield Finding(
            Level.WARNING,
            "thread level",
            f"{mpi.thread_level}: Horovod calls MPI from a thread of its own, which this library does not allow",
            "--set update.backend=mpi, or an MPI built with MPI_THREAD_MULTIPLE",
        )


def _processors(survey: Survey) -> Iterator[Finding]:
    """Binding, threads and oversubscription of each host; hosts that are alike are said once."""
    found: dict[Finding, list[str]] = {}
    for host, facts in survey.hosts.items():
        for finding in _of_host(facts):
            found.setdefault(finding, []).append(host)
    for finding, hosts in found.items():
        yield finding._replace(says=f"{', '.join(hosts)}: {finding.says}")


def _of_host(facts: Sequence[Facts]) -> Iterator[Finding]:
    sets = {fact.processors for fact in facts}
    union, cpus = {cpu for cpus in sets for cpu in cpus}, facts[0].cpus
    usable = min(len(union), facts[0].quota)
    threads = min(
        evenly(len(fact.processors), sum(other.processors == fact.processors for other in facts)) for fact in facts
    )
    shared = sum(map(len, sets)) > len(union)
    own = len(facts[0].processors)
    bound = f"each on all {cpus} processors" if own == cpus else f"each bound to {own} of {cpus} processors"
    each = f"{_count(len(facts), 'rank')}, {bound}, with {_count(threads, 'thread')}"
    if math.isfinite(facts[0].quota):
        each += f"; the container may use {facts[0].quota:g} at once"
    if len(facts) > usable:
        yield Finding(
            Level.WARNING,
            "processors",
            f"{each}: more ranks than the {usable:g} processors that they have, so that they wait for each other",
            f"mpirun -n {max(1, int(usable))} for each host like this; or go on, and mistrust what you time",
        )
    elif shared and len(sets) > 1:
        yield Finding(
            Level.WARNING,
            "processors",
            f"{each}: some ranks are bound to the same processors as others",
            "mpirun --bind-to none, or --map-by slot:PE=<processors a rank>",
        )
    elif len(union) < cpus and len(union) == len(facts) and cpus >= 2 * len(facts):
        yield Finding(
            Level.WARNING,
            "processors",
            f"{each}: {cpus - len(union)} processors are nobody's, and learners compute with one thread",
            f"mpirun --bind-to none, or --map-by slot:PE={cpus // len(facts)}",
        )
    else:
        yield Finding(Level.OK, "processors", each)
    if facts[0].omp_num_threads not in ("", "1"):
        yield Finding(
            Level.OK,
            "threads",
            f"OMP_NUM_THREADS={facts[0].omp_num_threads} is not for torch, whose threads are chosen by the binding",
        )


def _shared_memory(survey: Survey) -> Iterator[Finding]:
    for host, facts in survey.hosts.items():
        free, needed = facts[0].shared_bytes, SEGMENT_BYTES * len(facts)
        if math.isnan(free):
            says, mend = "there is no /dev/shm: messages within the host are slow", "mount -t tmpfs tmpfs /dev/shm"
            yield Finding(Level.WARNING, "shared memory", f"{host}: {says}", mend)
        elif free < needed and len(facts) > 1:
            yield Finding(
                Level.WARNING,
                "shared memory",
                f"{host}: {_mb(free)} are free in /dev/shm, and {len(facts)} ranks may fill {_mb(needed)}; a full one "
                "ends them with a bus error",
                "docker run --shm-size=1g, or rm /dev/shm/sm_segment.* that ended jobs left, or mpirun --mca btl ^sm",
            )
    least = min((fact.shared_bytes for fact in survey.facts), default=math.nan)
    if not math.isnan(least):
        yield Finding(Level.OK, "shared memory", f"{_mb(least)} free in /dev/shm, at least")


def _horovod(survey: Survey) -> Iterator[Finding]:
    broken = [fact for fact in survey.facts if fact.horovod.problem]
    if broken:
        yield Finding(
            Level.WARNING,
            "Horovod",
            f"{_list(broken)}: {broken[0].horovod.problem}; only groups of several learners use it",
            "make setup builds it; or do without: --set update.backend=mpi",
        )
        return
    found = survey.facts[0].horovod
    if "mpi" not in found.built_with:
        yield Finding(
            Level.WARNING,
            "Horovod",
            f"{found.version}, built without MPI (with {', '.join(found.built_with) or 'nothing'})",
            "HOROVOD_WITH_MPI=1 make clean setup; or do without: --set update.backend=mpi",
        )
        return
    yield Finding(Level.OK, "Horovod", f"{found.version}, built with {', '.join(found.built_with)}")


def _files(survey: Survey) -> Iterator[Finding]:
    broken = [fact for fact in survey.facts if fact.no_file]
    if broken:
        yield Finding(
            Level.ERROR,
            "files",
            f"{_list(broken)} cannot write HDF5 files into {survey.folder}: {broken[0].no_file}",
            "another folder with --out; where it is the lock that fails, export HDF5_USE_FILE_LOCKING=FALSE",
        )
    blind = [fact for fact in survey.facts if not fact.sees_folder]
    if blind:
        yield Finding(
            Level.ERROR,
            "files",
            f"{survey.folder} is not the same folder for {_list(blind)} as for rank 0",
            "a folder that all hosts share, with --out",
        )
    if not broken and not blind:
        yield Finding(Level.OK, "files", f"HDF5 files are written, locked and replaced in {survey.folder} by all ranks")


def _gpus(survey: Survey) -> Iterator[Finding]:
    for host, facts in survey.hosts.items():
        seen = {fact.gpus for fact in facts}
        if facts[0].devices and seen == {()}:
            yield Finding(
                Level.WARNING,
                "GPUs",
                f"{host}: has {facts[0].devices}, and torch {facts[0].versions.get('torch', '')} sees none",
                "make clean setup TORCH=torch==<version>, the build for CUDA; nvidia-smi says whether the driver works",
            )
        elif seen != {()}:
            yield Finding(Level.OK, "GPUs", f"{host}: {_who(facts, lambda fact: ', '.join(fact.gpus) or 'none')}")
            if any(fact.gpus and fact.horovod.version and "nccl" not in fact.horovod.built_with for fact in facts):
                yield Finding(
                    Level.WARNING,
                    "GPUs",
                    f"{host}: Horovod was built without NCCL; gradients of several learners pass through host memory",
                    "HOROVOD_GPU_OPERATIONS=NCCL make clean setup, where CUDA's toolkit and NCCL are",
                )
    if not any(fact.gpus or fact.devices for fact in survey.facts):
        yield Finding(Level.OK, "GPUs", "none")


def _games(survey: Survey) -> Iterator[Finding]:
    broken = [fact for fact in survey.facts if fact.no_games]
    if broken:
        yield Finding(
            Level.WARNING,
            "Atari",
            f"{_list(broken)}: {broken[0].no_games}",
            "python -m pip install 'ale-py>=0.11'; other environments do without",
        )
    else:
        yield Finding(Level.OK, "Atari", f"ROMs of {min(fact.games for fact in survey.facts)} games")


def _versions(survey: Survey) -> Iterator[Finding]:
    differ = [name for name in IMPORTANT if len({fact.versions.get(name) for fact in survey.facts}) > 1]
    for name in differ:
        yield Finding(
            Level.ERROR,
            "versions",
            f"of {name} differ: {_who(survey.facts, partial(_version, name))}",
            "activate the same environment on all hosts (mpirun -x PATH -x VIRTUAL_ENV)",
        )
    first = survey.facts[0].versions
    alike = ", ".join(f"{name} {first[name]}" for name in IMPORTANT if name in first and name not in differ)
    yield Finding(Level.OK, "versions", alike)


def _links(survey: Survey) -> Iterator[Finding]:
    for link in survey.links:
        near, far = survey.facts[link.first].host, survey.facts[link.second].host
        where = f"within {near}" if near == far else f"{near} to {far}"
        speed = f"{link.latency_s * 1e6:.0f} µs, {link.bytes_per_s / 1e9:.2g} GB/s"
        slow = link.latency_s > SLOW_LATENCY_S or link.bytes_per_s < SLOW_BYTES_PER_S
        if slow and near != far:
            yield Finding(
                Level.WARNING,
                "messages",
                f"{where}: {speed}, as of Ethernet or worse",
                "an MPI built for the cluster's network: make clean setup MPI=system; mpirun --mca pml ucx",
            )
        else:
            yield Finding(Level.OK, "messages", f"{where}: {speed}")


RULES: tuple[Callable[[Survey], Iterable[Finding]], ...] = (
    _ranks,
    _mpi,
    _processors,
    _shared_memory,
    _links,
    _horovod,
    _files,
    _gpus,
    _games,
    _versions,
)


def _list(facts: Iterable[Facts]) -> str:
    """Write ranks shortly: rank 3, ranks 0-2, 5."""
    ranks = sorted(fact.rank for fact in facts)
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    text = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
    return f"rank{'' if len(ranks) == 1 else 's'} {text}"


def _who(facts: Iterable[Facts], value: Callable[[Facts], str]) -> str:
    """Write which ranks have which value."""
    found: dict[str, list[Facts]] = {}
    for fact in facts:
        found.setdefault(value(fact), []).append(fact)
    return "; ".join(f"{what} ({_list(who)})" for what, who in found.items())


def _mb(nbytes: float) -> str:
    return f"{nbytes / 1e6:,.0f} MB"


def _version(package: str, fact: Facts) -> str:
    return fact.versions.get(package, "none")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
