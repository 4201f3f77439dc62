"""Each rank's periodic rows and status, and the one place that decides about stages and when the run ends."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from hpcddrl.comm.channel import Ending, Receiver, Sender, Slot, Tag, Traffic, drain, ignore
from hpcddrl.comm.failure import Signals
from hpcddrl.comm.messages import Order, Status, order_layout, status_layout
from hpcddrl.comm.placement import Place, Role, leaders, ranks_of
from hpcddrl.comm.roll import CODES, Change, RollCall, RollListener
from hpcddrl.comm.world import World
from hpcddrl.config import Budget
from hpcddrl.logs.rank_log import RankLog
from hpcddrl.logs.resident import resident_bytes
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.roles.counters import COUNTERS, EPISODES, POLL_S, REPORTS_PER_ROW, Counters, View
from hpcddrl.roles.stages import Watch
from hpcddrl.types import Array, Metrics, Stage

NONE = -1  # in an order: nothing of that kind
GREATEST = ("_max", "refused_stale", "refused_loss")  # not averaged over a row's interval; counts only grow


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
        self._watch, self._told = watch, Stage.EARLY
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
        if self._watch is not None:
            self._watch.keep()

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


class Control:
    """One rank's link to the rest of the job; its loop calls `tick` after each update or rollout.

    Args:
        world: all ranks.
        place: of this rank.
        monitor: on rank 0 alone.
        timing: of this rank.
        counters: of this rank.
        log: of this rank.
        signals: of this process.
        interval_s: between two rows.
        returns: of episodes, in a status at most.
        traffic: where messages are counted.
        roll: what rank 0 says of the others, on all others.
    """

    def __init__(
        self,
        world: World,
        place: Place,
        monitor: Monitor | None,
        timing: Timing,
        counters: Counters,
        log: RankLog,
        signals: Signals,
        interval_s: float,
        returns: int,
        traffic: Traffic,
        roll: RollListener | None = None,
    ) -> None:
        self.timing, self.counters, self.log = timing, counters, log
        self.stop = False  # the run is to end
        self.rest = False  # this leg of it is, for a checkpoint
        self._leg = 0
        self.wanted = None if monitor is None else monitor.stage  # what rank 0 told this rank to enter, if anything
        self.stage = Stage.EARLY  # what this rank has entered
        self._monitor, self._signals, self._interval_s, self._traffic = monitor, signals, interval_s, traffic
        self._sender = Sender(world, Tag.STATUS, status_layout(len(COUNTERS), returns), 2, traffic)
        hears = place.role in (Role.SERVER, Role.LEARNER) and monitor is None
        self._orders = Receiver(world, [0], Tag.ORDER, order_layout(), slots=1) if hears else None
        self._world, self._roll = world, roll
        self._learned: dict[str, list[float]] = {}
        self._histograms: defaultdict[str, Counter[float]] = defaultdict(Counter)
        self._lags: list[float] = []
        self._started = time.perf_counter()
        self._previous = timing.totals()
        self._previous_events, self._previous_squares = dict(timing.events), dict(timing.squares)
        self._previous_cpu, self._previous_wait_cpu = time.process_time(), timing.wait_cpu_s
        self._next_row = time.perf_counter() + interval_s
        self._next_report = self._next_poll = 0.0
        self._signalled = self._unwritten = False

    @property
    def ending(self) -> bool:
        """Say whether the run, or this leg of it, is to end."""
        return self.stop or self.rest

    def begin_leg(self, number: int) -> None:
        """Go on after a checkpoint. Every rank calls it."""
        self._leg, self.rest = number, False
        if self._monitor is not None:
            self._monitor.begin_leg(number)

    def settled(self, counters: Mapping[int, Array]) -> View:
        """See `Monitor`; on rank 0 alone."""
        assert self._monitor is not None
        return self._monitor.settled(counters)

    def learned(self, metrics: Metrics, lags: Array) -> None:
        """Note what one update has to tell; rows hold the mean over an interval."""
        for name, value in metrics.items():
            self._learned.setdefault(name, []).append(value)
        self._lags.extend(float(lag) for lag in lags)

    def count(self, table: str, value: float) -> None:
        """Count a value in the histogram of that name: each interval has a row for every value that came in it."""
        self._histograms[table][value] += 1

    def note(self, table: str, **row: float | str) -> None:
        """Append a row to a table of this rank's file."""
        self.log.append(table, row)

    def enter(self, stage: Stage, since: int) -> None:
        """Be in a stage, which began with that version of the weights; note it if it is another than before."""
        if stage is self.stage:
            return
        self.stage = stage
        why = {} if self._monitor is None else self._monitor.why(stage)
        self.note("stages", time=time.perf_counter() - self._started, stage=stage, version=since, **why)

    def helper(self, name: str, running: bool, reason: str, version: int) -> None:
        """Note that something that helps a stage has begun, or ended, with this version of the weights."""
        time_s = time.perf_counter() - self._started
        self.note("helpers", time=time_s, helper=name, running=running, reason=reason, version=version)

    def tick(self) -> None:
        """Write, report, and look for the order to stop, as far as each is due; cheap otherwise."""
        now = time.perf_counter()
        if now < self._next_poll and not (self._signals.received and not self._signalled):
            return
        self._next_poll = now + POLL_S
        self._world.look()
        due = now >= self._next_row
        if due:
            self._next_row = now + self._interval_s
            with self.timing(Phase.LOG):
                self._row()
                self._flush()
        if self._monitor is not None:
            if self._signals.received:
                self._monitor.stop(f"signal {signal.Signals(self._signals.received).name}")
            self._monitor.poll(self.counters)
            self.stop, self.wanted = self.stop or bool(self._monitor.reason), self._monitor.stage
            self.rest = self._monitor.rest
            if due:
                self._monitor.show()
        else:
            if now >= self._next_report or (self._signals.received and not self._signalled):
                self._next_report = now + self._interval_s / REPORTS_PER_ROW
                self._report()
            self._hear()

    def close(self) -> None:
        """Write the last row and part from rank 0. Every rank calls it, when its own loop is over."""
        with self.timing(Phase.LOG):
            self._row()
            self._flush()
        if self._monitor is not None:
            self._monitor.poll(self.counters)
            self._monitor.close()
        else:
            self._sender.say_last([0])
            orders = ((self._orders, ignore),) if self._orders is not None else ()
            roll = Ending() if self._roll is None else self._roll.end()
            # Other groups may have long to go.
            drain(Ending(orders, (self._sender,)), roll, patience_s=math.inf, meanwhile=self._world.look)

    def _flush(self) -> None:
        """Write the rows; on a full disk they are kept for the next time, and the run goes on."""
        try:
            self.log.flush()
        except (OSError, RuntimeError) as error:  # h5py raises either
            if not self._unwritten:
                sys.stderr.write(f"hpcddrl: {self.log.path}: cannot be written, its rows wait for room: {error}\n")
            self._unwritten = True
        else:
            self._unwritten = False

    def _report(self) -> None:
        slot = self._sender.take()
        if self._roll is not None:
            self._roll.reported(taken=slot is not None)
        if slot is None:
            return
        slot.record.counters[:] = self.counters.vector()
        slot.record.signal[0] = self._signals.received
        returns = self.counters.returns()
        slot.record.ended[0], slot.record.returns[: len(returns)] = len(returns), returns
        self._signalled = bool(self._signals.received)
        self._sender.send(slot, 0)
        self._sender.release(slot)

    def _hear(self) -> None:
        if self._roll is not None:
            self._roll.listen()
        if self._orders is not None and self._orders.open:
            for slot in self._orders.poll():
                self._obey(slot)
            self.stop = self.stop or not self._orders.open

    def _obey(self, slot: Slot[Order]) -> None:
        if not slot.record.last[0]:
            assert self._orders is not None
            if slot.record.stage[0] != NONE:
                self.wanted = Stage(int(slot.record.stage[0]))
            self.rest = self.rest or bool(slot.record.leg[0] == self._leg)
            self._orders.release(slot)

    def _row(self) -> None:
        totals = self.timing.totals()
        phases = {str(phase): totals[phase] - self._previous[phase] for phase in Phase}
        wall, cpu = sum(phases.values()), time.process_time()
        self.log.append("timing", phases | {"wall": wall, "cpu": cpu - self._previous_cpu})
        self._event_rows()
        self.log.append("waiting", {"cpu": self.timing.wait_cpu_s - self._previous_wait_cpu})
        self.counters.idle = phases[Phase.WAIT] / wall if wall else 0.0
        self._previous, self._previous_cpu = totals, cpu
        self._previous_wait_cpu = self.timing.wait_cpu_s
        for row in self.counters.finished():
            self.log.append("episodes", row)
        self._learning_row()
        self._histogram_rows()
        self._failure_rows()
        c = self.counters
        progress = {
            name: getattr(c, name)
            for name in (
                "frames",
                "env_steps",
                "predictions",
                "trained",
                "produced",
                "used",
                "dropped",
                "pending",
                "inherited",
                "restarts",
                "replayed",
                "interrupted",
                "updates",
                "episodes",
            )
        }
        self.log.append("progress", progress | {"time": time.perf_counter() - self._started, "rss": resident_bytes()})
        for tag in Tag:
            if self._traffic.messages[tag]:
                counts = {"messages": self._traffic.messages[tag], "bytes": self._traffic.bytes[tag]}
                self.log.append(f"traffic/{tag.name.lower()}", counts)

    def _event_rows(self) -> None:
        """Write how often each phase was entered and how its durations scatter, of the phases that this rank has."""
        events, squares = self.timing.events, self.timing.squares
        seen = [phase for phase in Phase if events[phase]]
        self.log.append("events", {str(p): events[p] - self._previous_events[p] for p in seen})
        self.log.append("squares", {str(p): squares[p] - self._previous_squares[p] for p in seen})
        self._previous_events, self._previous_squares = dict(events), dict(squares)

    def _failure_rows(self) -> None:
        changes = [] if self._monitor is None else self._monitor.changes
        for change in changes:
            what = float(CODES[change.what])
            self.log.append(
                "failures", {"rank": change.rank, "what": what, "time": time.perf_counter() - self._started}
            )
        changes.clear()

    def _learning_row(self) -> None:
        row = {
            name: float(max(values) if name.endswith(GREATEST) else np.mean(values))
            for name, values in self._learned.items()
        }
        if self._lags:
            c, lags = self.counters, self._lags
            c.lag_min, c.lag_mean, c.lag_max = min(lags), float(np.mean(lags)), max(lags)
            row |= {"lag_min": c.lag_min, "lag_mean": c.lag_mean, "lag_max": c.lag_max}
        if row:
            self.log.append("learning", row | {"time": time.perf_counter() - self._started})
        self._learned, self._lags = {}, []

    def _histogram_rows(self) -> None:
        now = time.perf_counter() - self._started
        for table, counts in self._histograms.items():
            for value, count in sorted(counts.items()):
                self.log.append(table, {table: value, "count": count, "time": now})
        self._histograms.clear()
