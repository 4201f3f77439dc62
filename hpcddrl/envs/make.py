"""From an id and a count to environments that step together."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ale_py
import gymnasium as gym
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from hpcddrl.config import Env
from hpcddrl.envs import goals, toy
from hpcddrl.envs.environments import Environments
from hpcddrl.envs.goal_frames import AsOneArray, has_goal, outcome
from hpcddrl.envs.isolated import Isolated
from hpcddrl.envs.rewards import reward_transform
from hpcddrl.envs.spaces import spec_of
from hpcddrl.envs.watchdog import Watchdog
from hpcddrl.types import EnvSpec, GoalOutcome


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
    spec = spec_of(env, first, is_atari(env.id))
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
