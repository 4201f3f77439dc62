"""What each rank computes on: cores, or a GPU of its node."""

from __future__ import annotations

import socket
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from hpcddrl.comm.placement import Place, Role
from hpcddrl.config import Config, Uncompressed
from hpcddrl.config.device import Choice
from hpcddrl.networks.device import CPU
from hpcddrl.networks.torsos import resolved
from hpcddrl.settings import group_config
from hpcddrl.types import EnvSpec


class Seen(NamedTuple):
    """What one rank finds where it runs."""

    host: str
    gpus: tuple[str, ...]  # that torch sees: what tells them apart from all others


@dataclass(frozen=True)
class Devices:
    """What one rank computes on, and where else that is done."""

    learner: torch.device = CPU
    inference: torch.device = CPU
    sharing: tuple[int, ...] = ()  # the ranks, this one too, that compute on the same GPU
    one_each: bool = False  # every learner of this rank's group learns on a GPU of its own, as NCCL wants

    def use(self) -> list[str]:
        """Let torch compute on this rank's GPU by default, if it has one; return what there is to say about it."""
        if self.gpu is None:
            return []
        torch.cuda.set_device(self.gpu)
        torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32, also for convolutions; what may be less is bf16
        others = f", which {len(self.sharing)} learners of this host share" if len(self.sharing) > 1 else ""
        names = {self.gpu: self.name}
        what = {"learns": self.learner, "chooses actions": self.inference}
        return [", ".join(f"{does} on {names.get(device, device)}" for does, device in what.items()) + others]

    @property
    def gpu(self) -> torch.device | None:
        """Return the GPU that this rank uses, if any."""
        return next((device for device in (self.learner, self.inference) if device != CPU), None)

    @property
    def name(self) -> str:
        """Return what a person calls it."""
        return "cpu" if self.gpu is None else f"{self.gpu} {torch.cuda.get_device_name(self.gpu)}"


def seen_here(config: Config, spec: EnvSpec, place: Place) -> Seen:
    """Return what a rank finds where this process runs; only those that may use GPUs look, since that starts CUDA."""
    count = torch.cuda.device_count() if _may_use(config, spec, place) else 0
    gpus = (str(torch.cuda.get_device_properties(i).uuid) for i in range(count))
    return Seen(socket.gethostname(), tuple(gpus))


def _may_use(config: Config, spec: EnvSpec, place: Place) -> bool:
    return place.role is Role.LEARNER and wishes(config, spec) != ("cpu", "cpu")


def devices_of(config: Config, spec: EnvSpec, places: Sequence[Place], seen: Sequence[Seen]) -> list[Devices]:
    """Return what every rank computes on; pure.

    On each host, the learners that may take GPUs do so in rank order, each the next of those that it sees: in turn
    where there are more learners than GPUs, and the only one where the launcher shows each rank its own.

    Args:
        config: of the job.
        spec: the environments'.
        places: of every rank.
        seen: by every rank, see `seen_here`.

    Raises:
        ValueError: a GPU is asked for where a rank sees none.
    """
    kinds = [group_config(config, number) for number in range(max(1, len(config.group_settings)))]
    found, users = [Devices() for _ in places], defaultdict[str, list[int]](list)
    local_ranks = Counter[str]()  # of those that may take GPUs
    for rank, place in enumerate(places):
        own = kinds[(place.group or 0) % len(kinds)]
        if not _may_use(own, spec, place):
            continue
        host, gpus = seen[rank]
        number = local_ranks[host] % len(gpus) if gpus else None
        local_ranks[host] += 1
        found[rank] = _chosen(own, spec, place, host, number)
        if number is not None:
            users[gpus[number]].append(rank)
    one_each = _with_one_each(places, found, users)
    for sharing in users.values():
        for rank in sharing:
            found[rank] = replace(found[rank], sharing=tuple(sharing), one_each=places[rank].group in one_each)
    return found


def _with_one_each(
    places: Sequence[Place], found: Sequence[Devices], users: Mapping[str, Sequence[int]]
) -> set[int | None]:
    """Return the groups of which every learner learns on a GPU that no other learner of the group uses."""
    learning = [r for r, place in enumerate(places) if place.role is Role.LEARNER]
    without = {places[r].group for r in learning if found[r].learner == CPU}
    for sharing in users.values():
        groups = Counter(places[r].group for r in sharing)
        without |= {group for group, learners in groups.items() if learners > 1}
    return {places[r].group for r in learning} - without


def wishes(config: Config, spec: EnvSpec) -> tuple[Choice, Choice]:
    """Return where a learner of this configuration learns and chooses actions: on cores, on a GPU, or on one if any."""
    asked = config.device
    profits = resolved(config.network.torso, spec.observation_shape) != "mlp" and not config.deterministic
    learner: Choice = "cpu" if asked.learner == "auto" and not profits else asked.learner
    follows: Choice = learner if isinstance(config.compression, Uncompressed) else "cpu"
    return learner, follows if asked.inference == "auto" else asked.inference


def _chosen(config: Config, spec: EnvSpec, place: Place, host: str, gpu: int | None) -> Devices:
    """Return what a learner computes on that may have the GPU of this number, or none.

    Raises:
        ValueError: it must have one.
    """
    found = list[torch.device]()
    for role, wish in zip(("learner", "inference"), wishes(config, spec), strict=True):
        if gpu is None and wish == "cuda":
            raise ValueError(
                f"device.{role} = {getattr(config.device, role)!r}: torch sees no GPU on {host}, for {place}; start "
                f"there where one is (python -m hpcddrl doctor), or set device.{role}=auto or cpu"
            )
        found.append(CPU if gpu is None or wish == "cpu" else torch.device("cuda", gpu))
    learner, inference = found
    return Devices(learner, inference)
