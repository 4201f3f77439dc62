"""What a role is built from on one rank: its place in the job, its environments, its network, its checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from hpcddrl.comm.channel import Traffic
from hpcddrl.comm.circle import Circle
from hpcddrl.comm.failure import describe
from hpcddrl.comm.placement import Communicators, Place, Role, ranks_of
from hpcddrl.config import Averaging, CentralActing, Config, LinearEpsilon, QLearning
from hpcddrl.envs.environments import Environments
from hpcddrl.envs.make import games, make
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.device import CPU
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.make import AnyNetwork, make_network
from hpcddrl.networks.precision import choose_precision
from hpcddrl.rl.exploration import EpsilonGreedy, linear_epsilon, spread_epsilons
from hpcddrl.rl.policies import Behaviour, policy_for
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.roles.control import Control
from hpcddrl.roles.counters import steppers
from hpcddrl.roles.legs import Files, Legs, Start
from hpcddrl.roles.saving import Saver
from hpcddrl.runtime.devices import Devices
from hpcddrl.runtime.restoring import draft_of
from hpcddrl.settings import group_config
from hpcddrl.types import EnvSpec, Output, State, Stateful, Tuning

SEEDS_PER_RUN = 100_000  # environments of run seed s have seeds from s · SEEDS_PER_RUN
S = TypeVar("S", bound=Stateful)


@dataclass(frozen=True, kw_only=True)
class Rank:
    """Everything that a role is built from on one rank."""

    config: Config  # with a fitted topology; of this rank's group
    job: Config  # of all groups
    spec: EnvSpec
    comms: Communicators
    places: tuple[Place, ...]
    control: Control
    traffic: Traffic
    run: RunDirectory
    files: Files
    say: Callable[[str], None]  # does nothing but on rank 0
    start: Start = field(default_factory=Start)
    saved: State | None = None  # what this rank's parts were when the run was cut
    parts: dict[str, Stateful] = field(default_factory=dict)  # what checkpoints remember of this rank
    restarts: list[Callable[[int], None]] = field(default_factory=list)  # what each leg of an exact run begins with
    circle: Circle | None = None  # of the group's learners, on these
    devices: Devices = field(default_factory=Devices)  # that this rank computes on
    threads: int = 1  # that an operation is divided over
    shares: int = 1  # that a batch is, each on a thread
    tuning: Tuning = field(default_factory=Tuning)
    lines: list[str] = field(default_factory=list)  # for the log, said before the start

    @property
    def place(self) -> Place:
        """Return this rank's place."""
        return self.places[self.comms.world.rank]

    @property
    def learners(self) -> list[int]:
        """Return the ranks that learn in this rank's group."""
        return ranks_of(self.places, Role.LEARNER, self.place.group)

    @property
    def replays(self) -> list[int]:
        """Return the ranks that hold its replay."""
        return ranks_of(self.places, Role.REPLAY, self.place.group)

    @property
    def actors(self) -> list[int]:
        """Return the ranks that act in it."""
        return ranks_of(self.places, Role.ACTOR, self.place.group)

    @property
    def owner(self) -> str:
        """Return the name under which this rank's checkpoints stand."""
        return f"server-{self.place.number:04d}" if self.place.group is None else f"group-{self.place.group:04d}"

    @property
    def played(self) -> str:
        """Return the name under which the checkpoints of the weights stand that this rank learns with."""
        return "server-0000" if self.config.topology.servers else self.owner

    @property
    def shard(self) -> tuple[int, int]:
        """Return the part of the weights that this rank's checkpoints hold: its number, of how many."""
        return (self.place.number, self.config.topology.servers) if self.place.role is Role.SERVER else (0, 1)

    def remember(self, name: str, part: S) -> S:
        """Let checkpoints remember a part, and bring it to where it was when the run was cut; return it."""
        self.parts[name] = part
        if self.saved is not None and name in self.saved:
            part.restore(self.saved[name])
        return part


def env_seeds(config: Config, places: tuple[Place, ...], rank: int, leg: int = 0) -> list[int]:
    """Return the seeds of a rank's environments: no two in a job are the same, nor in two of its legs."""
    step = steppers(places)
    first = config.seed * SEEDS_PER_RUN + (leg * len(step) + step.index(rank)) * config.env.num_envs
    return [(first + i) % 2**31 for i in range(config.env.num_envs)]


def game_of(config: Config, places: tuple[Place, ...], rank: int) -> str:
    """Return the id of the environments that a rank steps ("" if it steps none): they are dealt in turn."""
    step = steppers(places)
    return config.env.ids[step.index(rank) % len(config.env.ids)] if rank in step else ""


