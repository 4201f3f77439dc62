"""From an id and a count to a vector environment; the contract of resets and truncation is settled here, once.

Every environment resets itself during the step *after* its last one (Gymnasium's NEXT_STEP). So the final
observation of an episode is in the stream, a truncated step finds what to bootstrap from right behind it, and the
step that only resets is marked by ``first`` and learned from by nobody.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from hpcddrl.config import Env
from hpcddrl.envs import goals, toy
from hpcddrl.envs.goal_frames import AsOneArray, has_goal, outcome
from hpcddrl.envs.isolated import Isolated, reset
from hpcddrl.envs.rewards import Normalise, RewardTransform, reward_transform
from hpcddrl.envs.watchdog import Watchdog
from hpcddrl.types import ActionSpec, Array, Continuous, Discrete, EnvSpec, GoalOutcome, State, Step


class Environments:
    """B environments stepped together; resets itself, counts returns, and hides where the pixels' channels stand.

    Args:
        vector: a Gymnasium vector environment in NEXT_STEP mode, or the like.
        spec: what it shows and takes.
        seeds: one for each of the B environments.
        transform: from the environment's rewards to those that are learned from.
        life_loss_terminates: learn from a lost life as from an end (needs ``info["lives"]``).
        watchdog: watches over every step, where the environments cannot be ended alone.
    """

    def __init__(
        self,
        vector: VectorEnv[Any, Any, Any] | Isolated,
        spec: EnvSpec,
        seeds: Sequence[int],
        transform: RewardTransform,
        life_loss_terminates: bool = False,
        watchdog: Watchdog | None = None,
    ) -> None:
        self.spec = spec
        self._watchdog = watchdog
        self.num_envs = vector.num_envs
        self._vector = vector
        self._seeds = list(seeds)
        self._transform = transform
        self._life_loss_terminates = life_loss_terminates
        self._lives: Array | None = None
        self._ended = np.zeros(self.num_envs, bool)
        self._return = np.zeros(self.num_envs)
        self._length = np.zeros(self.num_envs, np.int64)

    def reset(self) -> Array:
        """Start every environment from its seed; return the first frames [B, *frame_shape]."""
        with self._watched():
            frame, info = reset(self._vector, self._seeds)
        self._lives = info.get("lives") if self._life_loss_terminates else None
        if isinstance(self._transform, Normalise):
            self._transform.begin()
        self._ended[:] = False
        self._return[:] = 0
        self._length[:] = 0
        return self._frames(frame)

    def reseed(self, seeds: Sequence[int]) -> None:
        """Take other seeds, one for each environment, for the next reset."""
        self._seeds = list(seeds)

    @property
    def running(self) -> int:
        """Return how many episodes have begun and not ended."""
        return int(np.count_nonzero(self._length))

    def state(self) -> State:
        """See `Stateful`: what rewards are scaled by. Emulators cannot be saved: of episodes there is but a count."""
        scale = self._transform.state() if isinstance(self._transform, Normalise) else {}
        return {"rewards": scale, "running": self.running}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        if isinstance(self._transform, Normalise) and state["rewards"]:
            self._transform.restore(state["rewards"])

    def step(self, action: Array) -> Step:
        """Act in every environment; what the environment raises carries its index and seed as a note."""
        with self._watched():
            frame, reward, terminated, truncated, info = self._vector.step(self._actions(action))
        restarted = info.get("restarted", np.zeros(self.num_envs, bool))
        first = self._ended | restarted
        self._return[restarted] = self._length[restarted] = 0  # of an episode that nobody will see the end of
        reward = np.where(first, 0.0, reward)
        self._return += reward
        self._length += ~first
        ended = terminated | truncated
        ends_here = ended & ~first
        step = Step(
            frame=self._frames(frame),
            first=first,
            reward=self._transform(reward, ends_here | restarted),
            discount=1.0 - (terminated | self._lost_life(info, first)).astype(np.float32),
            episode_return=np.where(ends_here, self._return, np.nan),
            episode_length=np.where(ends_here, self._length, 0),
            restarts=int(np.count_nonzero(restarted)),
        )
        self._return[ended] = 0
        self._length[ended] = 0
        self._ended = ended
        return step

    def close(self) -> None:
        """Close the environments."""
        self._vector.close()
        if self._watchdog is not None:
            self._watchdog.close()

    def _watched(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._watchdog is None else self._watchdog

    def _lost_life(self, info: dict[str, Any], first: Array) -> Array:
        if self._lives is None:
            return np.zeros(self.num_envs, bool)
        lost = (info["lives"] < self._lives) & ~first
        self._lives = np.array(info["lives"])
        return np.asarray(lost)

    def _frames(self, frame: Array) -> Array:
        shape = self.spec.frame_shape
        if len(shape) == 3 and frame.shape[1:] != shape:  # channels stood last
            frame = np.moveaxis(frame, -1, 1)
        return frame.reshape(self.num_envs, *shape).astype(self.spec.frame_dtype, copy=False)

    def _actions(self, action: Array) -> Array:
        box = self.spec.action
        if isinstance(box, Discrete):
            return action
        unit = np.clip(action, -1.0, 1.0)
        return np.asarray(box.low + (unit + 1.0) * 0.5 * (box.high - box.low), np.float32)


class _Named(gym.Wrapper[Any, Any, Any, Any]):
    """Adds the environment's index and seed to whatever it raises, and notes that it is its turn.

    Args:
        env: the environment.
        index: among the rank's.
        seed: its own.
        now: one text, which names the environment whose turn it is.
    """

    def __init__(self, env: gym.Env[Any, Any], index: int, seed: int, now: list[str]) -> None:
        super().__init__(env)
        self._note = f"environment {index} of this rank, seed {seed}"
        self._now = now

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._now[0] = self._note
        try:
            return self.env.reset(**kwargs)
        except Exception as error:
            error.add_note(self._note)
            raise

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._now[0] = self._note
        try:
            return self.env.step(action)
        except Exception as error:
            error.add_note(self._note)
            raise


def make(
    env: Env,
    num_envs: int,
    seeds: Sequence[int],
    discount: float,
    threads: int = 1,
    say: Callable[[str], object] = sys.stderr.write,
) -> Environments:
    """Make ``num_envs`` environments that step together on ``threads`` threads (Atari; others take one).

    Args:
        env: which.
        num_envs: B.
        seeds: one for each.
        discount: for rewards that are normalised.
        threads: to step on, unless they are isolated.
        say: called with a line about each isolated environment that was replaced.

    Raises:
        ValueError: an unknown id (with the nearest), an import that fails, arguments that the environment
            does not take, or spaces that are not supported; in one line.
    """
    now = [f"one of the {num_envs} environments of this rank"]
    first = vector_of(env, 1 if env.isolated else num_envs, seeds, threads, now=now)
    spec = _spec(env, first)
    vector: VectorEnv[Any, Any, Any] | Isolated = first
    if env.isolated:
        first.close()
        vector = Isolated(partial(_alone, env), seeds[:num_envs], first, env.step_timeout_s, say)
    return Environments(
        vector,
        spec,
        seeds,
        reward_transform(env.reward, is_atari(env.id), num_envs, discount),
        env.life_loss_terminates and is_atari(env.id),
        None if env.isolated else Watchdog(env.step_timeout_s, lambda: f"{env.id}: {now[0]}"),
    )


def vector_of(
    env: Env, num_envs: int, seeds: Sequence[int], threads: int, index: int = 0, now: list[str] | None = None
) -> VectorEnv[Any, Any, Any]:
    """Make a vector environment in this process, of environments numbered from ``index``; see `make` for errors."""
    register()
    if is_atari(env.id):
        return _atari(env, num_envs, threads)
    build, turn = _constructor(env), [""] if now is None else now
    named = [lambda i=i: _Named(_encoded(build()), index + i, seeds[i], turn) for i in range(num_envs)]
    try:
        return SyncVectorEnv(named, autoreset_mode=AutoresetMode.NEXT_STEP)
    except Exception as error:
        raise ValueError(f"env.id = {env.id!r}: cannot be made: {type(error).__name__}: {error}") from error


def _alone(env: Env, index: int, seed: int) -> VectorEnv[Any, Any, Any]:
    return vector_of(env, 1, [seed], threads=1, index=index)


def games(env: Env) -> tuple[Env, ...]:
    """Return one `Env` for each of the ids; several Atari games all take the full set of 18 actions."""
    ids = env.ids
    options = dict(env.options)
    if len(ids) > 1 and all(map(is_atari, ids)):
        options.setdefault("full_action_space", True)
    return tuple(dataclasses.replace(env, id=name, options=options) for name in ids)


def probe(env: Env) -> EnvSpec:
    """Make one environment of each id to learn what all show and take, and close them.

    Raises:
        ValueError: as `make`, or ids that do not show and take the same.
    """
    specs = {}
    for game in games(env):
        made = make(dataclasses.replace(game, isolated=False), 1, [0], discount=1.0)
        made.close()
        specs[game.id] = made.spec
    first, spec = next(iter(specs.items()))
    for name, other in specs.items():
        if repr(other) != repr(spec):  # arrays inside
            raise ValueError(
                f"env.id = {env.id!r}: {name} does not show and take the same as {first} ({other} against {spec}); "
                "name environments of one kind"
            )
    return spec


def goal_outcome(env: Env, discount: float) -> GoalOutcome:
    """Return what transitions of a goal environment (see `EnvSpec.goal`) are worth under any goal.

    Rewards must be learned from as they are or clipped: a running deviation is another on every rank.
    """
    register()
    assert env.reward in ("raw", "clip"), "a rule of the configuration"
    return outcome(_constructor(env)(), reward_transform(env.reward, False, 1, discount))


def is_atari(name: str) -> bool:
    """Say whether an id names an Atari game of ale-py's."""
    return name.startswith("ALE/")


