"""Simulated ranks: they work, on a core that they may share, and wait as politely as the real ones do."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import simpy

from hpcddrl.comm.placement import Role
from hpcddrl.comm.wait import LONGEST_S, SHORTEST_S
from hpcddrl.simulation.cost import Cost, Machine, Work

Run = Generator[simpy.Event, Any, None]
QUANTUM_S = 3e-3  # that a rank keeps a core which others want


class World:
    """The clock, the dice, the machine, and what all ranks count together."""

    def __init__(self, machine: Machine, seed: int, length: int = 1) -> None:
        self.clock = simpy.Environment()
        self.length = length  # of a rollout, in steps
        self.rng = np.random.default_rng(seed)
        self.machine = machine
        self.messages: Counter[str] = Counter()
        self.nbytes: Counter[str] = Counter()
        self.start_s = 0.0  # of the measuring
        self.ranks: list[Rank] = []
        self.made: Counter[Role] = Counter()  # of them, by role
        self._hosts: list[simpy.Resource] = []
        self._behind = 0  # ranks that have not stepped as often as they should before the simulation goes on
        self._goal = self.clock.event()

    @property
    def now(self) -> float:
        """Return the simulated seconds so far."""
        return float(self.clock.now)

    def add(self, rank: Rank) -> simpy.Resource | None:
        """Take the next rank in; return the cores that it shares, None if it has one of its own."""
        if self.machine.cores is not None and len(self.ranks) % self.machine.ranks_per_host == 0:
            self._hosts.append(simpy.Resource(self.clock, self.machine.cores))
        self.ranks.append(rank)
        return self._hosts[-1] if self._hosts else None

    def run_until(self, steppers: Sequence[Rank], steps: int) -> None:
        """Simulate until each of these ranks has stepped its environments so often from now."""
        self._behind, self._goal = len(steppers), self.clock.event()
        for rank in steppers:
            rank.goal = rank.stepped + steps
        self.clock.run(until=self._goal)

    def reached(self) -> None:
        """One more rank has stepped as often as it should."""
        self._behind -= 1
        if not self._behind:
            self._goal.succeed()

    def start_over(self) -> None:
        """Forget what was counted so far: the measuring starts."""
        self.start_s = self.now
        self.messages.clear()
        self.nbytes.clear()
        for rank in self.ranks:
            rank.start_over()

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        """Do something after a while."""
        callbacks = self.clock.timeout(delay_s).callbacks
        assert callbacks is not None
        callbacks.append(lambda _: what())

    def transfer(self, sender: Rank, receiver: Rank, nbytes: float) -> float:
        """Put a message on the way; return the seconds until it is there.

        A rank takes one message at a time and sends one at a time, each at the machine's bandwidth.
        """
        machine, now = self.machine, self.now
        wire_s = nbytes / machine.bandwidth
        through = max(now, sender.out_free, receiver.in_free) + wire_s
        sender.out_free = receiver.in_free = through
        sender.out_s += wire_s
        receiver.in_s += wire_s
        return through + machine.latency_s - now


class Pace:
    """How often something happens: from the first time that it is seen to the last."""

    def __init__(self) -> None:
        self._first = self._last = math.nan
        self._count = 0.0

    def note(self, now: float, count: float = 1.0) -> None:
        """Note that it has happened so often since the time before."""
        if math.isnan(self._first):
            self._first = now
        else:
            self._count += count
        self._last = now

    @property
    def per_s(self) -> float:
        """Return how often in a second, 0 where it was seen once at most."""
        return self._count / (self._last - self._first) if self._count else 0.0


class Rank:
    """One simulated rank.

    Args:
        world: that it is part of.
        role: in the job.
        work: what its work takes.
        tests: posted buffers that it looks at in each poll.
    """

    def __init__(self, world: World, role: Role, work: Work, tests: int) -> None:
        self.world, self.role, self.work = world, role, work
        self.poll_s = tests * world.machine.test_s
        self.out_free = self.in_free = 0.0  # when its links are
        self.busy_s = self.in_s = self.out_s = 0.0  # that it, and each of its links, was at work
        self.steps, self.updates = Pace(), Pace()
        self.lags: list[int] = []  # of what it learned from; of a server, its gradients' staleness
        self.stepped, self.goal = 0, math.inf  # steps of its environments since the start, and how many are wanted
        self._core = world.add(self)
        self._bell: simpy.Event | None = None
        self._sleeps: dict[float, list[float]] = {}
        self._watch: tuple[float, float] | None = None
        self._next_look = 0.0

    def watch(self, every_s: float, cost_s: float) -> None:
        """Look at all ranks' reports so often; each look takes so long."""
        self._watch = (every_s, cost_s)

    def spend(self, cost: Cost) -> Run:
        """Work for as long as this takes."""
        yield from self.compute(cost.draw(self.world.rng))

    def compute(self, seconds: float) -> Run:
        """Work for so long.

        Where cores are shared, what counts is the processor time in it: the wait for a core is simulated.
        """
        start = self.world.now
        if self._core is None:
            yield self.world.clock.timeout(seconds)
        else:
            yield from self._occupy(self._core, seconds * self.work.cpu)
        self.busy_s += self.world.now - start

    def _occupy(self, core: simpy.Resource, seconds: float) -> Run:
        """Keep a core busy, giving it up now and then to those who wait."""
        while seconds > 0:
            with core.request() as turn:
                yield turn
                yield self.world.clock.timeout(min(seconds, QUANTUM_S))
            seconds -= QUANTUM_S

    def act(self, steps: int, overhead: Cost = Cost()) -> Run:  # noqa: B008 (frozen)
        """Choose actions and step environments so often, with what else comes with each step."""
        work, rng, each = self.work, self.world.rng, self.work.act + overhead
        if self._core is None:
            yield from self.compute((work.env + each).times(steps).draw(rng))
        else:
            for _ in range(steps):
                env_s, start = work.env.draw(rng), self.world.now
                yield from self._occupy(self._core, each.draw(rng) * work.cpu + env_s * work.env_cpu)
                yield self.world.clock.timeout(env_s * (1 - work.env_cpu))
                self.busy_s += self.world.now - start
        self.stepped += steps
        if self.stepped % self.world.length == 0:  # whole rollouts, since waits come between them
            self.steps.note(self.world.now, self.world.length)
        if self.stepped >= self.goal:
            self.goal = math.inf
            self.world.reached()

    def ring(self) -> None:
        """Something came for this rank."""
        if self._bell is not None and not self._bell.triggered:
            self._bell.succeed()

    def wait(self, ready: Callable[[], bool], longest_s: float = LONGEST_S) -> Run:
        """Poll until something is ready: it is found at the end of the sleep during which it came."""
        if ready():
            return
        clock, start = self.world.clock, self.world.now
        while True:
            self._bell = clock.event()
            yield self._bell
            yield clock.timeout(self._wakes(self.world.now - start, longest_s) - (self.world.now - start))
            if ready():
                return

    def _wakes(self, elapsed_s: float, longest_s: float) -> float:
        """Return when the first sleep ends after so many seconds of waiting, counted from their start."""
        ends = self._sleeps.get(longest_s)
        if ends is None:
            ends, delay_s = [], SHORTEST_S
            while True:
                slept_s = min(delay_s, longest_s) + self.world.machine.sleep_s + self.poll_s
                ends.append(slept_s + (ends[-1] if ends else 0.0))
                if delay_s >= longest_s:
                    break
                delay_s *= 2
            self._sleeps[longest_s] = ends
        if elapsed_s <= ends[-1]:
            return ends[bisect_left(ends, elapsed_s)]
        each_s = ends[-1] - ends[-2] if len(ends) > 1 else ends[-1]
        return ends[-1] + -(-(elapsed_s - ends[-1]) // each_s) * each_s

    def tick(self) -> Run:
        """Look at the other ranks' reports if it is time, on the rank that does."""
        if self._watch is not None and self.world.now >= self._next_look:
            every_s, cost_s = self._watch
            self._next_look = self.world.now + every_s
            yield from self.compute(cost_s)

    def start_over(self) -> None:
        """Forget what was counted so far: the measuring starts."""
        self.busy_s = self.in_s = self.out_s = 0.0
        self.steps, self.updates = Pace(), Pace()
        self.lags = []
