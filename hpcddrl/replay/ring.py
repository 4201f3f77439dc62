"""Many environments' newest frames and steps, each stored once; transitions are put together when they are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hpcddrl.replay.gathered import Gathered, empty
from hpcddrl.replay.n_step import Returns, Steps, returns
from hpcddrl.replay.store import new_store, store_bytes
from hpcddrl.types import Array, EnvSpec, Rollout, State

_STRIDE = 64  # steps by which an episode's ends are looked for
UNJOINED = -2  # in place of a rollout's number: whatever comes next does not follow on it


class Ring:
    """The newest ``length`` frames of each of ``streams`` environments, with the steps between them.

    A *stream* is one environment's endless sequence of frames, episode after episode; its time counts frames and
    never starts again. A *key* names one time of one stream for good: time · streams + stream. The slot where it is
    stored is the key modulo length · streams, and the next frame of the same stream is the key + streams, so that
    arithmetic on keys is all that finding frames takes, and no index is stored.

    The step of time t leads from frame t to frame t + 1. If that frame is ``first``, the step only reset the
    environment and is no transition.

    Args:
        spec: the environments'.
        streams: how many.
        length: frames of each.
    """

    def __init__(self, spec: EnvSpec, streams: int, length: int) -> None:
        self._spec, self._depth = spec, spec.frame_stack
        self._streams, self._length = streams, length
        self._store = new_store(spec, streams * length)
        self._newest = np.full(streams, -1, np.int64)  # the time of each stream's newest frame
        self._number = np.full(streams, -1, np.int64)  # of the rollout that it came in

    @property
    def slots(self) -> int:
        """Return how many frames there is room for."""
        return self._streams * self._length

    @property
    def nbytes(self) -> int:
        """Return the memory held."""
        return sum(field.nbytes for field in self._store) + self._newest.nbytes + self._number.nbytes

    def state(self) -> State:
        """See `Stateful`: what has been written to so far."""
        written = self._written(self._newest)
        return {
            "store": {name: column[:written] for name, column in self._store._asdict().items()},
            "newest": self._newest,
            "number": self._number,
        }

    def restore(self, state: State) -> None:
        """See `Stateful`; of a ring of the same shape."""
        written = self._written(state["newest"])
        for name, column in self._store._asdict().items():
            column[:written] = state["store"][name]
        self._newest[:], self._number[:] = state["newest"], state["number"]

    def _written(self, newest: Array) -> int:
        """Return how many slots have been written to, when the streams stand at these times."""
        return min(self.slots, int(newest.max() + 1) * self._streams)

    def slot(self, keys: Array) -> Array:
        """Return where these keys are stored while they are."""
        slots: Array = keys % self.slots
        return slots

    def key(self, slots: Array) -> Array:
        """Return the newest keys that are stored in these slots."""
        streams = slots % self._streams
        newest: Array = self._newest[streams] * self._streams + streams
        return np.asarray(newest - (newest - slots) % self.slots)

    def holds(self, keys: Array) -> Array:
        """Say [N] bool whether the steps of these keys are stored, with all frames of their observations."""
        time, newest = keys // self._streams, self._newest[keys % self._streams]
        return np.asarray((self._oldest(newest) <= time) & (time < newest))

    def continues(self, stream: int, rollout: Rollout) -> bool:
        """Say whether a rollout follows on what its streams' last one ended with.

        If not, then it is their first, or others were lost in between.

        Raises:
            ValueError: the rollout does not fit these streams.
        """
        self._check(stream, rollout)
        return bool(self._newest[stream] >= 0 and rollout.number[0] == self._number[stream] + 1)

    def displaced(self, stream: int, rollout: Rollout) -> Array:
        """Return the keys [M] that are held now and would be no more with this rollout in."""
        newest, envs = int(self._newest[stream]), rollout.first.shape[1]
        added = len(rollout.first) - (self._depth if self.continues(stream, rollout) else 0)
        oldest = range(self._oldest(newest), self._oldest(newest + added))
        return self._keys(max(oldest.start, 0), oldest.stop, stream, envs).ravel()

    def recent(self, stream: int, envs: int, steps: int) -> Array:
        """Return the keys [M] of the last ``steps`` steps, as far as held, of ``envs`` streams from ``stream`` on."""
        newest = int(self._newest[stream])
        return self._keys(max(newest - steps, self._oldest(newest), 0), newest, stream, envs).ravel()

    def insert(self, stream: int, rollout: Rollout) -> Array:
        """Store the next rollout of the B streams that begin with ``stream``; return the keys [M] of its transitions.

        A rollout that does not `continue <continues>` its streams is not joined to them: its opening frames are
        stored as new ones, and the oldest of them counts as an episode's first, so no stack and no sum reaches back.

        Raises:
            ValueError: the rollout does not fit these streams.
        """
        joined, store, depth = self.continues(stream, rollout), self._store, self._depth
        length, envs = rollout.first.shape
        skip = depth if joined else 0  # frames that are here already
        newest = int(self._newest[stream]) + length - skip
        slots = self.slot(self._keys(newest + 1 - (length - skip), newest + 1, stream, envs))
        store.frames[slots] = rollout.frames[skip:]
        store.first[slots] = rollout.first[skip:]
        if not joined:
            store.first[slots[0]] = True
        steps = self._keys(newest - len(rollout.reward), newest, stream, envs)
        slots = self.slot(steps)
        store.action[slots], store.reward[slots], store.discount[slots] = (
            rollout.action,
            rollout.reward,
            rollout.discount,
        )
        store.value[slots], store.action_value[slots] = rollout.value, rollout.action_value
        store.version[slots] = rollout.version[0]
        self._newest[stream : stream + envs] = newest
        self._number[stream : stream + envs] = rollout.number[0]
        return steps[~rollout.first[depth:]]

    def beyond(self, stream: int, envs: int, frames: int) -> Array:
        """Return the keys [M] that are held now and would be no more with so many new frames of ``envs`` streams."""
        newest = int(self._newest[stream])
        return self._keys(max(self._oldest(newest), 0), self._oldest(newest + frames), stream, envs).ravel()

    def append(self, stream: int, rows: Mapping[str, Array]) -> Array:
        """Store what another ring held of B streams, not joined to what is here; return the keys [L, B].

        Args:
            stream: the first of the B.
            rows: its fields, [L, B, ...] each, as in `Store`; L frames, no more than there is room for.
        """
        length, envs = rows["first"].shape
        newest = int(self._newest[stream]) + length
        keys = self._keys(newest + 1 - length, newest + 1, stream, envs)
        slots = self.slot(keys)
        for name, column in self._store._asdict().items():
            column[slots] = rows[name]
        self._store.first[slots[0]] = True
        self._newest[stream : stream + envs] = newest
        self._number[stream : stream + envs] = UNJOINED
        return keys

    @property
    def streams(self) -> int:
        """Return how many streams there are."""
        return self._streams

    @property
    def length(self) -> int:
        """Return how many frames of each stream there is room for."""
        return self._length

    def steps(self, keys: Array, n: int) -> Steps:
        """Return the ``n`` steps from each key [N] on, be it the next episode's or slots not written yet."""
        rows = self.slot(self.after(keys[:, None], np.arange(n + 1)))
        store = self._store
        return Steps(store.first[rows[:, 1:]], store.reward[rows[:, :-1]], store.discount[rows[:, :-1]])

    def returns(self, keys: Array, n: int, gamma: float) -> Returns:
        """Sum up to ``n`` rewards from each key [N] on: no further than to the episode's end."""
        return returns(self.steps(keys, n), gamma)

    def after(self, keys: Array, steps: Any) -> Array:
        """Return the keys so many steps later in the same streams."""
        return np.asarray(keys + self._streams * steps)

    def frames(self, keys: Array) -> Array:
        """Return the single frames [*, *frame_shape] of keys [*]."""
        return np.asarray(self._store.frames[self.slot(keys)])

    def ahead(self, keys: Array) -> Array:
        """Return how many frames of its episode follow on each key's [N], as far as they are in."""
        return self._until_first(keys, self._newest[keys % self._streams] - keys // self._streams, forward=True)

    def behind(self, keys: Array) -> Array:
        """Return how many frames of its episode came before each key's [N], as far as they are held."""
        reach = keys // self._streams - self._oldest(self._newest[keys % self._streams])
        return self._until_first(keys, reach, forward=False)

    def complete(self, keys: Array, n: int) -> Array:
        """Say [N] bool whether transitions are in with all their steps and the value of their next observation.

        That value came with the step taken there. A truncated episode's final observation was acted on too, in the
        step that only reset the environment, so it has one of its own.
        """
        next_time = keys // self._streams + self.returns(keys, n, 1.0).steps
        return np.asarray(next_time < self._newest[keys % self._streams])

    def errors(self, keys: Array, n: int, gamma: float) -> Array:
        """Return R + γᵐ V(x_{t+m}) − Q(x_t, a_t) [N] f64 of complete transitions, as the weights that acted saw it."""
        earned = self.returns(keys, n, gamma)
        value = self._store.value[self.slot(self.after(keys, earned.steps))]
        bootstrap = np.where(earned.discount > 0, value, 0.0) * earned.discount  # no value behind termination
        return np.asarray(earned.reward + bootstrap - self._store.action_value[self.slot(keys)])

    def gather(self, keys: Array, n: int, gamma: float, out: Gathered | None = None) -> Gathered:
        """Put complete transitions [N] of up to ``n`` steps together.

        Args:
            keys: [N], held.
            n: steps.
            gamma: γ.
            out: contiguous arrays to write to, or None for new ones.
        """
        if out is None:
            out = empty(self._spec, len(keys))
        earned, slots = self.returns(keys, n, gamma), self.slot(keys)
        self.observe(keys, out.observation)
        self.observe(self.after(keys, earned.steps), out.next_observation)
        out.action[...], out.version[...] = self._store.action[slots], self._store.version[slots]
        out.reward[...], out.discount[...] = earned.reward, earned.discount
        return out

    def observe(self, keys: Array, out: Array) -> None:
        """Write the observations of keys [N] to ``out`` [N, *observation_shape]: the K frames up to each.

        Frames from before an episode's first are replaced by that one.
        """
        back = np.arange(self._depth)[::-1]
        frames = keys[:, None] - self._streams * back  # [N, K]
        first = self._store.first[self.slot(frames)]
        start = np.maximum.accumulate(np.where(first, frames, frames[:, :1]), axis=1)[:, -1:]  # of the episode
        rows = self.slot(np.maximum(frames, start))
        assert out.flags.c_contiguous, "observations are written in place"
        flat = self._store.frames.reshape(self.slots, -1)
        np.take(flat, rows, axis=0, out=out.reshape(*rows.shape, flat.shape[1]), mode="clip")

    def _until_first(self, keys: Array, reach: Array, forward: bool) -> Array:
        """Return how many steps [N] each key's episode goes on in one direction, at most ``reach`` [N]."""
        way = 1 if forward else -1
        found = reach.copy()
        left = np.arange(len(keys))
        for start in range(0, int(reach.max(initial=0)), _STRIDE):
            ahead = np.arange(start, start + _STRIDE)
            # Forward the next frame must open no episode, backward this one.
            first = self._store.first[self.slot(self.after(keys[left, None], way * ahead + forward))]
            ends = first.any(axis=1)
            found[left[ends]] = np.minimum(start + first[ends].argmax(axis=1), reach[left[ends]])
            left = left[~ends & (reach[left] > start + _STRIDE)]
        return found

    def _oldest(self, newest: Any) -> Any:
        """Return the oldest time whose whole stack of frames is stored beside ``newest``."""
        return newest - self._length + self._depth

    def _keys(self, start: int, stop: int, stream: int, envs: int) -> Array:
        """Return the keys [stop − start, envs] of these times of streams that stand at the same time."""
        return np.arange(start, stop)[:, None] * self._streams + np.arange(stream, stream + envs)

    def _check(self, stream: int, rollout: Rollout) -> None:
        length, envs = rollout.first.shape
        assert rollout.frames.shape[2:] == self._spec.frame_shape, "a rollout of other environments"
        if not 0 <= stream <= self._streams - envs:
            raise ValueError(
                f"stream = {stream}: a rollout of {envs} environments does not fit the {self._streams} streams; "
                "give the replay one stream for every environment"
            )
        if length > self._length:
            raise ValueError(
                f"unroll_length = {len(rollout.reward)}: a rollout of {length} frames does not fit the {self._length} "
                "that the replay keeps of each stream; enlarge its capacity or shorten rollouts"
            )
        if np.ptp(self._newest[stream : stream + envs]) or np.ptp(self._number[stream : stream + envs]):
            raise ValueError(
                f"stream = {stream}: streams {stream} to {stream + envs - 1} do not stand at the same time; "
                "rollouts of one actor always go to the same streams"
            )


def ring_bytes(spec: EnvSpec, streams: int, length: int) -> int:
    """Return the `nbytes` of a ring before there is one."""
    return store_bytes(spec, streams * length) + 2 * streams * np.dtype(np.int64).itemsize