def register() -> None:
    """Make Gymnasium know Atari's and this package's ids; calling it again does nothing."""
    gym.register_envs(ale_py)
    for name, cls in (toy.BUILT_IN | goals.BUILT_IN).items():
        if name not in gym.registry:
            gym.register(id=name, entry_point=f"{cls.__module__}:{cls.__name__}")


def _atari(env: Env, num_envs: int, threads: int) -> AtariVectorEnv:
    if env.id not in gym.registry:
        raise ValueError(_unknown(env.id))
    try:
        return AtariVectorEnv(
            gym.spec(env.id).kwargs["game"],
            num_envs,
            num_threads=threads,
            stack_num=1,  # frames travel once; whoever needs observations stacks them
            frameskip=env.frame_skip,
            noop_max=env.noop_max,
            use_fire_reset=env.fire_reset,
            repeat_action_probability=env.sticky_actions,
            reward_clipping=False,
            **env.options,
        )
    except TypeError as error:
        raise ValueError(f"env.options = {env.options}: {error}") from error


def _constructor(env: Env) -> Callable[[], gym.Env[Any, Any]]:
    if ":" not in env.id:
        if env.id not in gym.registry:
            raise ValueError(_unknown(env.id))
        return lambda: gym.make(env.id, disable_env_checker=True, **env.options)
    module, _, name = env.id.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ValueError(
            f"env.id = {env.id!r}: cannot be imported: {type(error).__name__}: {error}; "
            "module:Class needs the module on PYTHONPATH"
        ) from error
    return lambda: cls(**env.options)


