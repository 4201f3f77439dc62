"""Endless streams of episodes kept as plain lists, the rollouts that they make, and the transitions that they hold."""

import numpy as np

from hpcddrl.types import Continuous, Discrete, EnvSpec, Rollout


def spec(shape, depth, dtype="uint8", action=None):
    return EnvSpec(shape, np.dtype(dtype), depth, action or Discrete(4), 1)


class Streams:
    """B environments that end at random, by termination or truncation, and reset in the step after.

    ``frames[b][i]`` is what environment b shows at its time i, ``steps[b][i]`` what it does there; ``lives`` is how
    likely a discount of 0 is that no reset follows, as where a lost life is learned from as an end.
    """

    def __init__(self, the_spec, envs, seed, ends=0.15, lives=0.0):
        self.spec, self.envs, self.ends, self.lives = the_spec, envs, ends, lives
        self.rng = np.random.default_rng(seed)
        self.frames = [[self._frame()] for _ in range(envs)]
        self.firsts = [[True] for _ in range(envs)]
        self.steps = [[] for _ in range(envs)]
        self.over = [False] * envs
        self.number = 0

    def _frame(self):
        return self.rng.integers(0, 256, self.spec.frame_shape).astype(self.spec.frame_dtype)

    def _action(self):
        if isinstance(self.spec.action, Continuous):
            return self.rng.normal(size=self.spec.action.dim).astype(np.float32)
        return int(self.rng.integers(self.spec.action.num_actions))

    def _step(self, b):
        reset, rng = self.over[b], self.rng
        over = not reset and rng.random() < self.ends
        terminated = (over and rng.random() < 0.5) or (not reset and rng.random() < self.lives)
        self.over[b] = over
        reward, value, action_value = rng.normal(size=3).astype(np.float32)
        self.frames[b].append(self._frame())
        self.firsts[b].append(reset)
        self.steps[b].append(
            {
                "reset": reset,
                "action": self._action(),
                "reward": np.float32(np.nan) if reset else reward,  # meaningless, so nobody may touch it
                "discount": 0.0 if terminated else 1.0,
                "value": value,
                "action_value": action_value,
                "version": 10 * self.number,
            }
        )

    def rollout(self, steps):
        """Go on for this many steps; return them as one rollout."""
        for b in range(self.envs):
            for _ in range(steps):
                self._step(b)
        depth = self.spec.frame_stack
        rollout = self._pack(len(self.steps[0]) - steps, steps, depth)
        self.number += 1
        return rollout

    def _pack(self, start, steps, depth):
        def frames_of(b):
            return [self.frames[b][max(i, 0)] for i in range(start - depth + 1, start + steps + 1)]

        def firsts_of(b):
            return [i >= 0 and self.firsts[b][i] for i in range(start - depth + 1, start + steps + 1)]

        def field(name, dtype):
            columns = [[step[name] for step in self.steps[b][start : start + steps]] for b in range(self.envs)]
            return np.stack([np.array(column, dtype) for column in columns], axis=1)

        action_dtype = np.float32 if isinstance(self.spec.action, Continuous) else np.int64
        return Rollout(
            version=np.array([10 * self.number]),
            number=np.array([self.number]),
            last=np.zeros(1, np.uint8),
            frames=np.stack([np.stack(frames_of(b)) for b in range(self.envs)], axis=1),
            first=np.stack([np.array(firsts_of(b)) for b in range(self.envs)], axis=1),
            action=field("action", action_dtype),
            log_mu=np.zeros((steps, self.envs), np.float32),
            value=field("value", np.float32),
            action_value=field("action_value", np.float32),
            reward=field("reward", np.float32),
            discount=field("discount", np.float32),
        )

    def observation(self, b, i, opened=0):
        """Stack the frames up to time i by a walk back to its episode's first, or to where ``opened`` says."""
        frames, at = [], i
        for _ in range(self.spec.frame_stack):
            frames.insert(0, self.frames[b][at])
            if not self.firsts[b][at] and at > opened:
                at -= 1
        return np.concatenate([f if f.ndim != 2 else f[None] for f in frames])

    def transition(self, b, i, n, gamma, opened=0):
        """Return the transition of step i as a dictionary, None for a reset."""
        if self.steps[b][i]["reset"]:
            return None
        reward, m, terminated = 0.0, 0, False
        while m < n and i + m < len(self.steps[b]) and not self.steps[b][i + m]["reset"] and not terminated:
            reward += gamma**m * float(self.steps[b][i + m]["reward"])
            terminated = self.steps[b][i + m]["discount"] == 0
            m += 1
        over = m == n or terminated or (i + m < len(self.steps[b]) and self.steps[b][i + m]["reset"])
        complete = over and i + m < len(self.steps[b])
        discount = 0.0 if terminated else gamma**m
        step = self.steps[b][i]
        error = None
        if complete:
            error = abs(reward + discount * float(self.steps[b][i + m]["value"]) - float(step["action_value"]))
        return {
            "observation": self.observation(b, i, opened),
            "next_observation": self.observation(b, i + m, opened),
            "action": step["action"],
            "reward": reward,
            "discount": discount,
            "version": step["version"],
            "end": i + m if over else None,  # the time of the next observation
            "complete": complete,  # as far as the stream has gone
            "error": error,
        }


def assert_equal_transition(gathered, row, expected):
    """Compare row ``row`` of gathered or sampled transitions with one of `Streams.transition`."""
    np.testing.assert_array_equal(gathered.observation[row], expected["observation"])
    np.testing.assert_array_equal(gathered.next_observation[row], expected["next_observation"])
    np.testing.assert_array_equal(gathered.action[row], expected["action"])
    np.testing.assert_allclose(gathered.reward[row], expected["reward"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gathered.discount[row], expected["discount"], rtol=1e-6)
    assert gathered.version[row] == expected["version"]
