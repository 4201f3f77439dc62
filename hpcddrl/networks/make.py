"""From a configuration to its network."""

from __future__ import annotations

from hpcddrl.config import Algorithm, Network, QLearning
from hpcddrl.networks.encoding import Precision
from hpcddrl.networks.policy_value import PolicyValueNetwork
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.types import Continuous, EnvSpec

AnyNetwork = PolicyValueNetwork | QNetwork


def make_network(network: Network, algorithm: Algorithm, spec: EnvSpec, seed: int) -> AnyNetwork:
    """Return the network that an algorithm learns; it computes in fp32 until told otherwise.

    Raises:
        ValueError: the torso cannot take the observations, or the algorithm the actions.
    """
    if not isinstance(algorithm, QLearning):
        return PolicyValueNetwork(spec, network.torso, network.width, seed, Precision())
    if isinstance(spec.action, Continuous):
        raise ValueError(
            "algorithm.kind = 'q_learning': needs a choice among actions, the environment takes vectors of "
            f"{spec.action.dim}; use a recipe with actor_critic (python -m hpcddrl list)"
        )
    return QNetwork(spec, network.torso, network.width, algorithm.dueling, seed, Precision())
