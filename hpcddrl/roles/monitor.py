"""Rank 0's view of the job: it hears of all ranks, decides when the run ends, and orders stages and rests."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping

import numpy as np

from hpcddrl.comm.channel import Ending, Receiver, Sender, Tag, Traffic, drain
from hpcddrl.comm.control_messages import Status, order_layout, status_layout
from hpcddrl.comm.placement import Place, Role, leaders, ranks_of
from hpcddrl.comm.roll import Change, RollCall
from hpcddrl.comm.world import World
from hpcddrl.config import Budget
from hpcddrl.roles.counters import COUNTERS, EPISODES, Counters, View
from hpcddrl.roles.stages import Watch
from hpcddrl.types import Array, Stage

NONE = -1  # in an order: nothing of that kind


class Monitor:
    """Rank 0's view of the job, its stages and its end.

    Args:
        world: all ranks.
        places: of all ranks.
        budget: when to end.
        exact: leave the budget of frames to the learners, which stop at exactly the same place each time.
        frames_before: environment frames of earlier segments.
        rest_every_s: between two checkpoints, unless the run is exact: there they are at fixed versions.
        show: called with the view once an interval.
        say: called with a line about a rank that died, fell silent or came back.
        silent_after_s: without a word that make a rank a silent one.
        watch: tells stages, where they are told.
        returns: of episodes, in a status at most.
        traffic: where messages are counted.
    """

    def __init__(
        self,
        world: World,
        places: tuple[Place, ...],
        budget: Budget,
        exact: bool,
        frames_before: float,
        rest_every_s: float,
        show: Callable[[View], None],
        say: Callable[[str], None],
        silent_after_s: float,
        watch: Watch | None,
        returns: int,
        traffic: Traffic,
    ) -> None:
        others = list(range(1, world.size))
        self._world, self._say = world, say
        self._roll = RollCall(world, silent_after_s, traffic)
        self.changes: list[Change] = []  # not written to the log yet
        self._watch = watch
        self._told: Stage | None = None
        self._enters = ranks_of(places, Role.SERVER)[:1] or leaders(places)  # who makes the weights that others get
        self._places, self._budget, self._exact, self._show = places, budget, exact, show
        self._frames_before = frames_before
        self._counters = np.full((world.size, len(COUNTERS)), np.nan)
        self._statuses = Receiver(world, others, Tag.STATUS, status_layout(len(COUNTERS), returns), slots=2)
        self._orders = Sender(world, Tag.ORDER, order_layout(), 2, traffic)  # so that a stop finds room behind a rest
        self._ordered = [r for r in (*ranks_of(places, Role.SERVER), *ranks_of(places, Role.LEARNER)) if r]
        self._start = time.monotonic()
        self._fresh_s = silent_after_s / 2
        self._rest_every_s = math.inf if exact else rest_every_s
        self.reason = ""
        self.begin_leg(0)

    def begin_leg(self, number: int) -> None:
        """Note that all ranks have begun a leg."""
        self._leg, self.rest, self._waits = number, False, False
        self._next_rest = time.monotonic() + self._rest_every_s

    def poll(self, own: Counters) -> None:
        """Take the statuses that have arrived and decide whether the run ends; if so, order it once."""
        self._counters[0] = own.vector()
        returns = own.returns()
        for slot in self._statuses.poll():
            self._take(slot.record)
            self._counters[slot.source] = slot.record.counters
            returns += slot.record.returns[: int(slot.record.ended[0])].tolist()
            self._statuses.release(slot)
        self._call_roll()
        if self._watch is not None:
            self._watch.see(self._frames_before + self.view().total("frames"), returns)
        if not self.reason:
            self._order_stage()
            self._decide()
        if not self.reason:
            self._order_rest()

    @property
    def stage(self) -> Stage | None:
        """Return the stage that the job is in; None where nobody tells it."""
        return None if self._watch is None else self._watch.stage

    def why(self, stage: Stage) -> dict[str, float | str]:
        """See `Watch`."""
        assert self._watch is not None, "without it there is one stage only"
        return self._watch.why(stage)

    def stop(self, reason: str) -> None:
        """End the run for this reason."""
        if not self.reason:
            self.reason = reason
            self._roll.finish()
            self._orders.say_last(self._ordered)

    def show(self) -> None:
        """Show the view."""
        self._show(self.view())

    def view(self) -> View:
        """Return what is known now."""
        seconds, world = time.monotonic() - self._start, self._world
        return View(self._places, seconds, self._counters, self.stage, world.lost, world.silent)

    def settled(self, counters: Mapping[int, Array]) -> View:
        """Return what is known when these ranks have handed in their counters: all but those that are gone."""
        for rank, own in counters.items():
            self._counters[rank] = own
        return self.view()._replace(silent=self._world.gone - self._world.lost)

    def close(self) -> None:
        """Take what is left, until every rank has said its last, and let all of them part.

        Where the learners count the frames, a group that is through must not cut a slower one short.
        """
        drain(Ending(((self._statuses, self._take),)), meanwhile=self._call_roll)
        self.stop("frames")
        drain(Ending(senders=(self._orders,)), self._roll.end())

    def _call_roll(self) -> None:
        self._world.look()
        changes = self._roll.call(self._statuses.heard, self._statuses.open)
        for change in changes:
            self._say(change.line(self._world))
        self.changes += changes

    def _order_stage(self) -> None:
        """Tell those who make weights of a new stage, unless they have not heard of the one before yet."""
        stage = self.stage
        if stage is None or stage is self._told or self.rest:
            return
        slot = self._orders.take()
        if slot is None:
            return
        slot.record.stage[0], slot.record.leg[0] = stage, NONE
        for rank in self._enters:
            if rank:
                self._orders.send(slot, rank)
        self._orders.release(slot)
        self._told = stage

    def _order_rest(self) -> None:
        """Let a leg end, if the time has come and everyone is there: all would wait for who is silent.

        A rank that has not been heard of for a while may be about to be called silent.
        """
        now = time.monotonic()
        if self.rest or now < self._next_rest or not self._orders.idle:
            return
        heard = self._statuses.heard
        if any(now - heard[rank] > self._fresh_s for rank in self._statuses.open):
            if self._world.silent and not self._waits:
                self._waits = True
                self._say(f"no checkpoint while ranks {sorted(self._world.silent)} are silent")
            return
        slot = self._orders.take()
        assert slot is not None, "no order is on its way"
        slot.record.stage[0], slot.record.leg[0] = NONE, self._leg
        for rank in self._ordered:
            self._orders.send(slot, rank)
        self._orders.release(slot)
        self.rest = True

    def _take(self, record: Status) -> None:
        if record.signal[0]:
            self.stop(f"signal {signal.Signals(int(record.signal[0])).name}")

    def _decide(self) -> None:
        view, budget = self.view(), self._budget
        if budget.seconds is not None and view.seconds >= budget.seconds:
            self.stop("seconds")
        elif budget.frames is not None and self._frames_before + view.total("frames") >= budget.frames:
            if not self._exact:
                self.stop("frames")
        elif (
            budget.target_return is not None
            and view.episodes_seen >= EPISODES
            and view.return_mean >= budget.target_return
        ):
            self.stop("target_return")
