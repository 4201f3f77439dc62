"""Playing with a learner's weights beside it, in a process that takes the processor time that ranks leave."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

import numpy as np
import torch

from hpcddrl.config import Config
from hpcddrl.envs.isolated import belong_to_rank
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.make import make_network
from hpcddrl.roles.evaluating import Played
from hpcddrl.runtime.evaluation import Player, Protocol, Score, behaviour_of, returns_in_blocks
from hpcddrl.types import Array, EnvSpec

NICENESS = 10  # a processor that a rank wants too gives it a tenth; of 19 games would hardly ever end


class Worker(NamedTuple):
    """The process that plays."""

    process: SpawnProcess
    connection: Connection


class Apart:
    """An `Examiner` in a process of its own, which is started anew if it has ended.

    The learner neither waits for it nor for the pipe between them: a thread does, which calls nothing of MPI.

    Args:
        config: of the network and its environments.
        spec: of these.
        protocol: how games are played.
        niceness: of the process, over this one's.
    """

    def __init__(self, config: Config, spec: EnvSpec, protocol: Protocol, niceness: int = NICENESS) -> None:
        self._what = config, spec, protocol, niceness
        self._worker = self._start()
        self._asked: queue.SimpleQueue[tuple[Connection, Array]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Played | str] = queue.SimpleQueue()
        threading.Thread(target=self._converse, daemon=True, name="evaluation").start()

    def begin(self, values: torch.Tensor) -> None:
        """See `Examiner`."""
        if not self._worker.process.is_alive():
            self._worker.connection.close()
            self._worker = self._start()
        self._asked.put((self._worker.connection, values.detach().to("cpu", copy=True).numpy()))

    def result(self) -> Played | None:
        """See `Examiner`."""
        try:
            answer = self._answers.get_nowait()
        except queue.Empty:
            return None
        if isinstance(answer, str):
            raise ChildProcessError(answer)
        return answer

    def end(self) -> None:
        """See `Examiner`."""
        self._worker.process.kill()
        self._worker.process.join()

    def _start(self) -> Worker:
        context = get_context("spawn")  # a copy of this process would be a copy of its MPI
        here, there = context.Pipe()
        process = context.Process(target=serve, args=(there, *self._what), daemon=True)
        process.start()
        there.close()
        return Worker(process, here)

    def _converse(self) -> None:
        """Hand over what is asked for and wait for the answer, again and again."""
        while True:
            connection, values = self._asked.get()
            try:
                connection.send_bytes(values.view(np.uint8).data)
                self._answers.put(connection.recv())
            except (EOFError, OSError) as error:
                self._answers.put(f"its process has ended ({type(error).__name__})")


def serve(connection: Connection, config: Config, spec: EnvSpec, protocol: Protocol, niceness: int) -> None:
    """Be that process: play with all weights that come, until nobody sends any more.

    What an environment raises is sent back as text, and ends it; so does one that hangs.
    """
    belong_to_rank()
    os.nice(niceness)
    torch.set_num_threads(1)
    threading.excepthook = _die
    config = replace(config, env=replace(config.env, isolated=False))  # this process is isolation enough
    network = make_network(config.network, config.algorithm, spec, seed=0)
    values = flatten(network).values
    player = Player("", 0, 0, config, network, behaviour_of(config, spec))
    try:
        while True:
            received = np.frombuffer(connection.recv_bytes(), np.float32)
            values.copy_(torch.from_numpy(received.copy()))
            connection.send(played(player, protocol))
    except EOFError:
        return
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def played(player: Player, protocol: Protocol) -> Played:
    """Play the games of an evaluation."""
    began, cpu = time.perf_counter(), time.process_time()
    score = Score(player.version, player.frames, returns_in_blocks(player, protocol))
    low, high = score.interval
    return Played(score.mean, low, high, time.perf_counter() - began, time.process_time() - cpu)


def _die(args: threading.ExceptHookArgs) -> None:
    """End the process when one of its threads does: that is what finds out that an environment hangs."""
    sys.stderr.write(f"hpcddrl: evaluation: {args.exc_value}\n")
    os._exit(1)
