"""A torso with a head of action values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hpcddrl.networks.encoding import Precision, encode, initialised_torso, orthogonal
from hpcddrl.types import Discrete, EnvSpec, Output


class QNetwork(nn.Module):
    """The network of Q-learning: ``policy`` of its output is Q [N, actions], ``value`` is max Q.

    With ``dueling``, Q = V + A − mean A over the actions (Wang et al. 2016, arXiv:1511.06581, equation 9).
    Initialised orthogonally, the heads with gain 0.01, so that all actions start out alike.

    Args:
        spec: the environment's; its actions are `Discrete`.
        torso_name: mlp, nips, nature, resnet or auto.
        width: factor on channels and units.
        dueling: a value and an advantage head instead of one of Q.
        seed: of the initialisation.
        precision: how to compute.
    """

    def __init__(
        self, spec: EnvSpec, torso_name: str, width: float, dueling: bool, seed: int, precision: Precision
    ) -> None:
        super().__init__()
        assert isinstance(spec.action, Discrete), "checked when the run started"
        self.precision = precision
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.torso, units = initialised_torso(torso_name, spec.observation_shape, width)
            self.advantage = nn.Linear(units, spec.action.num_actions)
            self.value = nn.Linear(units, 1) if dueling else None
            orthogonal(self.advantage, 0.01)
            if self.value is not None:
                orthogonal(self.value, 0.01)

    def forward(self, observation: Tensor) -> Output:
        """Return Q and its maximum for observations [N, *observation_shape] (uint8 images or float32 vectors)."""
        return self.answer(encode(self.torso, observation, self.precision))

    def answer(self, features: Tensor) -> Output:
        """Return Q and its maximum of a torso's features [N, units] f32."""
        q = self.advantage(features)
        if self.value is not None:
            q = self.value(features) + q - q.mean(-1, keepdim=True)
        return Output(policy=q, value=q.amax(-1))
