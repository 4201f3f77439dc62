"""A replay of n-step transitions: rollouts go in, samples come out, and every transition is accounted for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hpcddrl.replay.gathered import Gathered, empty
from hpcddrl.replay.hindsight import Hindsight
from hpcddrl.replay.priorities import Priorities, importance_weights
from hpcddrl.replay.ring import Ring, ring_bytes
from hpcddrl.types import Array, EnvSpec, Rollout, State

# What a slot's step is. From _FRESH on it can be drawn.
_ABSENT, _WAITING, _FRESH, _USED = range(4)  # no transition; its end is not in yet; never learned from; learned from


class Sample(NamedTuple):
    """N transitions drawn from a replay."""

    keys: Array  # [N] i64: name the transitions for good, for `Replay.update` and `Replay.mark`
    observation: Array  # [N, *observation_shape]
    next_observation: Array  # [N, *observation_shape]: n steps later, or the episode's last
    action: Array  # [N] i64 | [N, dim] f32
    reward: Array  # [N] f32: Σ γᵏ r over the steps
    discount: Array  # [N] f32: of the value of the next observation; 0 if the episode terminated before it
    weight: Array  # [N] f32: importance weights, at most 1
    version: Array  # [N] i64: of the weights that acted


class History(NamedTuple):
    """What a replay held of B environments that stepped together, L frames of each, from the oldest on."""

    rows: Mapping[str, Array]  # [L, B, ...] each, see `Ring.append`
    states: Array  # [L, B] what each step is, see `_ABSENT`
    priorities: Mapping[str, Array]  # [L, B] each, see `Priorities.adopt`


class Replay:
    """Keeps the newest transitions of many environments and draws from them.

    A transition becomes drawable when its n steps, or its episode's end, are in and so is the value of the
    observation that it ends in; it stops being drawable before any of its frames is overwritten. Each that was ever
    inserted is one of three: *used* (learned from at least once, whether still held or not), *dropped* (gone
    without) or *pending* (held, drawable or not yet). Steps that only reset an environment count nowhere.

    Args:
        spec: the environments'.
        streams: environments whose rollouts come here.
        capacity: drawable transitions, at least: there is room for ⌈capacity / streams⌉ of each stream, and for what
            their first stacks and last sums reach out to.
        n_step: n.
        discount: γ.
        priorities: from a number of slots to who is drawn how often.
        seed: of the draws.
        hindsight: gives what is drawn other goals, or None. A priority is then that of a transition under the goal
            that it was last drawn with.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(
        self,
        spec: EnvSpec,
        streams: int,
        capacity: int,
        n_step: int,
        discount: float,
        priorities: Callable[[int], Priorities],
        seed: int,
        hindsight: Hindsight | None = None,
    ) -> None:
        if not 0.0 <= discount <= 1.0:
            raise ValueError(f"discount = {discount}: must be from 0 to 1")
        self._spec, self._n, self._discount = spec, n_step, discount
        self._ring = Ring(spec, streams, _length(spec, streams, capacity, n_step))
        self._state = np.full(self._ring.slots, _ABSENT, np.uint8)
        self._priorities = priorities(self._ring.slots)
        self._rng = np.random.default_rng(seed)
        self._hindsight = hindsight
        self._drawable = 0
        self.inserted = 0
        self.used = 0
        self.dropped = 0
        self._settled = 0  # of those inserted, used or dropped before the last `restore`

    def state(self) -> State:
        """See `Stateful`: everything that is held."""
        return {
            "ring": self._ring.state(),
            "slots": self._state,
            "priorities": self._priorities.state(),
            "generator": self._rng.bit_generator.state,
            "drawable": self._drawable,
            "inserted": self.inserted,
            "pending": self.pending,
        }

    def restore(self, state: State) -> None:
        """See `Stateful`; of a replay of the same shape, or its `histories`, of any.

        ``used`` and ``dropped`` begin anew, ``pending`` goes on.
        """
        if "histories" in state:
            self._adopt(state["histories"])
            return
        self._ring.restore(state["ring"])
        self._state[:] = state["slots"]
        self._priorities.restore(state["priorities"])
        self._rng.bit_generator.state = state["generator"]
        self._drawable, self.inserted = int(state["drawable"]), int(state["inserted"])
        self._settled, self.used, self.dropped = self.inserted - int(state["pending"]), 0, 0

    def _adopt(self, found: Sequence[History]) -> None:
        """Take what other replays held, block by block; what finds no room is dropped, the oldest first."""
        for number, history in enumerate(found):
            envs = history.states.shape[1]
            self._append(number * envs % self._ring.streams, history)

    def _append(self, stream: int, history: History) -> None:
        ring, (length, envs) = self._ring, history.states.shape
        entered = int(np.count_nonzero((history.states == _WAITING) | (history.states == _FRESH)))
        kept = min(length, ring.length)
        rows = {name: column[length - kept :] for name, column in history.rows.items()}
        self._evict(self._waiting(ring.recent(stream, envs, self._n)))
        self._evict(ring.beyond(stream, envs, kept))
        keys = ring.append(stream, rows)
        states = np.where(history.states[length - kept :] >= _FRESH, history.states[length - kept :], _ABSENT)
        states[~ring.holds(keys)] = _ABSENT
        slots, drawable = ring.slot(keys), states >= _FRESH
        self._state[slots] = states
        self._priorities.adopt(
            slots[drawable], {name: column[length - kept :][drawable] for name, column in history.priorities.items()}
        )
        self._drawable += int(drawable.sum())
        lost = entered - int(np.count_nonzero(states == _FRESH))
        self.inserted += int(drawable.sum()) + lost
        self._settled += int(np.count_nonzero(states == _USED))
        self.dropped += lost

    def __len__(self) -> int:
        """Return how many transitions are drawable."""
        return self._drawable

    @property
    def pending(self) -> int:
        """Return how many transitions are held that were never learned from."""
        return self.inserted - self._settled - self.used - self.dropped

    @property
    def nbytes(self) -> int:
        """Return the memory held."""
        return self._ring.nbytes + self._state.nbytes + self._priorities.nbytes

    def insert(self, stream: int, rollout: Rollout) -> int:
        """Take the next rollout of the B streams that begin with ``stream``; return how many became drawable.

        Their first priorities are |R + γᵐ V(x_{t+m}) − Q(x_t, a_t)| from the values in the rollouts, so they cost no
        forward pass (Horgan et al. 2018, arXiv:1803.00933, algorithm 1). If rollouts were lost in between, what
        waited for them is dropped.

        Raises:
            ValueError: a rollout that does not fit these streams, or values that are no numbers.
        """
        ring, (steps, envs) = self._ring, rollout.reward.shape
        if not ring.continues(stream, rollout):
            self._evict(self._waiting(ring.recent(stream, envs, self._n)))
        self._evict(ring.displaced(stream, rollout))
        transitions = ring.insert(stream, rollout)
        self._state[ring.slot(transitions)] = _WAITING
        self.inserted += len(transitions)
        waiting = self._waiting(ring.recent(stream, envs, steps + self._n))
        ready = waiting[ring.complete(waiting, self._n)]
        errors = _finite(np.abs(ring.errors(ready, self._n, self._discount)), ready, "initial error")
        slots = ring.slot(ready)
        self._state[slots] = _FRESH
        self._drawable += len(ready)
        self._priorities.set(slots, errors)
        return len(ready)

    def sample(self, n: int, beta: float = 0.0, out: Sample | None = None) -> Sample:
        """Draw ``n`` transitions with replacement.

        Args:
            n: how many.
            beta: β of the importance weights; 0 makes them all 1.
            out: contiguous arrays to write to, such as a message's, or None for new ones.

        Raises:
            ValueError: nothing is drawable, or a number is out of its range.
        """
        if n < 1:
            raise ValueError(f"n = {n}: must be at least 1")
        if not 0.0 <= beta <= 1.0:
            raise ValueError(f"beta = {beta}: must be from 0 (no correction) to 1 (full correction)")
        if not self._drawable:
            raise ValueError(
                f"n = {n}: the replay holds 0 drawable transitions and needs at least 1; insert rollouts of more than "
                f"n_step = {self._n} steps in all first"
            )
        if out is None:
            out = sample_buffers(self._spec, n)
        slots, probability = self._priorities.draw(n, self._rng)
        out.keys[...] = self._ring.key(slots)
        out.weight[...] = importance_weights(probability, beta)
        into = Gathered(*(getattr(out, field) for field in Gathered._fields))
        self._ring.gather(out.keys, self._n, self._discount, into)
        if self._hindsight is not None:
            self._hindsight.relabel(self._ring, out.keys, self._n, self._discount, into, self._rng)
        return out

    def update(self, keys: Array, errors: Array) -> None:
        """Give transitions [N] new errors δ [N]; those that are gone by now are passed over.

        Raises:
            ValueError: an error is no finite number.
        """
        errors = _finite(np.abs(errors), keys, "error")
        here = self._here(keys)
        self._priorities.set(self._ring.slot(keys[here]), errors[here])

    def mark(self, keys: Array) -> int:
        """Note that transitions [N] were learned from; return how many of them for the first time.

        Those that are gone by now count as dropped already.
        """
        slots = np.unique(self._ring.slot(keys[self._here(keys)]))
        fresh = slots[self._state[slots] == _FRESH]
        self._state[fresh] = _USED
        self.used += len(fresh)
        return len(fresh)

    def _here(self, keys: Array) -> Array:
        """Say [N] bool which keys are drawable still."""
        return np.asarray(self._ring.holds(keys) & (self._state[self._ring.slot(keys)] >= _FRESH))

    def _waiting(self, keys: Array) -> Array:
        return np.asarray(keys[self._state[self._ring.slot(keys)] == _WAITING])

    def _evict(self, keys: Array) -> None:
        slots = self._ring.slot(keys)
        state = self._state[slots]
        drawable = slots[state >= _FRESH]
        self.dropped += int(np.count_nonzero((state == _WAITING) | (state == _FRESH)))
        self._drawable -= len(drawable)
        self._priorities.remove(drawable)
        self._state[slots] = _ABSENT


