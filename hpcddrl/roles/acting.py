"""Running a policy: observations in, actions and their probabilities out."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hpcddrl.rl.policies import Behaviour
from hpcddrl.types import Acted, Array, Output, State


class LocalPolicy:
    """Acts with a network at hand.

    Args:
        network: evaluated without gradient.
        policy: the family that its outputs parametrise.
        seed: of the draws.
        greedy: take the likeliest action instead of drawing one.
        keeps: keep the outputs, with what their gradients need, for a learner that learns from them.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], Output],
        policy: Behaviour,
        seed: int,
        greedy: bool = False,
        keeps: bool = False,
    ) -> None:
        self._network = network
        self._policy = policy
        self._generator = torch.Generator().manual_seed(seed)
        self._greedy, self._keeps = greedy, keeps
        self._kept: list[Output] = []

    def __call__(self, observation: Array) -> Acted:
        """Act on observations [B, *observation_shape]."""
        with torch.set_grad_enabled(self._keeps):
            output: Output = self._network(torch.from_numpy(observation))
        if self._keeps:
            self._kept.append(output)
        policy, value = self._policy, output.value.detach().cpu()
        with torch.no_grad():
            params = output.policy.detach().cpu()  # actions are drawn on the host, the same anywhere
            action = policy.greedy(params) if self._greedy else policy.sample(params, self._generator)
            return Acted(
                action=action.numpy(),
                log_mu=policy.log_prob(params, action).numpy(),
                value=value.numpy(),
                action_value=policy.action_value(params, value, action).numpy(),
            )

    def state(self) -> State:
        """See `Stateful`."""
        return {"generator": self._generator.get_state()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._generator.set_state(state["generator"].clone())

    def kept(self) -> Output | None:
        """Hand over the outputs kept since the last call, [T, B, ...] each; None if B was not always the same."""
        outputs, self._kept = self._kept, []
        if len({len(output.value) for output in outputs}) != 1:
            return None
        return Output(torch.stack([o.policy for o in outputs]), torch.stack([o.value for o in outputs]))
