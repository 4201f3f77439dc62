"""A whole job on one rank: agree on the start, run the role, part in order, sum up."""

from __future__ import annotations

import math
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from mpi4py import MPI

from hpcddrl.comm.allreduce import require
from hpcddrl.comm.channel import Traffic
from hpcddrl.comm.circle import Circle
from hpcddrl.comm.failure import Signals, abort_on_exception, end_on_exception, fatal_errors
from hpcddrl.comm.parting import Report, part
from hpcddrl.comm.placement import Place, Role, place, split
from hpcddrl.comm.roll import RollListener
from hpcddrl.config import AllReduce, Config, NoDetector
from hpcddrl.logs.rank_log import RankLog
from hpcddrl.logs.resident import peak_resident_bytes
from hpcddrl.logs.run_dir import RunDirectory, default_path, rank_attributes
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.roles.control import Control
from hpcddrl.roles.counters import View, account, counters_for, steppers
from hpcddrl.roles.legs import Files
from hpcddrl.roles.monitor import Monitor
from hpcddrl.roles.stages import Watch, most_returns
from hpcddrl.runtime import board
from hpcddrl.runtime.build import build
from hpcddrl.runtime.checks import checked, fitted
from hpcddrl.runtime.compression import with_choice
from hpcddrl.runtime.devices import Devices, devices_of, seen_here
from hpcddrl.runtime.display import Display, phase_shares, si
from hpcddrl.runtime.memory import replay_bytes_of, require_memory
from hpcddrl.runtime.process import prepare_process
from hpcddrl.runtime.rank import Rank, game_of
from hpcddrl.runtime.restoring import Resumed, refitted
from hpcddrl.runtime.restoring import resume as restore
from hpcddrl.runtime.split import with_split
from hpcddrl.runtime.stages import exact_stage
from hpcddrl.runtime.threads import use_threads
from hpcddrl.runtime.tracing import Trace
from hpcddrl.settings import group_config
from hpcddrl.types import EnvSpec

DONE, STOPPED_BY_SIGNAL = 0, 75
X = TypeVar("X")


class Start(NamedTuple):
    """What all ranks agree on before anything of the run is made, and this rank's part in it."""

    job: Config  # of all groups, with a fitted topology
    config: Config  # of this rank's group
    spec: EnvSpec
    places: tuple[Place, ...]
    hosts: list[str]  # of all ranks
    devices: Devices
    found: Resumed
    run: RunDirectory
    segment: int

    @property
    def frames_before(self) -> float:
        """Return the environment frames of earlier segments."""
        return self.found.start.account.get("frames", 0.0)


def run_job(config: Config, out: Path | None, resume: bool) -> int:
    """Run a job to its end and return the exit code: 0, or 75 after a signal.

    Collective over all ranks. Errors of the user's are found by all ranks together before anything is written.

    Raises:
        ValueError: the configuration cannot be run here; on every rank alike, in one line.
    """
    prepare_process()
    world, signals = MPI.COMM_WORLD, Signals()
    abort_on_exception(world.rank, None)
    start = _agreed(world, config, out, resume)
    with fatal_errors():
        display = _announced(world, start)
        trace = Trace(start.job.logging, world, start.places, start.hosts) if start.job.logging.trace else None
        rank, monitor = _rank(world, start, display, signals, trace)
        loop = _built(rank, start, display)
        _survive(rank, display)
        scalars = board.Board(start.run.path) if start.job.logging.tensorboard and monitor is not None else None
        loop()
        rank.control.close()
        code = _sum_up(rank, monitor, display)
        if scalars is not None:
            display.say(scalars.finish())
        if trace is not None and not rank.comms.world.gone:  # it is gathered from all
            trace.gather()
            if monitor is not None:
                display.say(trace.write(start.run.rank_file(start.segment, 0).parent))
        display.close()
        rank.comms.world.end(code)
    return code


def _agreed(world: MPI.Intracomm, config: Config, out: Path | None, resume: bool) -> Start:
    """Check on all ranks what is asked for, find what is resumed, and make the run's directory.

    Raises:
        ValueError: the configuration cannot be run here; on every rank alike, in one line.
    """
    given = world.bcast(agree(world, lambda: with_split(config, world.size) if world.rank == 0 else config))
    job, spec = agree(world, lambda: _checked(given, world.size, resume))
    places = place(job.topology)
    me = places[world.rank]
    abort_on_exception(world.rank, me)
    own = job if me.group is None else group_config(job, me.group)
    require_memory(world, socket.gethostname(), replay_bytes_of(own, spec, places, world.rank))
    seen = world.allgather(seen_here(own, spec, me))
    devices = agree(world, lambda: devices_of(job, spec, places, seen))[world.rank]
    found = Resumed()
    if resume:
        assert out is not None
        found = agree(world, lambda: restore(world, RunDirectory(out).restart, job, places))
    path, segment = agree(world, lambda: _directory(world, job, out, resume))
    return Start(job, own, spec, places, [there.host for there in seen], devices, found, RunDirectory(path), segment)


