"""From a configuration to simulated ranks and their channels, as `runtime.build` makes the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpcddrl.comm.placement import Role, dealt
from hpcddrl.config import (
    ActorCritic,
    AllReduce,
    CentralActing,
    ClippedSurrogate,
    Config,
    Ensemble,
    ParameterServer,
    Replay,
)
from hpcddrl.simulation.actors import Inbox, Publisher, actor, remote_actor
from hpcddrl.simulation.cost import Machine, Work
from hpcddrl.simulation.feeds import Central, Feed, Inline, Queue
from hpcddrl.simulation.learners import Learner, LocalUpdate, Server, ServerUpdate, Update, exchange, nothing
from hpcddrl.simulation.messages import Channel, Meeting
from hpcddrl.simulation.sources import Fresh, Pace, RemoteReplay, Replayed, Source, replay_rank
from hpcddrl.simulation.world import Rank, Run, World


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A job to simulate."""

    config: Config  # fitted
    rollouts: int  # of a batch
    nbytes: Mapping[str, float]  # of a message, by its tag's name; "shard": a server's weights; "allreduce": the vector
    work: Mapping[Role, Sequence[Work]]  # of some ranks of each role; others are as these, in turn
    machine: Machine
    report_every_s: float  # rank 0 looks at all ranks

    @property
    def ranks(self) -> int:
        """Return how many there are."""
        topology = self.config.topology
        group = (topology.learners_per_group or 0) + topology.replays_per_group + (topology.actors_per_group or 0)
        return topology.servers + (topology.groups or 0) * group

    def rank(self, world: World, role: Role, tests: int) -> Rank:
        """Make the next rank of a role; it looks at so many buffers in each poll."""
        measured = self.work[role]
        world.made[role] += 1
        return Rank(world, role, measured[(world.made[role] - 1) % len(measured)], tests)


class Servers:
    """The server ranks of a job, if it has any."""

    def __init__(self, world: World, scenario: Scenario) -> None:
        topology, update = scenario.config.topology, scenario.config.update
        learners = (topology.groups or 0) * (topology.learners_per_group or 0)
        self._together = isinstance(update, ParameterServer) and update.mode == "synchronous"
        self._asks = isinstance(update, ParameterServer) and (
            update.max_staleness is not None or update.max_loss_deviations is not None
        )
        self._nbytes, self._world = scenario.nbytes, world
        self.ranks = [scenario.rank(world, Role.SERVER, learners) for _ in range(topology.servers)]
        self._gradients: dict[Rank, Channel[int]] = {
            rank: Channel("gradient", rank, scenario.nbytes["gradient"], posted=1) for rank in self.ranks
        }
        self._answers: dict[Rank, Channel[int]] = {}

    def update(self, learner: Rank) -> Update:
        """Return how a learner's gradients become weights here."""
        self._answers[learner] = Channel("weights", learner, self._nbytes["shard"], posted=1)
        return ServerUpdate(learner, self._gradients, self._answers[learner], self._asks)

    def start(self) -> None:
        """Start to serve, when every learner is known."""
        for rank in self.ranks:
            server = Server(rank, self._gradients[rank], self._answers, self._together)
            self._world.clock.process(server.run())