def _encoded(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return AsOneArray(env) if has_goal(env) else env


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.5)
    return f"env.id = {name!r}: no such environment; nearest: {', '.join(near) or 'none'}; or give module:Class"


def _spec(env: Env, vector: VectorEnv[Any, Any, Any]) -> EnvSpec:
    shape, dtype = _frame(env, vector.single_observation_space)
    atari = is_atari(env.id)
    goal = None
    if isinstance(vector, SyncVectorEnv) and vector.envs[0].has_wrapper_attr("goal_layout"):
        goal = vector.envs[0].get_wrapper_attr("goal_layout")
    return EnvSpec(
        frame_shape=shape,
        frame_dtype=dtype,
        frame_stack=env.frame_stack or (4 if atari else 1),
        action=_action(env, vector.single_action_space),
        frame_skip=env.frame_skip if atari else 1,
        goal=goal,
    )


def _frame(env: Env, space: gym.Space[Any]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if not isinstance(space, gym.spaces.Box) or not 1 <= len(space.shape) <= 3:
        raise ValueError(
            f"env.id = {env.id!r}: observations {space} are not supported; use a Box vector or image, or a "
            "dictionary of observation, desired_goal and achieved_goal (with compute_reward)"
        )
    shape = tuple(int(n) for n in space.shape)
    if is_atari(env.id):
        shape = shape[1:]  # the stack of one
    elif len(shape) == 3 and shape[-1] < shape[0]:
        shape = (shape[-1], *shape[:-1])
    image = len(shape) > 1 and space.dtype == np.uint8
    return shape, np.dtype(np.uint8 if image else np.float32)


def _action(env: Env, space: gym.Space[Any]) -> ActionSpec:
    if isinstance(space, gym.spaces.Discrete) and space.start == 0:
        return Discrete(int(space.n))
    if isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and space.is_bounded():
        return Continuous(np.asarray(space.low, np.float32), np.asarray(space.high, np.float32))
    raise ValueError(
        f"env.id = {env.id!r}: actions {space} are not supported; use Discrete from 0 or a bounded Box vector"
    )
