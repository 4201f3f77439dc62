"""What acts in the place of a learner's weights: a cheaper network that follows them."""

from __future__ import annotations

import copy
import math
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch

from hpcddrl.compressors.compressed import EACH_UPDATE, Bytes, Compressor
from hpcddrl.compressors.distillation import JUDGED, Likeness, answers, mean_kl
from hpcddrl.compressors.fallback import Fallback
from hpcddrl.logs.timing import Phase
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.rl.distillation import Drift, is_due
from hpcddrl.roles.control import Control
from hpcddrl.types import Batch, RunError, State, Transitions, Weights

BATCHES = 4  # that the recent observations come from, at least
LOOK_EVERY = 50  # updates between two rows in the log about what is renewed each time


class Recent:
    """The observations that were learned from last, some of each batch.

    Args:
        first: observations [N, *observation_shape] to begin with.
        most: observations to keep.
    """

    def __init__(self, first: torch.Tensor, most: int) -> None:
        self._kept, self._most, self._next = first[:most].clone(), most, 0

    def add(self, batch: Batch | Transitions) -> None:
        """Take some of a batch's observations, evenly, for the oldest."""
        found = batch.observation.flatten(0, 2) if isinstance(batch, Batch) else batch.observation
        share = max(1, self._most // BATCHES)
        found = found[:: -(-len(found) // share)].to(self._kept.device)
        room = self._most - len(self._kept)
        if room:
            self._kept = torch.cat([self._kept, found[:room]])
        for part in torch.split(found[room:], self._most):
            self._overwrite(part)

    def all(self) -> torch.Tensor:
        """Return them, in no order."""
        return self._kept

    def newest(self, count: int) -> torch.Tensor:
        """Return those that came last."""
        return self._kept[[(self._next - 1 - i) % len(self._kept) for i in range(min(count, len(self._kept)))]]

    def state(self) -> State:
        """See `Stateful`."""
        return {"kept": self._kept, "next": self._next}

    def restore(self, state: State) -> None:
        """See `Stateful`; where fewer are to be kept now, the newest are."""
        self._kept, self._next = state["kept"].clone(), state["next"]
        if len(self._kept) != self._most:
            self._kept, self._next = self._kept.roll(-self._next, 0)[-self._most :], 0

    def _overwrite(self, observation: torch.Tensor) -> None:
        rows = (self._next + torch.arange(len(observation))) % self._most
        self._kept[rows] = observation
        self._next = (self._next + len(observation)) % self._most


class _Begun(NamedTuple):
    """A student on its way to its teacher's answers."""

    version: int  # of the teacher
    kl_before: float
    main_s: float  # that it has taken of the learner's own time so far
    learned: Future[tuple[int, float]]  # the steps and seconds that it took in its thread


class Compressing:
    """Keeps a stand-in for the weights being learned, which follows them when it is time to.

    What acts is of the version that it last followed, so a student that lags is seen as lag. A student that learns
    beside the learner does so from copies of the teacher and the observations, in a thread that does nothing else; all
    other work is done here, in the learner's own time.

    Args:
        of: what kind of stand-in it is, in words.
        compressor: makes it.
        teacher: the network being learned.
        recent: what to follow on.
        likeness: how far the stand-in's answers are from the teacher's.
        control: of this rank.
    """

    def __init__(
        self,
        of: str,
        compressor: Compressor | Fallback,
        teacher: AnyNetwork,
        recent: Recent,
        likeness: Likeness,
        control: Control,
    ) -> None:
        self.of, self._compressor, self._teacher = of, compressor, teacher
        self._recent, self._likeness, self._control = recent, likeness, control
        self._packed: Bytes | None = compressor.stand_in.pack()
        self.nbytes = len(self._packed)
        self._version = self._looked = -1
        self._started = time.perf_counter()
        self._spent_s = self._last_s = 0.0
        self._thread = ThreadPoolExecutor(max_workers=1)  # starts with the first that is given to it
        self._begun: _Begun | None = None

    def see(self, batch: Batch | Transitions) -> None:
        """See `Packing`."""
        with self._control.timing(Phase.COMPRESS):
            self._recent.add(batch)

    def renew(self, weights: Weights) -> int:
        """See `Packing`."""
        with self._control.timing(Phase.COMPRESS):
            if self._begun is not None:
                if self._begun.learned.done():
                    self._finish(self._begun)
            elif self._version < 0 or is_due(self._compressor.trigger, self._drift(weights.version)):
                self._follow(weights.version)
        return self._version

    def pack(self) -> Bytes:
        """See `Packing`."""
        if self._packed is None:
            with self._control.timing(Phase.COMPRESS):
                self._packed = self._compressor.stand_in.pack()
        return self._packed

    def end(self) -> None:
        """See `Packing`."""
        with self._control.timing(Phase.COMPRESS):
            self._thread.shutdown()
            if self._begun is not None:
                self._finish(self._begun)
        self._thread = ThreadPoolExecutor(max_workers=1)  # for another leg, if there is one

    def state(self) -> State:
        """See `Stateful`: at the end of a leg, when nothing is begun."""
        assert self._begun is None
        return {
            "of": self.of,
            "compressor": self._compressor.state(),
            "recent": self._recent.state(),
            "version": self._version,
            "looked": self._looked,
            "spent_s": self._spent_s,
            "last_s": self._last_s,
            "elapsed_s": time.perf_counter() - self._started,
        }

    def restore(self, state: State) -> None:
        """See `Stateful`: of the same kind."""
        self._compressor.restore(state["compressor"])
        self._recent.restore(state["recent"])
        self._version, self._looked = state["version"], state["looked"]
        self._spent_s, self._last_s = state["spent_s"], state["last_s"]
        self._started = time.perf_counter() - state["elapsed_s"]
        self._packed = None

    def _drift(self, version: int) -> Drift:
        return Drift(
            updates=version - self._version,
            unseen=version - self._looked,
            kl=lambda: self._kl(version),
            spent_s=self._spent_s,
            last_s=self._last_s,
            elapsed_s=time.perf_counter() - self._started,
        )

    def _kl(self, version: int) -> float:
        self._looked = version
        states = self._recent.newest(JUDGED)
        wanted, given = answers(self._teacher, states), answers(self._compressor.stand_in, states)
        return mean_kl(self._likeness, wanted, given)

    def _follow(self, version: int) -> None:
        """Follow at once, or begin to: the first time at once, since somebody waits for something to act."""
        start = time.perf_counter()
        looks = self._compressor.trigger != EACH_UPDATE or version - self._looked >= LOOK_EVERY
        before = self._kl(version) if looks and self._version >= 0 else math.nan
        if self._compressor.beside and self._version >= 0:
            teacher, states = copy.deepcopy(self._teacher), self._recent.all().clone()
            learned = self._thread.submit(_timed, self._compressor, teacher, states)
            self._begun = _Begun(version, before, time.perf_counter() - start, learned)
            return
        steps = self._compressor.learn(self._teacher, self._recent.all())
        self._take(version, steps, before, start, looks=looks)

    def _finish(self, begun: _Begun) -> None:
        start = time.perf_counter() - begun.main_s
        steps, beside_s = begun.learned.result()
        self._begun = None
        self._take(begun.version, steps, begun.kl_before, start, looks=True, beside_s=beside_s)

    def _take(
        self, version: int, steps: int, before: float, start: float, *, looks: bool, beside_s: float = 0.0
    ) -> None:
        """Let what has followed act from now on, unless it has become too unlike its teacher: then the next.

        Raises:
            RunError: its answers are not finite, and there is no next.
        """
        self._compressor.take(self._recent.all())
        self._packed = None
        after = self._kl(version) if looks else math.nan
        seconds = time.perf_counter() - start + beside_s
        if self._version >= 0:  # the first time is of the start: libraries wake up, and rounds of pruning are done
            self._last_s = seconds
            self._spent_s += seconds
        if looks:
            self._control.note(
                "compression",
                version=version,
                updates=version - max(0, self._version),
                kl_before=before,
                kl_after=after,
                steps=steps,
                seconds=seconds,
                beside=beside_s,
                bytes=len(self.pack()),
                choice=self._compressor.choice,
            )
        self._version = version
        if looks and not self._compressor.accepts(after):
            start = time.perf_counter()
            steps = self._compressor.learn(self._teacher, self._recent.all())
            self._take(version, steps, after, start, looks=True)
        elif looks and math.isnan(after):
            raise RunError(
                f"compression {self.of}: its answers are not finite, after it followed version {version} of the "
                "network. Try another compression or, if it has them, compression.format=fp32 or a lower "
                "compression.distillation.learning_rate"
            )


def _timed(compressor: Compressor | Fallback, teacher: AnyNetwork, states: torch.Tensor) -> tuple[int, float]:
    start = time.perf_counter()
    return compressor.learn(teacher, states), time.perf_counter() - start