class Group:
    """The ranks of one group; made, they run."""

    def __init__(self, world: World, scenario: Scenario, servers: Servers) -> None:
        self._world, self._scenario, self._servers, self._config = world, scenario, servers, scenario.config
        topology = self._config.topology
        learners, actors, replays = (
            topology.learners_per_group or 0,
            topology.actors_per_group or 0,
            topology.replays_per_group,
        )
        self._central = isinstance(self._config.acting, CentralActing)
        fed = actors if not replays else 0
        asked = 0 if self._central else -(-actors // learners)
        self.learners = [scenario.rank(world, Role.LEARNER, fed + asked + replays) for _ in range(learners)]
        self.replays = [
            scenario.rank(world, Role.REPLAY, len(dealt(range(actors), n, replays)) + learners) for n in range(replays)
        ]
        self.actors = [scenario.rank(world, Role.ACTOR, 1) for _ in range(actors)]
        self._length = self._config.algorithm.unroll_length
        self._publishers = [Publisher(rank, self._nbytes("pull")) for rank in self.learners]
        self._start_learners()

    @property
    def steppers(self) -> list[Rank]:
        """Return the ranks that step environments."""
        return self.actors or self.learners

    def by_role(self, role: Role) -> list[Rank]:
        """Return the ranks of a role."""
        return {Role.LEARNER: self.learners, Role.REPLAY: self.replays, Role.ACTOR: self.actors}[role]

    def _nbytes(self, kind: str) -> float:
        return self._scenario.nbytes.get(kind, 0.0)

    def _start_learners(self) -> None:
        several = len(self.learners) > 1
        ring_s = self._scenario.machine.ring_s(len(self.learners), self._nbytes("allreduce"))
        reduction = Meeting(len(self.learners), ring_s) if several and not self._servers.ranks else None
        telling = Meeting(len(self.learners), self._telling_s()) if several and self._peers else None
        sources = self._sources()
        overlap = isinstance(self._config.update, AllReduce) and self._config.update.overlap
        for number, rank in enumerate(self.learners):
            update = self._servers.update(rank) if self._servers.ranks else LocalUpdate(rank, reduction, overlap)
            publish, tell = self._publishers[number].serve, self._exchange(number, telling)
            loop = Learner(rank, sources[number], self._scenario.rollouts, update, publish, tell)
            self._world.clock.process(loop.run())

    @property
    def _peers(self) -> int:
        return (self._config.topology.groups or 1) - 1 if isinstance(self._config.coupling, Ensemble) else 0

    def _telling_s(self) -> float:
        """Return what it takes a leader to hand on what the peers sent, one broadcast each."""
        machine = self._scenario.machine
        return self._peers * (machine.latency_s + self._nbytes("exchange") / machine.bandwidth)

    def _exchange(self, number: int, telling: Meeting | None) -> Callable[[int], Run]:
        coupling = self._config.coupling
        if not isinstance(coupling, Ensemble) or not self._peers:
            return nothing
        messages = self._peers if number == 0 else 0
        return exchange(self.learners[number], coupling.exchange_every, messages, self._nbytes("exchange"), telling)

    def _sources(self) -> list[Source]:
        """Make the learners' sources, and start actors and replays."""
        experience = self._config.experience
        if self.replays:
            assert isinstance(experience, Replay)
            return self._remote(experience)
        if not self.actors:
            feeds: list[Feed] = [Inline(rank, self._length) for rank in self.learners]
        elif self._central:
            feeds = [self._central_feed()]
        else:
            feeds = self._queues(isinstance(experience, Replay))
        if isinstance(experience, Replay):
            return [Replayed(feed, self._pace(experience)) for feed in feeds]
        algorithm = self._config.algorithm
        surrogate = algorithm.surrogate if isinstance(algorithm, ActorCritic) else None
        passes = surrogate.epochs * surrogate.minibatches if isinstance(surrogate, ClippedSurrogate) else 1
        return [Fresh(feed, passes) for feed in feeds]

    def _pace(self, experience: Replay) -> Pace:
        return Pace(experience, self._length * self._config.env.num_envs)

    def _queues(self, replayed: bool) -> list[Feed]:
        """Let every actor deal its rollouts to all learners in turn; to one of them, where they join a replay."""
        count = len(self.learners)
        posted = -(-self._scenario.rollouts // len(self.actors))
        channels: list[Channel[int]] = [
            Channel("rollout", rank, self._nbytes("rollout"), posted) for rank in self.learners
        ]
        for number, rank in enumerate(self.actors):
            self._start_actor(number, rank, [channels[number % count]] if replayed else channels)
        return [
            Queue(rank, channel, self._scenario.rollouts, not replayed, publisher)
            for rank, channel, publisher in zip(self.learners, channels, self._publishers, strict=True)
        ]

    def _start_actor(self, number: int, rank: Rank, receivers: Sequence[Channel[int]]) -> None:
        inbox = Inbox(rank, self._publishers[number % len(self.learners)], self._nbytes("weights"))
        self._world.clock.process(actor(rank, inbox, receivers, self._length))

    def _central_feed(self) -> Central:
        (learner,) = self.learners
        config, frames = self._config, Channel[None]("frames", learner, self._nbytes("frames"), posted=1)
        actions = {rank: Channel[None]("actions", rank, self._nbytes("actions"), posted=1) for rank in self.actors}
        for rank in self.actors:
            self._world.clock.process(remote_actor(rank, frames, actions[rank]))
        assert isinstance(config.acting, CentralActing)
        ready = isinstance(config.algorithm, ActorCritic) and config.algorithm.rollouts_per_batch == "ready"
        minimum = len(self.actors) if config.acting.minimum == "all" else min(config.acting.minimum, len(self.actors))
        return Central(learner, frames, actions, self._length, self._scenario.rollouts, ready, minimum)

    def _remote(self, experience: Replay) -> list[Source]:
        """Let actors deal their rollouts to replay ranks, and those draw samples for the learners."""
        samples = {rank: Channel[None]("sample", rank, self._nbytes("sample"), posted=2) for rank in self.learners}
        errors = {rank: Channel[None]("errors", rank, self._nbytes("errors"), posted=2) for rank in self.replays}
        rollouts = {rank: Channel[int]("rollout", rank, self._nbytes("rollout"), posted=2) for rank in self.replays}
        for rank in self.replays:
            process = replay_rank(rank, rollouts[rank], errors[rank], samples, self._pace(experience))
            self._world.clock.process(process)
        for number, rank in enumerate(self.actors):
            self._start_actor(number, rank, [rollouts[self.replays[number % len(self.replays)]]])
        return [
            RemoteReplay(rank, samples[rank], errors, publisher.serve)
            for rank, publisher in zip(self.learners, self._publishers, strict=True)
        ]
