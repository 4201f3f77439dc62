"""What no run can be: each rule is a condition and the complaint, with fields, values, the rule and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hpcddrl.config.acting import CentralActing
from hpcddrl.config.algorithm import ActorCritic, ClippedSurrogate, QLearning
from hpcddrl.config.compression import Auto, ShareOfTime, Uncompressed, Whole, candidates_of, trigger_of
from hpcddrl.config.coupling import Averaging, CyclicBeta, Ensemble, Population
from hpcddrl.config.experience import Hindsight, Replay
from hpcddrl.config.helpers import AtFrames, Pretext, RolloutReplay, WithStage
from hpcddrl.config.stages import NoDetector
from hpcddrl.config.update import ParameterServer

if TYPE_CHECKING:
    from hpcddrl.config.run import Config

Rules = Iterator[tuple[bool, str]]


def rules(config: Config) -> Rules:
    """Yield every rule: whether it is broken, and the complaint."""
    yield from _layout(config)
    yield from _groups(config)
    yield from _updates(config)
    yield from _acting(config)
    yield from _passes(config)
    yield from _replay(config)
    yield from _coupling(config)
    yield from _compression(config)
    yield from _stages(config)
    yield from _determinism(config)


def _layout(config: Config) -> Rules:
    topology, update = config.topology, config.update
    several = topology.learners_per_group != 1  # unset: as many as there are ranks for
    yield (
        (update.kind == "server") != (topology.servers > 0),
        f"topology.servers = {topology.servers} with update.kind = {update.kind!r}: "
        "a server update needs server ranks and nothing else does; set both",
    )
    yield (
        several and update.kind != "allreduce",
        f"topology.learners_per_group = {topology.learners_per_group} with update.kind = {update.kind!r}: learners of "
        "one group must reduce; set update=allreduce",
    )
    yield (
        several and config.acting.kind == "central",
        f"acting.kind = 'central' with topology.learners_per_group = {topology.learners_per_group}: use one learner "
        "a group",
    )


def _groups(config: Config) -> Rules:
    servers = config.topology.servers
    yield (
        len(config.group_settings) > 0 and servers > 0,
        f"group_settings with topology.servers = {servers}: servers hold one network for all groups; set update=local "
        "or update=allreduce",
    )


def _updates(config: Config) -> Rules:
    server = config.update if isinstance(config.update, ParameterServer) else ParameterServer()
    alone = server.compensation.kind != "none" or (server.max_staleness, server.max_loss_deviations) != (None, None)
    yield (
        server.mode == "synchronous" and alone,
        "update.mode = 'synchronous': no gradient is stale, and none is applied or refused alone; leave "
        "update.compensation, update.max_staleness and update.max_loss_deviations unset",
    )
    yield (
        config.optimization.decay == "linear" and config.budget.frames is None,
        "optimization.decay = 'linear' needs budget.frames: give --frames",
    )


def _acting(config: Config) -> Rules:
    acting, algorithm, actors = config.acting, config.algorithm, config.topology.actors_per_group
    if not isinstance(acting, CentralActing):
        wanted = algorithm.rollouts_per_batch if isinstance(algorithm, ActorCritic) else 1
        yield (
            wanted == "ready",
            "algorithm.rollouts_per_batch = 'ready' with acting.kind = 'local': only a learner that acts knows how "
            "many rollouts there are; give a number, or set acting=central and acting.minimum",
        )
        return
    lockstep = acting.minimum == "all"
    if isinstance(algorithm, QLearning):
        yield (
            algorithm.exploration.kind == "spread",
            "algorithm.exploration.kind = 'spread' with acting.kind = 'central': whose turn it is varies, so no "
            "environment can keep an ε of its own; set algorithm.exploration=linear or acting=local",
        )
        yield (
            acting.reuse_forward,
            "acting.reuse_forward = True with algorithm.kind = 'q_learning': it learns from what was acted long ago; "
            "set acting.reuse_forward=false",
        )
        return
    yield (
        acting.reuse_forward and not lockstep,
        f"acting.reuse_forward = True with acting.minimum = {acting.minimum}: the weights that act must be those that "
        "learn, for all actors at once; set acting.minimum=all",
    )
    yield (
        acting.reuse_forward and isinstance(algorithm.surrogate, ClippedSurrogate),
        "acting.reuse_forward = True with algorithm.surrogate.kind = 'clipped': one forward pass cannot serve "
        "several updates; leave one away",
    )
    wanted = algorithm.rollouts_per_batch
    yield (
        wanted == "ready" and lockstep,
        "algorithm.rollouts_per_batch = 'ready' with acting.minimum = all: in lockstep all rollouts are full at once; "
        "give a number",
    )
    yield (
        isinstance(wanted, int) and not lockstep and 0 < (actors or wanted) < wanted,
        f"algorithm.rollouts_per_batch = {wanted}: more than the {actors} actors of a group can deliver, since each "
        "waits until its rollout has been learned from; set less, or algorithm.rollouts_per_batch=ready",
    )


def _passes(config: Config) -> Rules:
    algorithm, actors = config.algorithm, config.topology.actors_per_group
    if not isinstance(algorithm, ActorCritic) or not isinstance(algorithm.surrogate, ClippedSurrogate):
        return
    wanted, minibatches = algorithm.rollouts_per_batch, algorithm.surrogate.minibatches
    lockstep = isinstance(config.acting, CentralActing) and config.acting.minimum == "all"
    rollouts = 1 if actors == 0 or wanted == "ready" else wanted
    if lockstep and actors != 0:
        rollouts = actors or minibatches  # unset: not known yet
    yield (
        minibatches > rollouts * config.env.num_envs,
        f"algorithm.surrogate.minibatches = {minibatches} with env.num_envs = {config.env.num_envs} and {rollouts} "
        "rollouts in a batch: each minibatch needs an environment; set fewer, or more of these",
    )


def _replay(config: Config) -> Rules:
    topology, replay, algorithm = config.topology, config.experience, config.algorithm
    replays, actors, learners = topology.replays_per_group, topology.actors_per_group, topology.learners_per_group
    yield (
        isinstance(replay, Replay) != isinstance(algorithm, QLearning),
        f"algorithm.kind = {algorithm.kind!r} with experience.kind = {replay.kind!r}: actor_critic learns from fresh "
        "rollouts, q_learning from a replay; set experience=fresh or experience=replay",
    )
    if not isinstance(replay, Replay):
        yield (
            replays > 0,
            f"topology.replays_per_group = {replays} with experience.kind = {replay.kind!r}: replay ranks need "
            "experience=replay",
        )
        return
    yield (
        replays > 0 and config.acting.kind == "central",
        f"topology.replays_per_group = {replays} with acting.kind = 'central': a learner that acts has the rollouts "
        "already; set topology.replays_per_group=0",
    )
    yield (
        replays > 0 and actors is not None and actors < replays,
        f"topology.replays_per_group = {replays} with topology.actors_per_group = {actors}: each replay rank is filled "
        "by actors of its own; give the group more of these",
    )
    yield (
        replays == 0 and 0 < (actors or 0) < (learners or 1),
        f"topology.actors_per_group = {actors} with topology.learners_per_group = {learners}: each learner's replay is "
        "filled by actors of its own; give the group more of these, or none",
    )
    yield (
        replay.learning_starts > replay.capacity,
        f"experience.learning_starts = {replay.learning_starts}: more than the experience.capacity = "
        f"{replay.capacity} can ever hold; set less",
    )
    yield (
        replay.batch_size > replay.learning_starts,
        f"experience.batch_size = {replay.batch_size}: more than the experience.learning_starts = "
        f"{replay.learning_starts} transitions that are there at first; set more of these, or a smaller batch",
    )
    yield from _hindsight(config, replay)


def _hindsight(config: Config, replay: Replay) -> Rules:
    if not isinstance(replay.hindsight, Hindsight):
        return
    kind, env = replay.hindsight.kind, config.env
    yield (
        env.reward not in ("raw", "clip"),
        f"env.reward = {env.reward!r} with experience.hindsight.kind = {kind!r}: a reward is computed again under "
        "another goal, long after the running deviation it was divided by; set env.reward=raw or env.reward=clip",
    )
    yield (
        len(env.ids) > 1,
        f"env.id = {env.id!r} with experience.hindsight.kind = {kind!r}: one environment says what goals are worth; "
        "name one, or set experience.hindsight=none",
    )


def _coupling(config: Config) -> Rules:
    coupling, update, groups = config.coupling, config.update.kind, config.topology.groups
    if isinstance(coupling, Ensemble):
        yield from _ensemble(coupling)
    yield from _returns(config)
    if isinstance(coupling, Ensemble | Averaging | Population):
        yield (
            coupling.topology != "all_to_all" and groups == 2,
            f"coupling.topology = {coupling.topology!r} with topology.groups = 2: of two, all hear all; start three "
            "groups or more, or set coupling.topology=all_to_all",
        )
    yield (
        coupling.kind in ("averaging", "population") and update == "server",
        f"coupling.kind = {coupling.kind!r} with update.kind = 'server': groups have the server's weights already; set "
        "coupling=uncoupled",
    )
    yield (
        coupling.kind == "teacher" and isinstance(config.algorithm, QLearning),
        "coupling.kind = 'teacher' with algorithm.kind = 'q_learning': only a policy can be taught; set "
        "coupling=uncoupled or algorithm=actor_critic",
    )


def _ensemble(ensemble: Ensemble) -> Rules:
    every, schedule = ensemble.exchange_every, ensemble.schedule
    yield (
        ensemble.max_age is not None and ensemble.max_age <= every,
        f"coupling.max_age = {ensemble.max_age}: weights that come every coupling.exchange_every = {every} updates "
        "would all be dropped; set more",
    )
    yield (
        isinstance(schedule, CyclicBeta) and schedule.updates >= every,
        f"coupling.schedule.updates = {getattr(schedule, 'updates', None)}: with coupling.exchange_every = {every} no "
        "updates are left to learn alone; set less, or coupling.schedule=constant",
    )


def _returns(config: Config) -> Rules:
    """Yield the rules about what a learner can see of its group's returns, and whether groups can compare them."""
    coupling, reward = config.coupling, config.env.reward
    compares, asks, instead = "", "", ""
    if isinstance(coupling, Population):
        compares = asks = "coupling.kind = 'population'"
        instead = "coupling=ensemble"
    elif isinstance(coupling, Ensemble) and coupling.mixing.kind == "best_group":
        compares = asks = "coupling.mixing.kind = 'best_group'"
        instead = "coupling.mixing=softmax"
    elif isinstance(coupling, Ensemble) and coupling.schedule.kind == "plateau":
        asks, instead = "coupling.schedule.kind = 'plateau'", "coupling.schedule=warmup"
    atari = all(name.startswith("ALE/") for name in config.env.ids)
    yield (
        compares != "" and (reward == "normalise" or (reward == "auto" and not atari)),
        f"{compares} with env.reward = {reward!r}: each rank would scale its own, and returns could not be compared; "
        "set env.reward=raw or env.reward=clip",
    )
    yield (
        asks != "" and isinstance(config.algorithm, QLearning),
        f"{asks} with algorithm.kind = 'q_learning': what a replay draws does not tell the returns of now; set "
        f"{instead}",
    )