def histories(state: State, envs: int) -> list[History]:
    """Return what a replay held of each block of ``envs`` streams that began together, from what `Replay.state` gave.

    Streams of which nothing came are left out.
    """
    ring, slots = state["ring"], len(state["slots"])
    streams = len(ring["newest"])
    length = slots // streams
    found = []
    for stream in range(0, streams, envs):
        newest = int(ring["newest"][stream])
        times = np.arange(max(0, newest + 1 - length), newest + 1)
        rows = (times[:, None] * streams + np.arange(stream, stream + envs)) % slots
        if len(times):
            weights = {
                name: column[rows] for name, column in state["priorities"].items() if np.shape(column) == (slots,)
            }
            stored = {name: column[rows] for name, column in ring["store"].items()}
            found.append(History(stored, state["slots"][rows], weights))
    return found


def replay_bytes(spec: EnvSpec, streams: int, capacity: int, n_step: int, kind: type[Priorities]) -> int:
    """Return the `nbytes` of a replay before there is one.

    Raises:
        ValueError: a number out of its range.
    """
    length = _length(spec, streams, capacity, n_step)
    slots = streams * length
    states = slots * np.dtype(np.uint8).itemsize
    return ring_bytes(spec, streams, length) + states + kind.bytes_for(slots)


def sample_buffers(spec: EnvSpec, n: int) -> Sample:
    """Return uninitialised arrays for ``n`` transitions, to be filled by `Replay.sample`."""
    return Sample(keys=np.empty(n, np.int64), weight=np.empty(n, np.float32), **empty(spec, n)._asdict())


def _length(spec: EnvSpec, streams: int, capacity: int, n_step: int) -> int:
    """Return how many frames of each stream are kept.

    The newest n + 1 are not drawable themselves (their sums are not in, or the newest value), and the oldest K − 1
    only complete the stacks of later ones.
    """
    for name, number in (("streams", streams), ("capacity", capacity), ("n_step", n_step)):
        if number < 1:
            raise ValueError(f"{name} = {number}: must be at least 1")
    return -(-capacity // streams) + spec.frame_stack + n_step


def _finite(errors: Array, keys: Array, name: str) -> Array:
    bad = np.flatnonzero(~np.isfinite(errors))
    if len(bad):
        raise ValueError(
            f"{name} {errors[bad[0]]} of transition {keys[bad[0]]}: must be a finite number, and {len(bad)} of "
            f"{len(errors)} are not; the values have diverged: lower the learning rate or clip gradients"
        )
    return errors
