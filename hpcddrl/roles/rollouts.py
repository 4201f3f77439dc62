"""Writing rollouts while acting, and making batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from hpcddrl.envs.environments import Environments
from hpcddrl.envs.frames import as_observation, stack
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.networks.device import CPU, Rows, host_room, to_device
from hpcddrl.roles.counters import Counters
from hpcddrl.types import Act, Acted, Array, Batch, EnvSpec, Rollout


class RolloutWriter:
    """Fills rollouts one step at a time; the last K frames of one open the next.

    Args:
        spec: the environments'.
        num_envs: B.
    """

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self._depth = spec.frame_stack
        self._frames = np.zeros((self._depth, num_envs, *spec.frame_shape), spec.frame_dtype)
        self._first = np.zeros((self._depth, num_envs), bool)
        self._number = 0
        self._t = 0
        self._out: Rollout | None = None

    def start(self, frame: Array) -> None:
        """Take the frames [B, *frame_shape] that environments show after their first reset."""
        self._frames[:] = frame
        self._first[-1] = True

    def begin(self, out: Rollout, version: int) -> None:
        """Write to this rollout from now on; ``version`` is that of the weights that act."""
        out.version[0], out.number[0] = version, self._number
        out.frames[: self._depth], out.first[: self._depth] = self._frames, self._first
        self._out, self._t = out, 0
        self._number += 1

    def observation(self) -> Array:
        """Return the newest observations [B, *observation_shape]."""
        assert self._out is not None
        window = slice(self._t, self._t + self._depth)
        observation: Array = as_observation(stack(self._out.frames[window], self._out.first[window], self._depth))[0]
        return observation

    def add(self, acted: Acted, *, frame: Array, first: Array, reward: Array, discount: Array) -> bool:
        """Write one step; say whether the rollout is full."""
        out, t = self._out, self._t
        assert out is not None
        out.action[t], out.log_mu[t], out.reward[t], out.discount[t] = acted.action, acted.log_mu, reward, discount
        out.value[t], out.action_value[t] = acted.value, acted.action_value
        out.frames[self._depth + t], out.first[self._depth + t] = frame, first
        self._t += 1
        full = self._t == len(out.reward)
        if full:
            self._frames[:], self._first[:] = out.frames[-self._depth :], out.first[-self._depth :]
        return full


class Collector:
    """Steps environments with a policy at hand and writes rollouts.

    Args:
        envs: the environments.
        act: the policy.
        timing: of this rank.
        counters: of this rank.
    """

    def __init__(self, envs: Environments, act: Act, timing: Timing, counters: Counters) -> None:
        self._envs, self._act, self._timing, self._counters = envs, act, timing, counters
        self._writer = RolloutWriter(envs.spec, envs.num_envs)
        self._started = False

    def restart(self, seeds: Sequence[int]) -> None:
        """Begin new episodes, from these seeds, with the next rollout."""
        self._envs.reseed(seeds)
        self._writer = RolloutWriter(self._envs.spec, self._envs.num_envs)
        self._started = False

    def collect(self, out: Rollout, version: int, before_step: Callable[[int], None] = lambda t: None) -> None:
        """Fill ``out`` with T steps, calling ``before_step(t)`` before each."""
        timing, writer = self._timing, self._writer
        if not self._started:
            with timing(Phase.ENV):
                writer.start(self._envs.reset())
            self._started = True
        with timing(Phase.COLLECT):
            writer.begin(out, version)
            for t in range(len(out.reward)):
                before_step(t)
                observation = writer.observation()
                with timing(Phase.ACT):
                    acted = self._act(observation)
                with timing(Phase.ENV):
                    step = self._envs.step(acted.action)
                writer.add(acted, frame=step.frame, first=step.first, reward=step.reward, discount=step.discount)
                self._counters.predictions += len(step.first)
                self._counters.stepped(step)


def transitions(rollout: Rollout) -> int:
    """Count the steps of a rollout that are transitions (and not mere resets)."""
    return int(np.count_nonzero(~rollout.first[-len(rollout.reward) :]))


class Batcher:
    """Makes a batch of rollouts; its observations are one buffer, made once and written anew each time.

    Args:
        spec: the environments'.
        unroll_length: T.
        num_envs: B of each rollout.
        rollouts: most in a batch.
        device: that learns from it.
    """

    def __init__(
        self, spec: EnvSpec, unroll_length: int, num_envs: int, rollouts: int, device: torch.device = CPU
    ) -> None:
        shape = (rollouts, unroll_length + 1, num_envs)
        self._rows = Rows(host_room((*shape, *spec.observation_shape), spec.frame_dtype, device), device)
        self._stacked = self._rows.host.numpy().reshape(*shape, spec.frame_stack, *spec.frame_shape)
        self._depth, self._device = spec.frame_stack, device

    def __call__(self, rollouts: Sequence[Rollout]) -> Batch:
        """Return the batch of these rollouts, at most as many as there is room for; valid until the next call."""
        self._rows.begin()
        for number, rollout in enumerate(rollouts):
            stack(rollout.frames, rollout.first, self._depth, out=self._stacked[number])
            self._rows.send(number)

        def beside(arrays: Sequence[Array]) -> torch.Tensor:
            return to_device(torch.from_numpy(np.concatenate(arrays, axis=1)), self._device)

        return Batch(
            observation=self._rows.first(len(rollouts)),
            action=beside([r.action for r in rollouts]),
            log_mu=beside([r.log_mu for r in rollouts]),
            reward=beside([r.reward for r in rollouts]),
            discount=beside([r.discount for r in rollouts]),
            valid=beside([(~r.first[self._depth :]).astype(np.float32) for r in rollouts]),
            versions=np.concatenate([np.broadcast_to(r.version, r.reward.shape[1]) for r in rollouts]),
            steps=sum(r.reward.size for r in rollouts),
        )