def _announced(world: MPI.Comm, start: Start) -> Display:
    """Say on rank 0 what will be run; return where the rest is said."""
    job, path = start.job, start.run.path
    display = Display(path / "run.log" if world.rank == 0 else None, job.budget, start.frames_before)
    display.say(f"hpcddrl {job.recipe} on {job.env.id}, {world.size} ranks, seed {job.seed}, in {path}")
    display.say(_budget_line(job, start.frames_before))
    display.placement(start.places, start.hosts)
    for line in start.found.lines:
        display.say(line)
    return display


def _rank(
    world: MPI.Intracomm, start: Start, display: Display, signals: Signals, trace: Trace | None
) -> tuple[Rank, Monitor | None]:
    """Make everything that a role is built from, and rank 0's monitor. Collective over ``world``."""
    config, places = start.config, start.places
    me, traffic, timing = places[world.rank], Traffic(), Timing(trace.recorder.span if trace is not None else None)
    returns, silent_after_s = most_returns(config.stages.detector), config.failures.silent_after_s
    counters = counters_for(start.spec.frame_skip, len(steppers(places)), returns)
    attributes = rank_attributes(
        config,
        role=str(me.role),
        group=-1 if me.group is None else me.group,
        world_rank=world.rank,
        world_size=world.size,
        env=game_of(config, places, world.rank),
        frames_before=start.frames_before,
    )
    log = RankLog(start.run.rank_file(start.segment, world.rank), attributes)
    comms = split(world, places, config.deterministic, None if trace is None else trace.recorder)
    monitor, roll, watch = None, None, None
    if world.rank == 0:
        detector = config.stages.detector
        watch = None if isinstance(detector, NoDetector) else Watch(detector, display.say)
        monitor = Monitor(
            comms.world,
            places,
            config.budget,
            config.deterministic,
            start.frames_before,
            config.logging.checkpoint_interval_s,
            display.show,
            display.say,
            silent_after_s,
            watch,
            returns,
            traffic,
        )
    else:
        roll = RollListener(comms.world, silent_after_s)
    interval_s = config.logging.interval_s
    told = comms.world, me, monitor, timing, counters, log, signals, interval_s, returns, traffic, roll
    control = Control(*told, stage_at=exact_stage(start.job))
    rank = Rank(
        config=config,
        job=start.job,
        spec=start.spec,
        comms=comms,
        places=places,
        control=control,
        traffic=traffic,
        run=start.run,
        files=Files(start.run.restart, _nodes(start.hosts), start.job.logging.keep_checkpoints),
        say=display.say,
        start=start.found.start,
        saved=start.found.saved,
        circle=Circle(comms.learners, comms.world, control.tick) if me.role is Role.LEARNER else None,
        devices=start.devices,
    )
    if watch is not None:
        rank.remember("stages", watch)
    return rank, monitor


def _built(rank: Rank, start: Start, display: Display) -> Callable[[], None]:
    """Choose what this rank computes with, and return its role's loop. Collective over the job."""
    rank.lines.extend(rank.devices.use())
    threads = use_threads(rank, start.hosts)
    rank = replace(rank, threads=threads.each, shares=threads.shares)
    rank.remember("counters", rank.control.counters)
    loop = build(with_choice(rank))
    if rank.saved is not None:
        rank.saved.clear()  # the parts have it; files that are no longer looked at take no memory
    for line in _said_once(rank.comms.world, rank.place, rank.lines):
        display.say(line)
    return loop


def agree(world: MPI.Comm, attempt: Callable[[], X]) -> X:
    """Run ``attempt`` on every rank; if it raises a ValueError on any, raise it on all. Collective over ``world``.

    Raises:
        ValueError: the first rank's complaint.
    """
    result, complaint = None, None
    try:
        result = attempt()
    except ValueError as error:
        complaint = str(error)
    complaints = [c for c in world.allgather(complaint) if c is not None]
    if complaints:
        raise ValueError(complaints[0])
    assert result is not None
    return result


def _checked(config: Config, ranks: int, resume: bool) -> tuple[Config, EnvSpec]:
    """Fit the layout, look at the environment and whether the network can; pure but for making one of each."""
    try:
        whole = fitted(config, ranks)
    except ValueError:
        if not resume:
            raise
        whole = refitted(config, ranks)
    if isinstance(whole.update, AllReduce) and (whole.topology.learners_per_group or 1) > 1:
        require(whole.update.backend)
    if whole.logging.tensorboard:
        board.require()
    return whole, checked(whole)


def _directory(world: MPI.Comm, config: Config, out: Path | None, resume: bool) -> tuple[Path, int]:
    """Make or reopen the run's directory on rank 0; return path and segment on every rank."""
    found: tuple[Path, int] | str
    if world.rank == 0:
        try:
            run = RunDirectory(out or default_path(config))
            if not resume:
                run.create(config)
            found = (run.path, run.start_segment(world.size))
        except (ValueError, OSError) as error:
            found = str(error)
    else:
        found = ""
    found = world.bcast(found)
    if isinstance(found, str):
        raise ValueError(found)
    return found


