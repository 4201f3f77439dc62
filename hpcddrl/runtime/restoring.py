"""Going on with a run: the newest good checkpoint of the whole job, on the same layout or dealt anew to another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from mpi4py import MPI

from hpcddrl.comm.placement import Place, Role, leaders, ranks_of
from hpcddrl.config import CentralActing, Config, Replay, RolloutReplay
from hpcddrl.logs.restart import Manifest, NewerSchemaError, RestartFolder, Seat
from hpcddrl.recipes import RECIPES
from hpcddrl.replay.replay import histories
from hpcddrl.replay.rollouts import shared
from hpcddrl.roles.counters import steppers
from hpcddrl.roles.legs import Start
from hpcddrl.runtime.checks import fitted
from hpcddrl.settings import dump, load
from hpcddrl.types import State

SAME = (  # what a checkpoint can only go on with
    "recipe",
    "env.id",
    "env.num_envs",
    "env.frame_stack",
    "network",
    "algorithm.kind",
    "algorithm.dueling",
    "algorithm.n_step",
    "update.kind",
    "topology.servers",
    "experience.kind",
    "experience.priorities.kind",
    "optimization.method.kind",
    "coupling.kind",
    "stages.early.task",
    "group_settings",
)
GOES_ON = ("optimizer", "reduction", "algorithm", "compression")  # of a group, on another layout
KNOWN = ("peers",)  # of the other groups, where these are the same; who goes on apart meets the others anew


class Resumed(NamedTuple):
    """What a rank goes on from, and what there is to say about it."""

    start: Start = Start()
    saved: State | None = None
    lines: tuple[str, ...] = ()


def draft_of(config: Config, places: Sequence[Place]) -> Manifest:
    """Return what the marks of all of a job's checkpoints say alike."""
    return Manifest(
        number=0,
        recipe=config.recipe,
        config=dump(config),
        seats=tuple(Seat(str(p.role), p.group, p.number) for p in places),
        sections=(),
        versions=(),
        frames=(),
        account={},
    )


def refitted(config: Config, ranks: int) -> Config:
    """Return a run's configuration with the counts that its recipe leaves open fitted to another number of ranks.

    Raises:
        ValueError: that many cannot be laid out.
    """
    open_ = {name: None for name, count in asdict(RECIPES[config.recipe]().topology).items() if count is None}
    opened = load(dump(config) | {"topology": asdict(config.topology) | open_})
    return fitted(opened, ranks)


def resume(world: MPI.Comm, folder: RestartFolder, config: Config, places: tuple[Place, ...]) -> Resumed:
    """Read the newest checkpoint whose parts are all good; name those that are not. Collective over ``world``.

    Raises:
        ValueError: the newest checkpoint is of another run, or of a later program; on every rank alike.
    """
    lines: list[str] = []
    for number in world.bcast(folder.numbers):
        manifest, complaint = _marked(world, folder, number, config)
        saved: State | None = None
        if manifest is not None:
            saved, complaint = _read(folder, manifest, config, places, world.rank)
        complaints = [c for c in world.allgather(complaint) if c is not None]
        if complaints:
            lines.append(f"damaged, and passed over: {complaints[0]}")
            continue
        assert manifest is not None
        lines.append(f"checkpoint {number} of {folder.path} is good")
        start = Start(number, _version(manifest, places, world.rank), manifest.account)
        return Resumed(start, saved, (*lines, *_dealt(manifest, config, places)))
    lines.append(f"{folder.path} has no good checkpoint: the run begins anew")
    return Resumed(lines=tuple(lines))


def _marked(world: MPI.Comm, folder: RestartFolder, number: int, config: Config) -> tuple[Manifest | None, str | None]:
    """Return a checkpoint's mark, or what is wrong with it. Collective over ``world``.

    Raises:
        ValueError: this run cannot go on from it.
    """
    found: tuple[Manifest | None, str | None, str | None] = None, None, None
    if world.rank == 0:
        try:
            manifest = folder.manifest(number)
            found = manifest, None, _differs(folder, manifest, config)
        except NewerSchemaError as error:
            found = None, None, str(error)
        except ValueError as error:
            found = None, str(error), None
    manifest_, damaged, wrong = world.bcast(found)
    if wrong is not None:
        raise ValueError(f"--resume {wrong}")
    return manifest_, damaged