def environments(rank: Rank) -> Environments:
    """Make this rank's environments, which begin anew when a run is resumed."""
    config, me = rank.config, rank.comms.world.rank
    game = next(g for g in games(config.env) if g.id == game_of(config, rank.places, me))
    seeds = env_seeds(config, rank.places, me, rank.start.number)
    envs = make(game, config.env.num_envs, seeds, config.algorithm.discount, rank.threads, teller(rank))
    rank.remember("environments", envs)
    if rank.saved is not None:
        rank.control.counters.interrupted += rank.saved.get("environments", {}).get("running", 0)
    return envs


def teller(rank: Rank) -> Callable[[str], None]:
    """Return what writes a line that any rank may have to say, in its name, to standard error."""
    name = describe(rank.comms.world.rank, rank.place)

    def say(line: str) -> None:
        sys.stderr.write(f"hpcddrl: {name}: {line}\n")

    return say


def begins_anew(rank: Rank, envs: Environments, restart: Callable[[list[int]], None]) -> None:
    """Let a rank's episodes begin anew, by ``restart``, with each leg of an exact run, so that a cut changes nothing.

    Elsewhere they go on: an emulator cannot be saved, but it need not be as long as its process lives.
    """

    def begin(leg: int) -> None:
        rank.control.counters.interrupted += envs.running
        restart(env_seeds(rank.config, rank.places, rank.comms.world.rank, leg))

    rank.restarts.append(begin)


def network_of(rank: Rank, group: int) -> AnyNetwork:
    """Make the network that a group starts with: one of its own, but for groups that average, who start alike."""
    config = group_config(rank.job, group)
    start = 0 if isinstance(config.coupling, Averaging) else group
    return make_network(config.network, config.algorithm, rank.spec, config.seed * 1000 + start)


def with_precision(rank: Rank, network: AnyNetwork, batch: int, trains: bool) -> None:
    """Let a network compute as is fastest here for so many observations."""
    wanted = rank.config.precision
    if rank.config.deterministic:  # a choice by the clock is not repeatable
        network.precision, rates = Precision("bf16" if wanted == "bf16" else "fp32"), dict[str, float]()
    else:
        network.precision, rates = choose_precision(network, rank.spec, wanted, batch, trains)
    table = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items())
    chosen = f"{network.precision.name}{' channels-last' if network.precision.channels_last else ''}"
    device = next(network.parameters()).device
    where = "" if device == CPU else f" on {device}"
    rank.lines.append(
        f"precision {chosen} for {'training' if trains else 'acting'} on {batch} observations{where} "
        f"({table or 'not timed'})"
    )


def acting(rank: Rank, network: Callable[[torch.Tensor], Output], stepper: int, keeps: bool = False) -> LocalPolicy:
    """Make the policy that acts for a rank that steps environments, wherever that is done."""
    seed = rank.config.seed * SEEDS_PER_RUN + steppers(rank.places).index(stepper)
    return LocalPolicy(network, _behaviour(rank, stepper), seed, keeps=keeps)


def _behaviour(rank: Rank, stepper: int) -> Behaviour:
    algorithm = rank.config.algorithm
    if not isinstance(algorithm, QLearning):
        return policy_for(rank.spec.action)
    return EpsilonGreedy(_epsilon(rank, algorithm, stepper))


def _epsilon(rank: Rank, algorithm: QLearning, stepper: int) -> Callable[[], torch.Tensor]:
    """Return what tells the ε in force: by the job's frames, as far as this rank can tell, or one an environment."""
    explore, step = algorithm.exploration, steppers(rank.places)
    if isinstance(explore, LinearEpsilon):
        central = isinstance(rank.config.acting, CentralActing)
        acting_ranks = len(ranks_of(rank.places, Role.LEARNER)) if central else len(step)
        counters, skip = rank.control.counters, rank.spec.frame_skip

        def now() -> torch.Tensor:
            frames = counters.all_predictions * skip * acting_ranks
            return torch.tensor([linear_epsilon(explore.start, explore.end, explore.frames, frames)])

        return now
    number, count = step.index(stepper), len(step)
    every = spread_epsilons(explore.base, explore.exponent, count * rank.config.env.num_envs)
    own = every[number::count]  # each rank, and so each game, has the whole range
    return lambda: own


def saver_of(rank: Rank, network: AnyNetwork) -> Saver:
    """Make what leaves this rank's network to be played, if it owns any."""
    saves = rank.place.role is Role.SERVER or rank.place.number == 0
    folder = rank.run.checkpoints(rank.owner) if saves else None
    return Saver(folder, network, rank.shard, rank.config, rank.control.timing)


def legs_of(rank: Rank, enough: Callable[[float], bool] | None) -> Legs:
    """Make this rank's part in the checkpoints of the job; for ``enough`` see `Legs`."""
    return Legs(
        rank.comms.world,
        rank.control,
        rank.traffic,
        rank.files,
        draft_of(rank.job, rank.places),
        rank.parts,
        rank.start,
        rank.config.logging.checkpoint_updates if rank.config.deterministic else None,
        enough,
        rank.restarts,
        rank.say,
    )
