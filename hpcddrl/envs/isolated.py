"""Environments in processes of their own: one that hangs or crashes is replaced, and the others don't notice."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import VectorEnv

from hpcddrl.types import Array, RunError

Build = Callable[[int, int], VectorEnv[Any, Any, Any]]  # from index and seed to a vector environment of one
START_S = 300.0  # for a process to start and reset its environment, at least
BEAT_S = 1.0
PR_SET_PDEATHSIG = 1


def reset(vector: VectorEnv[Any, Any, Any] | Isolated, seeds: Sequence[int]) -> tuple[Array, dict[str, Any]]:
    """Reset a vector environment from one seed for each of its environments."""
    wanted: Any = np.array(seeds) if isinstance(vector, AtariVectorEnv) else list(seeds)
    frame, info = vector.reset(seed=wanted)
    return frame, info


class Worker(NamedTuple):
    """A process with one environment."""

    process: SpawnProcess
    connection: Connection


class Shown(NamedTuple):
    """What one environment answers: to a reset only the frame (and lives) mean anything."""

    frame: Array  # [1, *shape]
    reward: float
    terminated: bool
    truncated: bool
    lives: float  # NaN where there are none


class Isolated:
    """B environments stepped together, each in a process of its own; has what `Environments` needs of a vector of them.

    One that takes longer than ``timeout_s`` for a step, or whose process ends, is killed and started anew with another
    seed; ``info["restarted"]`` says so. Its frame is then the first of a new episode, and the episode before is lost.

    Args:
        build: makes one of them; picklable.
        seeds: of the environments.
        spaces: a vector environment of the same kind, for its spaces.
        timeout_s: most seconds of a step.
        say: called with a line about each restart.
    """

    def __init__(
        self,
        build: Build,
        seeds: Sequence[int],
        spaces: VectorEnv[Any, Any, Any],
        timeout_s: float,
        say: Callable[[str], object],
    ) -> None:
        self.num_envs = len(seeds)
        self.single_observation_space: gym.Space[Any] = spaces.single_observation_space
        self.single_action_space: gym.Space[Any] = spaces.single_action_space
        self._build, self._seeds, self._timeout_s, self._say = build, list(seeds), timeout_s, say
        self._restarts = [0] * self.num_envs
        self._workers = [self._start(i) for i in range(self.num_envs)]

    def reset(self, *, seed: Sequence[int]) -> tuple[Array, dict[str, Any]]:
        """Reset each from its seed."""
        self._seeds = list(seed)
        for worker, own in zip(self._workers, self._seeds, strict=True):
            worker.connection.send(own)
        limit_s = max(START_S, self._timeout_s)
        shown: list[Shown] = []
        for i, answer in enumerate(self._answers(limit_s)):
            if answer is None:
                raise RunError(f"{self._name(i)} did not start within {limit_s:.0f} s")
            shown.append(answer)
        frame, *_, info = self._together(shown, np.zeros(self.num_envs, bool))
        return frame, info

    def step(self, action: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Step all, replacing those that hang or have crashed."""
        for worker, own in zip(self._workers, action, strict=True):
            with contextlib.suppress(OSError):  # its process has ended: found out below
                worker.connection.send(own)
        shown = self._answers(self._timeout_s)
        restarted = np.array([answer is None for answer in shown])
        whole = [self._replaced(i) if answer is None else answer for i, answer in enumerate(shown)]
        return self._together(whole, restarted)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            _end(worker)

    def _name(self, i: int) -> str:
        return f"environment {i} of this rank, seed {self._seeds[i]},"

    def _start(self, i: int) -> Worker:
        context = multiprocessing.get_context("spawn")  # a copy of this process would be a copy of its MPI
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, self._build, i, self._seeds[i]), daemon=True)
        process.start()
        there.close()
        return Worker(process, here)

    def _replaced(self, i: int) -> Shown:
        """Put another environment in the place of one that failed; return its first frame."""
        old = self._workers[i]
        old.process.join(BEAT_S)  # one that has crashed may take a moment to be gone
        how = "hung" if old.process.exitcode is None else f"ended with exit code {old.process.exitcode}"
        _end(old)
        name = self._name(i)
        self._restarts[i] += 1
        self._seeds[i] = int(np.random.SeedSequence([self._seeds[i], self._restarts[i]]).generate_state(1)[0] >> 1)
        self._say(f"{name} {how}: killed and started anew with seed {self._seeds[i]} (restart {self._restarts[i]})")
        self._workers[i] = worker = self._start(i)
        worker.connection.send(self._seeds[i])
        answer = self._await({worker.connection: i}, max(START_S, self._timeout_s)).get(i)
        if answer is None:
            raise RunError(f"{self._name(i)} could not be started anew after it {how}")
        return answer

    def _answers(self, limit_s: float) -> list[Shown | None]:
        """Return what each environment answers within a time; None for those that don't, or have no process."""
        found = self._await({worker.connection: i for i, worker in enumerate(self._workers)}, limit_s)
        return [found.get(i) for i in range(self.num_envs)]

    def _await(self, pending: dict[Connection, int], limit_s: float) -> dict[int, Shown]:
        """Return the answers that come within a time, counted in beats: being stopped for a while is no hang."""
        found: dict[int, Shown] = {}
        spent_s = 0.0
        while pending and spent_s <= limit_s:
            beat_s = min(BEAT_S, limit_s / 4)
            ready = wait(list(pending), beat_s)
            spent_s += 0.0 if ready else beat_s
            for connection in ready:
                assert isinstance(connection, Connection)
                i = pending.pop(connection)
                with contextlib.suppress(EOFError, ConnectionResetError):
                    answer = connection.recv()
                    if isinstance(answer, Exception):
                        raise answer
                    found[i] = answer
        return found

    def _together(self, shown: list[Shown], restarted: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        info: dict[str, Any] = {"restarted": restarted}
        lives = np.array([one.lives for one in shown])
        if not np.isnan(lives).any():
            info["lives"] = lives
        return (
            np.concatenate([one.frame for one in shown]),
            np.array([one.reward for one in shown]),
            np.array([one.terminated for one in shown]),
            np.array([one.truncated for one in shown]),
            info,
        )


def belong_to_rank() -> None:
    """Let this process, which a rank has started, end with it, and leave signals to it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # one that hangs would outlive its rank
    for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def serve(connection: Connection, build: Build, index: int, seed: int) -> None:
    """Be a worker: reset to every seed and step by every action that comes, until nobody sends any more.

    What the environment raises is sent back, to be raised there.
    """
    belong_to_rank()
    try:
        vector = build(index, seed)
        while True:
            asked = connection.recv()
            if isinstance(asked, int):
                frame, info = reset(vector, [asked])
                shown = Shown(np.array(frame), 0.0, False, False, _lives(info))
            else:
                frame, reward, terminated, truncated, info = vector.step(np.array([asked]))
                shown = Shown(np.array(frame), float(reward[0]), bool(terminated[0]), bool(truncated[0]), _lives(info))
            connection.send(shown)
    except EOFError:
        return
    except Exception as error:
        connection.send(error)


def _lives(info: dict[str, Any]) -> float:
    return float(info["lives"][0]) if "lives" in info else float("nan")


def _end(worker: Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.connection.close()