def _compression(config: Config) -> Rules:
    compression = config.compression
    if isinstance(compression, Uncompressed):
        return
    yield (
        isinstance(config.acting, CentralActing) and config.acting.reuse_forward,
        f"compression.kind = {compression.kind!r} with acting.reuse_forward = True: the forward passes that act are "
        "not the learner's own; set acting.reuse_forward=false",
    )
    yield (
        config.deterministic and isinstance(compression, Auto),
        "deterministic = True with compression.kind = 'auto': a choice by the clock is not repeatable; set the "
        "compression that it would choose",
    )
    for candidate in candidates_of(compression):
        where = "compression" if isinstance(candidate, Whole) else "compression.distillation"
        yield (
            config.deterministic and isinstance(trigger_of(candidate), ShareOfTime),
            f"deterministic = True with {where}.trigger.kind = 'share': a choice by the clock is not repeatable; set "
            f"{where}.trigger=every or kl",
        )
        yield (
            config.deterministic and not isinstance(candidate, Whole) and candidate.distillation.beside,
            "deterministic = True with compression.distillation.beside = True: when a thread is through is chance; "
            "set compression.distillation.beside=false",
        )


def _stages(config: Config) -> Rules:
    detector, early = config.stages.detector, config.stages.early
    if isinstance(early, Pretext):
        yield (
            isinstance(detector, NoDetector) and isinstance(early.ends, WithStage),
            "stages.early.ends.kind = 'stage' with stages.detector.kind = 'none': nobody says when the early stage is "
            "over; set stages.detector=detected, or stages.early.ends=plateau or frames",
        )
        yield (
            isinstance(early.ends, AtFrames) and early.alone_frames > early.ends.frames,
            f"stages.early.alone_frames = {early.alone_frames:g}: more than stages.early.ends.frames = "
            f"{getattr(early.ends, 'frames', 0):g}, where the task ends; set less",
        )
    if isinstance(config.stages.middle, RolloutReplay):
        yield from _rollout_replay(config)


