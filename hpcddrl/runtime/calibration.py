"""From a run's files to a model of the same job at another size: what each rank's work takes, and its messages.

Times are those of the run's ranks, each simulated rank doing as one of the measured ones of its role. What changes
with the layout or with the sizes of batches changes in proportion; what the run's network or environments take is
taken as it is, so these must stay the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hpcddrl.comm.placement import Role
from hpcddrl.config import ActorCritic, CentralActing, Config, Ensemble, NoDetector, ParameterServer
from hpcddrl.logs.measured import Measured
from hpcddrl.logs.timing import Phase
from hpcddrl.networks.flat import TAIL
from hpcddrl.roles.counters import POLL_S
from hpcddrl.runtime.parts import rollouts_per_batch
from hpcddrl.runtime.plan import FLOAT, Job, flows, learner_steps_per_s, samples_per_step, updates_per_s
from hpcddrl.simulation.build import Scenario
from hpcddrl.simulation.cost import FREE, Cost, Machine, Work

REST = (Phase.LOG, Phase.CHECKPOINT, Phase.COMPRESS, Phase.PRETEXT, Phase.OTHER)
SAME = (
    *("env.id", "env.options", "env.frame_stack", "env.frame_skip", "network", "precision"),
    *("algorithm.kind", "acting.kind", "experience.kind", "update.kind", "coupling.kind"),
    *("stages.detector", "stages.early", "stages.middle"),
)


class Calibration(NamedTuple):
    """What a run tells of the work of each role."""

    job: Job  # the run's own
    work: dict[Role, tuple[Work, ...]]  # of each of its ranks
    frames_a_step: float  # environment frames that count in a step of one environment; steps that only reset have none
    frames_per_s: float  # of the run
    lag: float  # of the run, mean; NaN where there is none


def calibrate(job: Job, measured: Sequence[Measured]) -> Calibration:
    """Read what a run's ranks took; ``job`` is that run's.

    Raises:
        ValueError: ranks did too little to tell, or other work in each stage.
    """
    if not isinstance(job.config.stages.detector, NoDetector):
        raise ValueError(
            f"stages.detector.kind = {job.config.stages.detector.kind!r}: what work takes is told for a run that does "
            "the same throughout; simulate from one with stages.detector=none, stages.early=none and stages.middle=none"
        )
    idle = [m for m in measured if _events(job, m) <= 0]
    if idle:
        raise ValueError(
            f"rank {idle[0].rank}, {idle[0].role}, did nothing in the intervals that count; simulate from a longer run"
        )
    work = {role: tuple(_work(job, m, measured) for m in measured if m.role == role) for role in _roles(measured)}
    stepping = [m for m in measured if m.events[Phase.ENV]]
    steps = sum(m.counts["env_steps"] for m in stepping)
    of_all = sum(m.events[Phase.ENV] for m in stepping) * job.config.env.num_envs
    lags = [m.lag for m in measured if not math.isnan(m.lag)]
    return Calibration(
        job=job,
        work=work,
        frames_a_step=steps / of_all * job.spec.frame_skip,
        frames_per_s=sum(m.counts["env_steps"] / m.wall_s for m in stepping) * job.spec.frame_skip,
        lag=sum(lags) / len(lags) if lags else math.nan,
    )


def _roles(measured: Sequence[Measured]) -> set[Role]:
    return {Role(m.role) for m in measured}


def _events(job: Job, m: Measured) -> float:
    """Return how often a rank did what is the unit of most of its work (see `Work`)."""
    match Role(m.role):
        case Role.ACTOR:
            return m.events[Phase.ENV if isinstance(job.config.acting, CentralActing) else Phase.SEND]
        case Role.LEARNER:
            return m.events[Phase.GRADIENT]
        case Role.SERVER:
            return m.events[Phase.PUBLISH]
        case Role.REPLAY:
            return m.events[Phase.BATCH]


def cost(m: Measured, phases: Sequence[Phase], count: float) -> Cost:
    """Return what some phases of a rank took for each of ``count`` events, made of so many blocks each on average."""
    if count <= 0:
        return FREE
    total = FREE
    for phase in phases:
        seconds, blocks = m.seconds[phase], m.events[phase]
        scatter = max(0.0, m.squares[phase] - seconds**2 / blocks) if blocks > 1 else 0.0
        total += Cost(seconds / count, scatter / count)
    return total


def _work(job: Job, m: Measured, measured: Sequence[Measured]) -> Work:
    each, central = _events(job, m), isinstance(job.config.acting, CentralActing)
    steps, num_envs = m.events[Phase.ENV], job.config.env.num_envs
    cpu, env_cpu = _processor(m)
    work = Work(
        env=cost(m, [Phase.ENV], steps),
        act=cost(m, [Phase.ACT], steps),
        batch=cost(m, [Phase.BATCH], each),
        gradient=cost(m, [Phase.GRADIENT], each),
        reduce=cost(m, [Phase.REDUCE], each),
        update=cost(m, [Phase.UPDATE], each),
        publish=cost(m, [Phase.PUBLISH], each),
        send=cost(m, [Phase.SEND], each),
        refresh=cost(m, [Phase.REFRESH], each),
        collect=cost(m, [Phase.COLLECT], each),
        exchange=cost(m, [Phase.EXCHANGE], m.events[Phase.EXCHANGE]),
        rest=cost(m, REST, each),
        cpu=cpu,
        env_cpu=env_cpu,
    )
    if isinstance(job.config.algorithm, ActorCritic) and job.config.algorithm.rollouts_per_batch == "ready":
        rollouts = m.counts["trained"] / num_envs / job.config.algorithm.unroll_length
        work = work.with_costs(batch=cost(m, [Phase.BATCH], rollouts), gradient=cost(m, [Phase.GRADIENT], rollouts))
    match Role(m.role):
        case Role.LEARNER if central and job.actors:
            frames = m.counts["predictions"] / num_envs
            phases = {"act": Phase.ACT, "collect": Phase.COLLECT, "send": Phase.SEND}
            return work.with_costs(**{name: cost(m, [phase], frames) for name, phase in phases.items()})
        case Role.LEARNER if not job.actors:
            return work.with_costs(collect=cost(m, [Phase.COLLECT], steps / job.config.algorithm.unroll_length))
        case Role.SERVER:
            applied = m.events[Phase.UPDATE]
            return work.with_costs(update=cost(m, [Phase.UPDATE], applied), reduce=cost(m, [Phase.REDUCE], applied))
        case Role.REPLAY:
            holders = sum(other.role == Role.REPLAY for other in measured)
            rollouts = sum(other.messages.get("rollout", 0.0) for other in measured) / holders
            return work.with_costs(collect=cost(m, [Phase.COLLECT], rollouts))
        case _:
            return work


def _processor(m: Measured) -> tuple[float, float]:
    """Return the shares of processor time in a rank's work and in its environments' steps.

    The rank says only how much it had in all: work comes first, and what is left was the environments'.
    """
    env_s, cpu_s = m.seconds[Phase.ENV], max(0.0, m.cpu_s - m.wait_cpu_s)
    work_s = m.wall_s - env_s - m.seconds[Phase.WAIT]
    own_s = min(work_s, cpu_s)
    return own_s / work_s if work_s > 0 else 1.0, min(1.0, (cpu_s - own_s) / env_s) if env_s else 1.0


def scenario(known: Calibration, job: Job, machine: Machine) -> Scenario:
    """Return the model of a job whose work takes what it took in a run.

    Raises:
        ValueError: the run has nothing to tell of something that the job does.
    """
    _comparable(known.job.config, job.config)
    roles = {place.role for place in job.places}
    if roles != set(known.work):
        had, has = (", ".join(sorted(map(str, some))) for some in (known.work, roles))
        raise ValueError(
            f"the run had these roles: {had}; the job has these: {has}; what work takes is known of the same only; "
            "simulate from a run that has them"
        )
    if job.peers and not known.job.peers:
        raise ValueError("the run has one group, so what an exchange takes is not known; simulate from one with two")
    factors = _factors(known.job, job)
    reduces = _reduction(known, job, machine)
    return Scenario(
        config=job.config,
        rollouts=rollouts_per_batch(job.config, job.actors),
        nbytes=_nbytes(job),
        work={
            role: tuple(_scaled(w, factors[role], reduces if role is Role.LEARNER else None) for w in known.work[role])
            for role in roles
        },
        machine=machine,
        report_every_s=POLL_S,
    )


def _comparable(old: Config, new: Config) -> None:
    for name in SAME:
        before, after = old, new
        for part in name.split("."):
            before, after = getattr(before, part), getattr(after, part)
        if before != after:
            raise ValueError(
                f"{name} = {after!r}: the run was measured with {before!r}, and times are those of that; simulate from "
                "a run with the same"
            )


def _reduction(known: Calibration, job: Job, machine: Machine) -> Cost | None:
    """Return what an allreduce takes beside the network; None where servers make the updates.

    Where it was measured, the least that a learner spent, less the ring's own time: who comes last waits for nobody.
    Where it was not, nothing.
    """
    if isinstance(job.config.update, ParameterServer):
        return None
    if known.job.learners == 1:
        return FREE
    least = min((work.reduce for work in known.work[Role.LEARNER]), key=lambda spent: spent.mean)
    ring_s = machine.ring_s(known.job.learners, _nbytes(known.job)["allreduce"])
    return least.scaled(max(0.0, 1 - ring_s / least.mean)) if least.mean else FREE


def _scaled(work: Work, factors: Mapping[str, float], reduces: Cost | None) -> Work:
    costs = {name: getattr(work, name).scaled(factor) for name, factor in factors.items()}
    return work.with_costs(**costs, **({} if reduces is None else {"reduce": reduces}))


def _factors(old: Job, new: Job) -> dict[Role, dict[str, float]]:
    """Return how much longer the parts of each role's work take than in the run."""
    envs = new.config.env.num_envs / old.config.env.num_envs
    rollout = envs * new.config.algorithm.unroll_length / old.config.algorithm.unroll_length
    central = isinstance(new.config.acting, CentralActing)
    samples = _samples_per_update(new) / _samples_per_update(old)
    peers = max(1, new.peers) / max(1, old.peers)
    shard = new.shard / old.shard
    averaged = new.by_group(Role.LEARNER).size / old.by_group(Role.LEARNER).size
    collect = envs if central and new.actors else rollout
    learner = {"env": envs, "act": envs, "collect": collect, "send": envs if central else 1.0, "batch": samples}
    learner |= {"gradient": samples * _with_peers(new) / _with_peers(old), "exchange": peers}
    synchronous = isinstance(new.config.update, ParameterServer) and new.config.update.mode == "synchronous"
    drawn = {"batch": samples, "send": samples, "update": samples, "collect": rollout}
    return {
        Role.ACTOR: {"env": envs, "act": envs, "collect": collect, "send": envs if central else 1.0},
        Role.LEARNER: learner,
        Role.SERVER: {"update": shard, "publish": shard, "reduce": shard * (averaged if synchronous else 1.0)},
        Role.REPLAY: drawn,
    }


def _samples_per_update(job: Job) -> float:
    return learner_steps_per_s(job, 1.0) * samples_per_step(job.config) / updates_per_s(job, 1.0)


def _with_peers(job: Job) -> float:
    """Return a gradient's time with the peers' forward passes, in gradients: a pass takes a third of one."""
    coupling = job.config.coupling
    return 1 + job.peers / 3 / coupling.evaluate_every if isinstance(coupling, Ensemble) else 1.0


def _nbytes(job: Job) -> dict[str, float]:
    """Return the size of each kind of message; what servers send is a ``shard``."""
    found = {}
    for flow in flows(job, 1.0):
        from_server = flow.kind == "weights" and job.places[flow.senders[0]].role is Role.SERVER
        found["shard" if from_server else flow.kind] = float(flow.nbytes)
    return {**found, "allreduce": float(FLOAT * (job.parameters + TAIL))}