def _differs(folder: RestartFolder, manifest: Manifest, config: Config) -> str | None:
    """Say in what a checkpoint is another run's, if it is."""
    now = dump(config)
    for field in SAME:
        then, wanted = _field(manifest.config, field), _field(now, field)
        if then != wanted:
            name, then, wanted = _first_difference(field, then, wanted)
            return (
                f"{folder.name(manifest.number)}: made with {name} = {then!r}, and this run has {wanted!r}; leave "
                "that as it was, or start a new run with --out"
            )
    return None


def _field(data: Any, path: str) -> Any:
    for name in path.split("."):
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _first_difference(path: str, then: Any, now: Any) -> tuple[str, Any, Any]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in (*then, *now):
            if then.get(name) != now.get(name):
                return _first_difference(f"{path}.{name}", then.get(name), now.get(name))
    return path, then, now


def _same(manifest: Manifest, config: Config, places: Sequence[Place]) -> bool:
    """Say whether every rank finds its own part."""
    capacity = _field(manifest.config, "experience.capacity") == _field(dump(config), "experience.capacity")
    return capacity and manifest.seats == draft_of(config, places).seats


def _read(
    folder: RestartFolder, manifest: Manifest, config: Config, places: tuple[Place, ...], rank: int
) -> tuple[State | None, str | None]:
    """Return what this rank goes on from, or what is wrong with the files."""

    def part(of: int) -> State:
        return folder.read(manifest.number, manifest.sections[of])

    try:
        if _same(manifest, config, places):
            return part(rank), None
        return _redistributed(manifest, config, places, rank, part), None
    except ValueError as error:
        return None, str(error)


def _version(manifest: Manifest, places: tuple[Place, ...], rank: int) -> int:
    """Return the version of a rank's weights, or of those that it acts with."""
    me = places[rank]
    then = _then(manifest, Role.SERVER) or _then(manifest, Role.LEARNER, _donor(manifest, me.group or 0), 0)
    return manifest.versions[then[0]]


def _then(manifest: Manifest, role: Role, group: int | None = None, number: int | None = None) -> list[int]:
    """Return the ranks that had a role (in a group, with a number) when the checkpoint was made."""
    return [
        rank
        for rank, seat in enumerate(manifest.seats)
        if seat.role == role and group in (None, seat.group) and number in (None, seat.number)
    ]


