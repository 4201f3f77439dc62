"""All ranks' events as one timeline that ui.perfetto.dev opens: spans of phases, arrows of messages, one clock.

The format is Chrome's: "Trace Event Format", Google 2016. Times are in microseconds.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcddrl.logs.trace import PHASES, Kind
from hpcddrl.types import Array

MARK_US = 20.0  # how wide a message is drawn, at most: it ends before the next of its rank
GAP_US = 0.01  # between two of them, more than what rounding takes
Event = dict[str, Any]


class Clock(NamedTuple):
    """How far a rank's clock was ahead of rank 0's, when the job began and when it ended."""

    when: tuple[float, float]  # s, on rank 0's clock
    ahead: tuple[float, float]  # s

    def corrected(self, seconds: Array) -> Array:
        """Return seconds [n] of this rank's clock as those of rank 0's, taking it to have drifted evenly."""
        return seconds - np.interp(seconds - self.ahead[0], self.when, self.ahead)


class Track(NamedTuple):
    """One rank on the timeline."""

    owner: str  # under which it stands, such as its group
    name: str
    clock: Clock
    events: Array  # see `logs.trace.EVENT`


def write_timeline(path: Path, tracks: Sequence[Track], tags: Mapping[int, str], about: Mapping[str, Any]) -> None:
    """Write a timeline, compressed.

    Args:
        path: of the file; it has its name when it is whole.
        tracks: of all ranks, in order.
        tags: their names.
        about: shown as the trace's metadata.
    """
    new = path.with_name(path.name + ".new")
    with gzip.open(new, "wt", compresslevel=3) as file:
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(dict(about))}, "traceEvents": [\n')
        for number, event in enumerate(timeline(tracks, tags)):
            file.write(("" if number == 0 else ",\n") + json.dumps(event))
        file.write("\n]}\n")
    os.replace(new, path)


def timeline(tracks: Sequence[Track], tags: Mapping[int, str]) -> Iterator[Event]:
    """Yield the events of a timeline whose seconds begin with the first of them."""
    corrected = [_corrected(track) for track in tracks]
    start = min((float(events["began"].min()) for events in corrected if len(events)), default=0.0)
    owners = {owner: number for number, owner in enumerate(dict.fromkeys(track.owner for track in tracks), start=1)}
    arrows = _arrows(corrected)
    for rank, (track, events) in enumerate(zip(tracks, corrected, strict=True)):
        process = owners[track.owner]
        yield from _names(process, rank, track)
        yield from _spans(process, rank, events[events["kind"] == Kind.SPAN], start)
        messages = np.sort(events[events["kind"] != Kind.SPAN], order="began", kind="stable")
        yield from _messages(process, rank, messages, start, tags, arrows)


def _corrected(track: Track) -> Array:
    events = track.events.copy()
    for name in ("began", "ended"):
        events[name] = track.clock.corrected(events[name])
    return events


def _key(rank: int, event: Any) -> tuple[int, int, int, int]:
    """Return what a message is known by on both sides: tag, sender, receiver, number."""
    peer = int(event["peer"])
    sender, receiver = (rank, peer) if event["kind"] == Kind.SENT else (peer, rank)
    return int(event["what"]), sender, receiver, int(event["number"])


def _arrows(ranks: Sequence[Array]) -> dict[tuple[int, int, int, int], int]:
    """Return an arrow's number for each message of which both sides are there."""
    sides: dict[Kind, dict[tuple[int, int, int, int], None]] = {
        kind: {_key(rank, event): None for rank, events in enumerate(ranks) for event in events[events["kind"] == kind]}
        for kind in (Kind.SENT, Kind.RECEIVED)
    }
    both = (key for key in sides[Kind.SENT] if key in sides[Kind.RECEIVED])
    return {key: number for number, key in enumerate(both, start=1)}


def _threads(rank: int) -> tuple[int, int]:
    """Return the numbers of a rank's two lines, phases and messages; 0 has a meaning of its own to viewers."""
    return 2 * rank + 1, 2 * rank + 2


def _names(process: int, rank: int, track: Track) -> Iterator[Event]:
    phases, messages = _threads(rank)
    yield {"ph": "M", "name": "process_name", "pid": process, "args": {"name": track.owner}}
    yield {"ph": "M", "name": "process_sort_index", "pid": process, "args": {"sort_index": process}}
    for thread, name in ((phases, track.name), (messages, f"rank {rank} messages")):
        yield {"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": process, "tid": thread, "args": {"sort_index": thread}}


def _spans(process: int, rank: int, spans: Array, start: float) -> Iterator[Event]:
    """Yield a slice a span, outer ones first."""
    thread, _ = _threads(rank)
    for span in spans[np.lexsort((-spans["ended"], spans["began"]))]:
        began, ended = _us(span["began"], start), _us(span["ended"], start)
        name = str(PHASES[span["what"]])
        yield _slice(process, thread, name, "phase", began, ended - began)


def _messages(
    process: int,
    rank: int,
    messages: Array,
    start: float,
    tags: Mapping[int, str],
    arrows: Mapping[tuple[int, int, int, int], int],
) -> Iterator[Event]:
    """Yield a mark a message, and the begin or the end of its arrow."""
    _, thread = _threads(rank)
    for message, following in zip(messages, np.append(messages["began"], np.inf)[1:], strict=True):
        at, sent = _us(message["began"], start), message["kind"] == Kind.SENT
        width = min(MARK_US, max(0.0, _us(following, start) - at - GAP_US))
        tag, peer = tags[int(message["what"])], int(message["peer"])
        more = {"to": peer, "bytes": int(message["nbytes"])} if sent else {"from": peer}
        yield _slice(process, thread, tag, "sent" if sent else "received", at, width) | {"args": more}
        arrow = arrows.get(_key(rank, message))
        if arrow is not None:
            end = {"ph": "s"} if sent else {"ph": "f", "bp": "e"}
            place = {"pid": process, "tid": thread, "ts": at}
            yield {**end, "name": tag, "cat": "message", "id": arrow, **place}


def _slice(process: int, thread: int, name: str, kind: str, began: float, duration: float) -> Event:
    place = {"pid": process, "tid": thread, "ts": began, "dur": round(duration, 3)}
    return {"ph": "X", "name": name, "cat": kind, **place}


def _us(seconds: float, start: float) -> float:
    """Return microseconds since the start, to the nanosecond."""
    return round(1e6 * (float(seconds) - start), 3)