def _rollout_replay(config: Config) -> Rules:
    detector, algorithm = config.stages.detector, config.algorithm
    name = "stages.middle.kind = 'replay'"
    yield (
        isinstance(detector, NoDetector),
        f"{name} with stages.detector.kind = 'none': nobody says when the middle stage begins; set "
        "stages.detector=detected, by_return or by_frames",
    )
    if isinstance(algorithm, QLearning):
        yield True, f"{name} with algorithm.kind = 'q_learning': it has a replay already; set stages.middle=none"
        return
    yield (
        algorithm.correction != "vtrace",
        f"{name} with algorithm.correction = {algorithm.correction!r}: rollouts of older policies need V-trace; set "
        "algorithm.correction=vtrace",
    )
    yield (
        isinstance(algorithm.surrogate, ClippedSurrogate),
        f"{name} with algorithm.surrogate.kind = 'clipped': its passes learn from each batch again already; set "
        "stages.middle=none",
    )


def _determinism(config: Config) -> Rules:
    if not config.deterministic:
        return
    acting, topology = config.acting, config.topology
    yield (
        not isinstance(config.stages.detector, NoDetector),
        f"deterministic = True with stages.detector.kind = {config.stages.detector.kind!r}: which episodes are known "
        "when is chance; set stages.detector=none",
    )
    yield (
        isinstance(acting, CentralActing) and acting.minimum != "all",
        f"deterministic = True with acting.minimum = {getattr(acting, 'minimum', None)}: who is ready first is "
        "chance; set acting.minimum=all",
    )
    yield (
        topology.replays_per_group > 0,
        f"deterministic = True with topology.replays_per_group = {topology.replays_per_group}: what a replay rank "
        "holds when it is asked is chance; set topology.replays_per_group=0",
    )
    yield (
        isinstance(config.experience, Replay) and acting.kind == "local" and topology.actors_per_group != 0,
        "deterministic = True with experience.kind = 'replay': how far actors are ahead of a learner that draws "
        "from a replay is chance; set topology.actors_per_group=0",
    )
    yield (
        isinstance(getattr(config.algorithm, "surrogate", None), ClippedSurrogate)
        and acting.kind == "local"
        and topology.actors_per_group != 0,
        "deterministic = True with algorithm.surrogate.kind = 'clipped': which of a batch's updates an actor gets the "
        "weights of is chance; set topology.actors_per_group=0",
    )
    yield (
        config.budget.frames is None,
        "deterministic = True needs budget.frames, the only exact place to stop: give --frames",
    )