def _donor(manifest: Manifest, group: int) -> int:
    """Return the group that one goes on from: itself, or one with the same settings if there are more groups now."""
    groups = _groups_then(manifest)
    kinds = max(1, len(manifest.config.get("group_settings", ())))
    alike = [g for g in groups if g % kinds == group % kinds] or groups
    return group if group in groups else alike[group // kinds % len(alike)]


def _groups_then(manifest: Manifest) -> list[int]:
    """Return the numbers of the groups that a checkpoint holds; those are missing that had died."""
    return [s.group for s in manifest.seats if s.role == Role.LEARNER and s.number == 0 and s.group is not None]


def _redistributed(
    manifest: Manifest, config: Config, places: tuple[Place, ...], rank: int, part: Callable[[int], State]
) -> State:
    """Return what a rank of another layout goes on from: a group's weights and optimizer, its share of the replay."""
    me = places[rank]
    groups = config.topology.groups or 1
    told = part(0) if rank == 0 else {}
    state: State = {name: told[name] for name in ("stages",) if name in told}
    if me.role is Role.SERVER:
        return part(_then(manifest, Role.SERVER, number=me.number)[0]) | state
    state["counters"] = {"predictions": _predictions(manifest, config, places), "window": [], "best": -math.inf}
    if me.role is Role.LEARNER:
        donor = part(_then(manifest, Role.LEARNER, _donor(manifest, me.group or 0), 0)[0])
        frames = sum(manifest.frames[r] for r in _then(manifest, Role.LEARNER, number=0)) / groups
        same = _groups_then(manifest) == list(range(groups)) and "apart" not in donor
        names = (*GOES_ON, *KNOWN) if same else GOES_ON
        state |= {name: donor[name] for name in names if name in donor}
        state["weights"] = donor["weights"] | ({} if config.topology.servers else {"frames": frames})
        if "optimizer" in state:
            state["optimizer"] = state["optimizer"] | {"frames": frames}
    learners = ranks_of(places, Role.LEARNER)
    middle = config.stages.middle
    if rank in learners and isinstance(middle, RolloutReplay) and middle.held_by == "learner":
        state |= _rollouts(manifest, len(learners), learners.index(rank), part)
    holders = _holders(config, places)
    if rank in holders:
        state["replay"] = _share(manifest, config, len(holders), holders.index(rank), part)
    step = steppers(places)
    if rank in step:
        before = [r for r, seat in enumerate(manifest.seats) if seat.role in _stepping(manifest)]
        kept = part(before[step.index(rank) % len(before)]).get("environments")
        state |= {} if kept is None else {"environments": kept | {"running": 0}}
    return state


def _stepping(manifest: Manifest) -> Role:
    return Role.ACTOR if _then(manifest, Role.ACTOR) else Role.LEARNER


def _predictions(manifest: Manifest, config: Config, places: Sequence[Place]) -> float:
    """Return each acting rank's part of all predictions, by which exploration goes down."""
    central = isinstance(config.acting, CentralActing)
    acting = len(ranks_of(tuple(places), Role.LEARNER)) if central else len(steppers(places))
    return manifest.account["predictions"] / max(1, acting)


def _holders(config: Config, places: tuple[Place, ...]) -> list[int]:
    """Return the ranks that hold a replay."""
    if not isinstance(config.experience, Replay):
        return []
    return ranks_of(places, Role.REPLAY) or ranks_of(places, Role.LEARNER)


def _share(manifest: Manifest, config: Config, holders: int, number: int, part: Callable[[int], State]) -> State:
    """Return a holder's share of all that was held: what each stepping rank gathered is dealt in turn."""
    before = [part(r)["replay"] for r in _then(manifest, Role.REPLAY) or _then(manifest, Role.LEARNER)]
    every = [history for held in before for history in histories(held["replay"], config.env.num_envs)]
    allowed = sum(held["pace"]["allowed"] for held in before) / holders
    return {"replay": {"histories": every[number::holders]}, "pace": {"allowed": allowed}}


def _rollouts(manifest: Manifest, learners: int, number: int, part: Callable[[int], State]) -> State:
    """Return a learner's share of all rollouts that were kept to be learned from again."""
    before = [part(r).get("rollouts") for r in _then(manifest, Role.LEARNER)]
    held = [state for state in before if state is not None and "memory" in state]
    if not held:
        return {}
    return {"rollouts": held[0] | {"memory": shared([state["memory"] for state in held], learners, number)}}


def _dealt(manifest: Manifest, config: Config, places: tuple[Place, ...]) -> list[str]:
    """Say what is redistributed, if anything."""
    if _same(manifest, config, places):
        return []
    groups, now = _groups_then(manifest), len(leaders(places))
    before = len(groups)
    lines = [f"redistributed: {len(manifest.seats)} ranks in {before} groups then, {len(places)} in {now} now"]
    if left := [g for g in groups if g >= now]:
        numbers = ", ".join(map(str, left))
        lines.append(f"redistributed: weights and optimizers of groups {numbers} stay in the checkpoint alone")
    if new := [g for g in range(now) if g not in groups]:
        pairs = ", ".join(f"{g} as group {_donor(manifest, g)}" for g in new)
        lines.append(f"redistributed: new groups begin as copies: {pairs}")
    if before != now and not config.topology.servers:
        lines.append("redistributed: the frames of all groups, by which learning rates go, are shared evenly")
    holders = _holders(config, places)
    if holders:
        then = _then(manifest, Role.REPLAY) or _then(manifest, Role.LEARNER)
        lines.append(
            f"redistributed: {manifest.account['pending']:,.0f} transitions not learned from yet, and all others held, "
            f"from {len(then)} replays to {len(holders)}"
        )
    return lines