def _nodes(hosts: list[str]) -> tuple[int, ...]:
    """Number the nodes in the order in which ranks come to them; return each rank's."""
    numbers = {host: number for number, host in enumerate(dict.fromkeys(hosts))}
    return tuple(numbers[host] for host in hosts)


def _budget_line(config: Config, frames_before: float) -> str:
    budget, parts = config.budget, []
    if budget.frames is not None:
        parts.append(f"{si(budget.frames)} frames" + (f" ({si(frames_before)} done)" if frames_before else ""))
    if budget.seconds is not None:
        parts.append(f"{budget.seconds:g} s")
    if budget.target_return is not None:
        parts.append(f"mean return {budget.target_return:g}")
    return "ends at " + (" or ".join(parts) or "a signal")


def _said_once(world: MPI.Comm, me: Place, lines: list[str]) -> list[str]:
    """Return, on rank 0, what the ranks have to say of their parts; what several of a role say alike, once."""
    seen: dict[str, str] = {}
    for spoke, said in world.gather((me, lines)) or []:
        for line in said:
            seen.setdefault(f"{spoke.role}: {line.partition(' (')[0]}", f"{spoke.role}: {line}")
    return list(seen.values())


def _survive(rank: Rank, display: Display) -> None:
    """From now on do without ranks that die, where the launcher allows it. Collective over the job."""
    world = rank.comms.world
    world.begin(rank.control.log.path.with_name("failed"))
    if world.survives:
        end_on_exception(world.rank, rank.place, "this rank ends", world.leave_alone)
        display.say(
            "goes on without ranks that die, but for rank 0 and servers; a group ends with its leader, a replay or its "
            "last actor"
        )


def _sum_up(rank: Rank, monitor: Monitor | None, display: Display) -> int:
    """Let rank 0 write `summary.json` and print the shares from all ranks' reports; return the exit code everywhere."""
    control, counters = rank.control, rank.control.counters.vector()
    report: Report = {
        "role": str(rank.place.role),
        "device": rank.devices.name,
        "phases": {str(phase): seconds for phase, seconds in control.timing.totals().items()},
        "peak_rss_bytes": peak_resident_bytes(),
        "counters": counters.tolist(),
        "evaluation": {rank.played: control.evaluation} if control.evaluation else {},
    }

    def conclude(reports: dict[int, Report]) -> int:
        assert monitor is not None
        reason = monitor.reason
        view = monitor.settled({number: np.array(r.pop("counters")) for number, r in reports.items()})
        since_start = account(rank.start.account, view)
        in_order = [reports[number] for number in sorted(reports)]
        try:
            rank.run.write_summary(_summary(rank.job, view, in_order, reason) | {"since_start": since_start})
        except OSError as error:
            sys.stderr.write(f"hpcddrl: summary.json of {rank.run.path} is not written: {error}\n")
        display.shares(in_order)
        display.say(f"ended by {reason} after {view.seconds:.0f} s; open {rank.run.path / 'run.h5'}, summary.json")
        return STOPPED_BY_SIGNAL if reason.startswith("signal") else DONE

    with control.timing(Phase.WAIT):
        return part(rank.comms.world, report, conclude, rank.traffic)


def _summary(config: Config, view: View, reports: list[Report], reason: str) -> dict[str, Any]:
    def known(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    def of_roles(values: Callable[[list[Report]], Any]) -> dict[str, Any]:
        return {
            role: values([r for r in reports if r["role"] == role])
            for role in dict.fromkeys(r["role"] for r in reports)
        }

    seconds, ranks = view.seconds, range(len(view.places))
    lags = view.column("lag_mean")
    return {
        "recipe": config.recipe,
        "env": config.env.id,
        "seed": config.seed,
        "ranks": len(view.places),
        "frames": view.total("frames"),
        "env_steps": view.total("env_steps"),
        "updates": view.updates,
        "episodes": view.total("episodes"),
        "wall_s": seconds,
        "env_steps_per_s": view.total("env_steps") / seconds,
        "predictions_per_s": view.total("predictions") / seconds,
        "trained_samples_per_s": view.total("trained") / seconds,
        "transitions": {name: view.total(name) for name in ("trained", "used", "dropped", "pending", "replayed")}
        | view.produced_and_lost(),
        "return_mean": known(view.return_mean),
        "return_best": known(float(np.nanmax(view.column("return_best")))),
        "return_mean_per_env": {
            name: known(view.return_mean_of([r for r in ranks if game_of(config, view.places, r) == name]))
            for name in config.env.ids
        },
        "lag_mean": known(float(np.nanmean(lags))) if not np.isnan(lags).all() else None,
        "phase_share": phase_shares(reports),
        "devices": of_roles(lambda rs: sorted({r["device"] for r in rs})),
        "peak_rss_bytes": of_roles(lambda rs: max(r["peak_rss_bytes"] for r in rs)),
        "evaluation": {name: row for report in reports for name, row in report["evaluation"].items()},
        "lost_ranks": sorted(view.lost),
        "silent_ranks": sorted(view.silent),
        "env_restarts": view.total("restarts"),
        "exit_reason": reason,
        "ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
