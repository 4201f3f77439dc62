"""What comes out of a run of groups: one network, or all as one, in a file that stands by itself."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpcddrl.config import Config, Ensemble
from hpcddrl.envs.make import probe
from hpcddrl.logs import checkpoint
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.networks.make import AnyNetwork, make_network
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.rl.ensemble import Moments
from hpcddrl.rl.policies import Policy, policy_for
from hpcddrl.roles.mixing import Weigh
from hpcddrl.runtime.coupling import weigh_for
from hpcddrl.settings import dump, load
from hpcddrl.types import EnvSpec, Output

EXAMPLES = 3  # observations to trace a network with; 1 would be taken for the only size


class PolicyNetwork(nn.Module):
    """A group's network as (policy's parameters, value), whatever it learned by.

    Args:
        network: of the group.
        q_temperature: τ of softmax(Q / τ), the policy that action values stand for.
    """

    def __init__(self, network: AnyNetwork, q_temperature: float) -> None:
        super().__init__()
        self.network = network
        self._scale = 1 / q_temperature if isinstance(network, QNetwork) else 1.0

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return them for observations [N, *observation_shape]."""
        output: Output = self.network(observation)
        return output.policy * self._scale, output.value


class EnsembleNetwork(nn.Module):
    """All groups' networks as one: (parameters of π_ens = Σ cᵢ πᵢ, Σ cᵢ Vᵢ).

    Args:
        members: the groups'.
        policy: the family.
        weigh: from values to c.
        moments: of the members' values, where these are normalised.
        scores: [members] their mean returns.
    """

    scores: Tensor

    def __init__(
        self, members: Sequence[PolicyNetwork], policy: Policy, weigh: Weigh, moments: Moments, scores: Tensor
    ) -> None:
        super().__init__()
        self.members, self._policy, self._weigh = nn.ModuleList(members), policy, weigh
        for name, numbers in moments._asdict().items():
            self.register_buffer(name, numbers)
        self.register_buffer("scores", scores)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return them for observations [N, *observation_shape]."""
        policies, values = (torch.stack(x) for x in zip(*(m(observation) for m in self.members), strict=True))
        moments = Moments(*(getattr(self, name) for name in Moments._fields))
        weights = self._weigh(values, moments, self.scores)
        return self._policy.mixture(policies, weights), (weights * values).sum(0)


class Outputs(nn.Module):
    """A network that answers with a pair, as what the roles act with.

    Args:
        network: from observations to (policy's parameters, value).
    """

    def __init__(self, network: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self._network = network

    def forward(self, observation: Tensor) -> Output:
        """Return policy and value of observations [N, *observation_shape]."""
        return Output(*self._network(observation))


class Group(NamedTuple):
    """An owner's newest checkpoint, as a network."""

    name: str
    version: int
    frames: int
    network: PolicyNetwork


def groups_of(run: RunDirectory, spec: EnvSpec) -> list[Group]:
    """Return the networks of a run's owners at their newest checkpoints.

    Raises:
        ValueError: no run, or no checkpoint in it.
    """
    coupling, found = run.config().coupling, []
    temperature = coupling.q_temperature if isinstance(coupling, Ensemble) else 1.0
    for owner, state in checkpoint.newest_of_all(run.checkpoints("")).items():
        config = run.config_of(owner)
        network = make_network(config.network, config.algorithm, spec, seed=0)
        network.load_state_dict(state.network)
        found.append(Group(owner, state.version, state.frames, PolicyNetwork(network, temperature).eval()))
    if not found:
        raise ValueError(f"{run.path}: no checkpoints to export; let the run reach one (logging.checkpoint_interval_s)")
    return found


def ensemble_of(
    config: Config, groups: Sequence[Group], spec: EnvSpec, moments: Moments, scores: Sequence[float]
) -> EnsembleNetwork:
    """Return the groups' ensemble, weighed as it was while learning (without a coupling: as the ensemble's default).

    Raises:
        ValueError: there is one group alone.
    """
    if len(groups) < 2:
        raise ValueError(f"--what ensemble: {config.recipe} has one network alone; take --what best")
    coupling = config.coupling if isinstance(config.coupling, Ensemble) else Ensemble()
    members = [group.network for group in groups]
    weigh = weigh_for(coupling.mixing)
    return EnsembleNetwork(members, policy_for(spec.action), weigh, moments, torch.tensor(scores)).eval()


def example(spec: EnvSpec) -> Tensor:
    """Return observations to trace a network with."""
    kind = torch.uint8 if spec.frame_dtype.name == "uint8" else torch.float32
    return torch.zeros(EXAMPLES, *spec.observation_shape, dtype=kind)


def write(network: nn.Module, spec: EnvSpec, config: Config, what: str, path: Path) -> None:
    """Write a network as a program that plain torch runs: ``torch.export.load(path).module()(observations)``.

    It has a dynamic number of observations, and the run's configuration with it.
    """
    about = {"what.json": json.dumps({"what": what}), "config.json": json.dumps(dump(config))}
    with torch.no_grad():
        program = torch.export.export(network, (example(spec),), dynamic_shapes=({0: torch.export.Dim("N")},))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path, extra_files=about)


def write_onnx(network: nn.Module, spec: EnvSpec, path: Path) -> None:
    """Write a network as ONNX, from ``observation`` to ``policy`` and ``value``.

    Raises:
        ValueError: what that needs is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--onnx: {error}; python -m pip install 'hpcddrl[export]'") from None
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's exporter, about itself
        torch.onnx.export(
            network,
            (example(spec),),
            path,
            input_names=["observation"],
            output_names=["policy", "value"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            external_data=False,
            verbose=False,
        )


def read(path: Path) -> tuple[Config, nn.Module]:
    """Read an exported file: the run's configuration, and the network as what acts.

    Raises:
        ValueError: it is not one.
    """
    about = {"config.json": "", "what.json": ""}
    try:
        program = torch.export.load(path, extra_files=about)
        return load(json.loads(about["config.json"])), Outputs(program.module())
    except Exception as error:
        raise ValueError(f"{path}: not a file that export has written: {error}") from error


def spec_of(config: Config) -> EnvSpec:
    """Look at a configuration's environment."""
    return probe(config.env)


def policy_of(config: Config) -> Policy:
    """Return the family of policies that exported files of a run have."""
    return policy_for(spec_of(config).action)
