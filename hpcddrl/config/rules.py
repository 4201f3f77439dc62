"""What no run can be: each rule is a condition and the complaint, with fields, values, the rule and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcddrl.config.acting import CentralActing
from hpcddrl.config.acting_rules import acting_rules, minibatch_rules
from hpcddrl.config.algorithm import ClippedSurrogate, QLearning
from hpcddrl.config.compression import Auto, ShareOfTime, Uncompressed, Whole, candidates_of, trigger_of
from hpcddrl.config.coupling_rules import coupling_rules
from hpcddrl.config.experience import Hindsight, NoHindsight, Replay
from hpcddrl.config.fields import Rules
from hpcddrl.config.helpers import AtFrames, LateEnsemble, Pretext, RolloutReplay, WithStage
from hpcddrl.config.stages import NoDetector, StagesByFrames
from hpcddrl.config.update import ParameterServer

if TYPE_CHECKING:
    from hpcddrl.config.run import Config


def rules(config: Config) -> Rules:
    """Yield every rule: whether it is broken, and the complaint."""
    yield from _layout(config)
    yield from _split(config)
    yield from _groups(config)
    yield from _updates(config)
    yield from acting_rules(config)
    yield from minibatch_rules(config)
    yield from _replay(config)
    yield from coupling_rules(config)
    yield from _compression(config)
    yield from _devices(config)
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


def _split(config: Config) -> Rules:
    topology, update, experience = config.topology, config.update, config.experience
    if topology.split == "given":
        return
    yield (
        update.kind != "allreduce" or config.acting.kind == "central" or isinstance(experience, Replay),
        f"topology.split = 'auto' with update.kind = {update.kind!r}, acting.kind = {config.acting.kind!r} and "
        f"experience.kind = {experience.kind!r}: any number of ranks must be able to learn, from rollouts of actors or "
        "of their own; set update=allreduce, acting=local and experience=fresh, or topology.split=given",
    )
    yield (
        len(config.group_settings) > 0,
        "topology.split = 'auto' with group_settings: groups that differ would be split differently; set "
        "topology.split=given",
    )
    yield (
        config.deterministic,
        "deterministic = True with topology.split = 'auto': what is fastest is told by the clock; set "
        "topology.split=given",
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
    yield from _hindsight(config, replay.hindsight, "experience.hindsight")


def _hindsight(config: Config, hindsight: Hindsight | NoHindsight, where: str) -> Rules:
    if not isinstance(hindsight, Hindsight):
        return
    kind, env = hindsight.kind, config.env
    yield (
        env.reward not in ("raw", "clip"),
        f"env.reward = {env.reward!r} with {where}.kind = {kind!r}: a reward is computed again under "
        "another goal, long after the running deviation it was divided by; set env.reward=raw or env.reward=clip",
    )
    yield (
        len(env.ids) > 1,
        f"env.id = {env.id!r} with {where}.kind = {kind!r}: one environment says what goals are worth; "
        f"name one, or set {where}=none",
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
        entropy = 0.0 if isinstance(candidate, Whole) else candidate.distillation.entropy_coefficient
        yield (
            isinstance(config.algorithm, QLearning) and entropy > 0,
            f"compression.distillation.entropy_coefficient = {entropy:g} with algorithm.kind = 'q_learning': action "
            "values have no policy whose entropy could be raised; set it to 0",
        )
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


def _devices(config: Config) -> Rules:
    device, acting, actors = config.device, config.acting, config.topology.actors_per_group or 0
    yield (
        device.inference == "cuda" and not isinstance(acting, CentralActing) and actors > 0,
        f"device.inference = 'cuda' with acting.kind = {acting.kind!r}: actors choose their actions on cores; set "
        "device.inference=auto or acting=central",
    )
    yield (
        device.inference == "cuda" and not isinstance(config.compression, Uncompressed),
        f"device.inference = 'cuda' with compression.kind = {config.compression.kind!r}: compressed networks act on "
        "cores; set device.inference=auto or compression=uncompressed",
    )
    yield (
        isinstance(acting, CentralActing) and acting.reuse_forward and device.inference not in ("auto", device.learner),
        f"device.inference = {device.inference!r} with device.learner = {device.learner!r} and acting.reuse_forward = "
        "True: it learns from the forward passes that acted; set device.inference=auto",
    )
    for role, wanted in (("learner", device.learner), ("inference", device.inference)):
        yield (
            config.deterministic and wanted == "cuda",
            f"deterministic = True with device.{role} = 'cuda': in which order a GPU sums is chance; set "
            f"device.{role}=cpu",
        )


def _stages(config: Config) -> Rules:
    detector, early, algorithm = config.stages.detector, config.stages.early, config.algorithm
    if isinstance(early, Pretext):
        yield (
            early.task.kind == "next_frame" and isinstance(algorithm, QLearning) and algorithm.n_step > 1,
            f"stages.early.task.kind = 'next_frame' with algorithm.n_step = {getattr(algorithm, 'n_step', 1)}: what "
            "follows in the replay is the frame after so many actions, of which only the first is known; set "
            "algorithm.n_step=1 or another stages.early.task",
        )
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
        yield from _hindsight(config, config.stages.middle.hindsight, "stages.middle.hindsight")
    if isinstance(config.stages.late, LateEnsemble):
        yield from _late_ensemble(config)


def _late_ensemble(config: Config) -> Rules:
    update, name = config.update, "stages.late.kind = 'ensemble'"
    yield (
        isinstance(config.stages.detector, NoDetector),
        f"{name} with stages.detector.kind = 'none': nobody says when the late stage begins; set "
        "stages.detector=detected or by_frames",
    )
    yield (
        not isinstance(update, ParameterServer),
        f"{name} with update.kind = {update.kind!r}: groups have weights of their own all along; set "
        "coupling=ensemble and coupling.schedule=plateau instead, or update=server",
    )
    yield (
        isinstance(update, ParameterServer) and update.mode == "synchronous",
        f"{name} with update.mode = 'synchronous': learners whose gradients are averaged cannot go on apart; set "
        "update.mode=asynchronous",
    )
    yield (
        isinstance(config.algorithm, QLearning),
        f"{name} with algorithm.kind = 'q_learning': the one model learns a policy; set algorithm=actor_critic or "
        "stages.late=none",
    )
    yield (
        config.coupling.kind != "uncoupled",
        f"{name} with coupling.kind = {config.coupling.kind!r}: learners hear one kind of others; set "
        "coupling=uncoupled or stages.late=none",
    )
    yield (
        config.stages.late.kind == "ensemble"
        and config.stages.late.topology != "all_to_all"
        and config.topology.groups == 2,
        f"stages.late.topology = {getattr(config.stages.late, 'topology', None)!r} with topology.groups = 2: of two, "
        "all hear all; start three groups or more, or set stages.late.topology=all_to_all",
    )


def _rollout_replay(config: Config) -> Rules:
    detector, algorithm = config.stages.detector, config.algorithm
    name = "stages.middle.kind = 'replay'"
    yield (
        isinstance(detector, NoDetector),
        f"{name} with stages.detector.kind = 'none': nobody says when the middle stage begins; set "
        "stages.detector=detected or by_frames",
    )
    if isinstance(algorithm, QLearning):
        yield True, f"{name} with algorithm.kind = 'q_learning': it has a replay already; set stages.middle=none"
        return
    middle = config.stages.middle
    yield (
        isinstance(middle, RolloutReplay) and middle.held_by == "server" and config.topology.servers == 0,
        f"stages.middle.held_by = 'server' with topology.servers = {config.topology.servers}: there is none; set "
        "stages.middle.held_by=learner, or update=server and topology.servers=1",
    )
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
        not isinstance(config.stages.detector, NoDetector | StagesByFrames),
        f"deterministic = True with stages.detector.kind = {config.stages.detector.kind!r}: which episodes are known "
        "when is chance; set stages.detector=by_frames or none",
    )
    yield (
        isinstance(config.stages.late, LateEnsemble),
        "deterministic = True with stages.late.kind = 'ensemble': how far learners that go on apart have come when "
        "they hear each other is chance; set stages.late=none",
    )
    yield (
        isinstance(config.stages.middle, RolloutReplay) and acting.kind == "local" and topology.actors_per_group != 0,
        "deterministic = True with stages.middle.kind = 'replay': how far actors are ahead of a learner that draws "
        "from a replay is chance; set topology.actors_per_group=0",
    )
    yield (
        isinstance(config.stages.middle, RolloutReplay) and config.stages.middle.held_by == "server",
        "deterministic = True with stages.middle.held_by = 'server': whose rollouts come there first is chance; set "
        "stages.middle.held_by=learner",
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
