"""Each rank's side of the run: periodic rows and status, and the orders that it hears."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from hpcddrl.comm.channel import Ending, Receiver, Sender, Slot, Tag, Traffic, drain, ignore
from hpcddrl.comm.control_messages import Order, order_layout, status_layout
from hpcddrl.comm.failure import Signals
from hpcddrl.comm.placement import Place, Role
from hpcddrl.comm.roll import CODES, RollListener
from hpcddrl.comm.world import World
from hpcddrl.logs.rank_log import RankLog
from hpcddrl.logs.resident import resident_bytes
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.roles.counters import COUNTERS, POLL_S, REPORTS_PER_ROW, Counters, View
from hpcddrl.roles.monitor import NONE, Monitor
from hpcddrl.types import Array, Metrics, Stage

GREATEST = ("_max", "refused_stale", "refused_loss")  # not averaged over a row's interval; counts only grow


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
        stage_at: in exact runs, the stage by the frames behind weights; nobody need be told.
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
        stage_at: Callable[[float], Stage] | None = None,
    ) -> None:
        self._stage_at = stage_at
        self.timing, self.counters, self.log = timing, counters, log
        self.stop = False  # the run is to end
        self.rest = False  # this leg of it is, for a checkpoint
        self._leg = 0
        self.wanted: Stage | None = None  # what rank 0 told this rank to enter, if anything
        self.stage = Stage.EARLY  # what this rank has entered
        self.evaluation: dict[str, float] = {}  # the newest, if there is one
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

    @property
    def signalled(self) -> bool:
        """Say whether a signal has asked this process to stop."""
        return bool(self._signals.received)

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the start of this segment."""
        return time.perf_counter() - self._started

    def wanted_with(self, frames: float) -> Stage | None:
        """Return the stage that weights with so many frames behind them are to enter, as far as this rank knows."""
        return self.wanted if self._stage_at is None else self._stage_at(frames)

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

    def evaluated(self, row: Mapping[str, float]) -> None:
        """Note an evaluation of this rank's weights."""
        self.evaluation = dict(row)
        self.counters.evaluated = row["return"]
        self.note("evaluation", **row)

    def note(self, table: str, **row: float | str) -> None:
        """Append a row to a table of this rank's file."""
        self.log.append(table, row)

    def enter(self, stage: Stage, since: int) -> None:
        """Be in a stage, which began with that version of the weights; note it if it is another than before."""
        if stage is self.stage:
            return
        self.stage = stage
        why: dict[str, float | str] = {} if self._monitor is None else self._monitor.why(stage)
        if why and self._stage_at is not None:
            why = {"reason": "by the frames behind these weights, as given"}
        self.note("stages", time=self.elapsed_s, stage=stage, version=since, **why)

    def helper(self, name: str, running: bool, reason: str, version: int) -> None:
        """Note that something that helps a stage has begun, or ended, with this version of the weights."""
        time_s = self.elapsed_s
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
        self.log.append("progress", progress | {"time": self.elapsed_s, "rss": resident_bytes()})
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
            self.log.append("failures", {"rank": change.rank, "what": what, "time": self.elapsed_s})
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
            self.log.append("learning", row | {"time": self.elapsed_s})
        self._learned, self._lags = {}, []

    def _histogram_rows(self) -> None:
        now = self.elapsed_s
        for table, counts in self._histograms.items():
            for value, count in sorted(counts.items()):
                self.log.append(table, {table: value, "count": count, "time": now})
        self._histograms.clear()
