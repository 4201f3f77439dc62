"""Traces: what is kept of a rank, and the timeline that is made of all ranks."""

import gzip
import json
import time
from collections import defaultdict

import numpy as np
import pytest

from hpcddrl.logs.timeline import MARK_US, Clock, Track, timeline, write_timeline
from hpcddrl.logs.timing import Phase, Timing
from hpcddrl.logs.trace import EVENT, PHASES, Kind, Recorder

TAGS = {1: "rollout", 3: "weights"}
SAME = Clock((0.0, 10.0), (0.0, 0.0))


def test_the_newest_events_are_kept_and_all_are_counted():
    recorder = Recorder(3)
    for n in range(5):
        recorder.sent(peer=7, tag=1, nbytes=n)
    kept = recorder.events()
    assert kept.dtype == EVENT
    assert kept["number"].tolist() == kept["nbytes"].tolist() == [2, 3, 4]
    assert recorder.seen == 5


def test_messages_are_numbered_by_tag_peer_and_direction():
    recorder = Recorder(100)
    for peer, tag in ((1, 1), (1, 1), (2, 1), (1, 3)):
        recorder.sent(peer, tag, 10)
    for _ in range(2):
        recorder.received(1, 1)
    assert recorder.events()["number"].tolist() == [0, 1, 0, 0, 0, 1]


def test_spans_are_those_that_the_log_counts():
    recorder = Recorder(1000)
    timing = Timing(recorder.span)
    for _ in range(3):
        with timing(Phase.COLLECT):
            with timing(Phase.ACT):
                time.sleep(1e-4)
            timing.totals()
            with timing(Phase.ENV):
                pass
    events = recorder.events()
    counts = {phase: int((events["what"] == PHASES.index(phase)).sum()) for phase in PHASES}
    assert counts == timing.events
    whole = events["ended"] - events["began"]
    outer = events["what"] == PHASES.index(Phase.COLLECT)
    totals = timing.totals()
    assert whole[outer].sum() == pytest.approx(totals[Phase.COLLECT] + totals[Phase.ACT] + totals[Phase.ENV])


def test_a_phase_that_fails_ends_in_the_trace_too():
    recorder = Recorder(10)
    timing = Timing(recorder.span)

    def fail():
        with timing(Phase.SEND):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(recorder.events()) == 1


# --- clocks


def test_a_clock_is_corrected_by_what_it_was_ahead_then():
    clock = Clock((100.0, 200.0), (50.0, 52.0))
    assert clock.corrected(np.array([150.0, 201.0, 252.0])) == pytest.approx([100, 150, 200], abs=0.05)


def test_the_clock_of_rank_0_is_the_jobs():
    times = np.array([1.0, 2.5])
    assert SAME.corrected(times).tolist() == times.tolist()


# --- the timeline


def span(phase, began, ended):
    return (Kind.SPAN, PHASES.index(phase), began, ended, -1, 0, 0)


def sent(tag, at, peer, number, nbytes=64):
    return (Kind.SENT, tag, at, at, peer, number, nbytes)


def received(tag, at, peer, number):
    return (Kind.RECEIVED, tag, at, at, peer, number, 0)


def tracks(*ranks, clocks=None):
    clocks = clocks or [SAME] * len(ranks)
    return [
        Track(f"group {rank // 2}", f"rank {rank}", clock, np.array(events, EVENT))
        for rank, (events, clock) in enumerate(zip(ranks, clocks, strict=True))
    ]


def slices(events, kind):
    return [(e["name"], e["tid"], e["ts"], e["dur"]) for e in events if e["ph"] == "X" and e["cat"] == kind]


def test_spans_stand_in_their_ranks_line_outer_ones_first():
    inner, outer = span(Phase.ACT, 5.001, 5.002), span(Phase.COLLECT, 5.0, 5.01)
    made = list(timeline(tracks([inner, outer], [span(Phase.WAIT, 5.5, 6.0)]), TAGS))
    assert slices(made, "phase") == [("collect", 1, 0, 10_000), ("act", 1, 1000, 1000), ("wait", 3, 500_000, 500_000)]
    names = [e["args"]["name"] for e in made if e["name"] in ("process_name", "thread_name")]
    assert names == ["group 0", "rank 0", "rank 0 messages", "group 0", "rank 1", "rank 1 messages"]


def test_an_arrow_goes_from_each_message_to_where_it_came():
    made = list(
        timeline(
            tracks(
                [sent(1, 1.0, peer=1, number=4), sent(1, 1.1, peer=1, number=5), sent(3, 1.2, peer=2, number=0)],
                [received(1, 1.3, peer=0, number=5)],
                [received(3, 1.4, peer=0, number=0), sent(1, 1.5, peer=1, number=9)],
            ),
            TAGS,
        )
    )
    starts = {e["id"]: e for e in made if e["ph"] == "s"}
    ends = {e["id"]: e for e in made if e["ph"] == "f"}
    assert starts.keys() == ends.keys()
    drawn = {(s["name"], s["tid"], s["ts"], ends[i]["tid"], ends[i]["ts"]) for i, s in starts.items()}
    assert drawn == {("rollout", 2, 100_000, 4, 300_000), ("weights", 2, 200_000, 6, 400_000)}, "both sides are kept"
    marks = slices(made, "sent") + slices(made, "received")
    assert len(marks) == 6, "also those without an arrow"
    assert {e["args"].get("bytes") for e in made if e["ph"] == "X"} == {64, None}
    for end in (*starts.values(), *ends.values()):
        assert any(tid == end["tid"] and ts == end["ts"] for _, tid, ts, _ in marks), (
            "an arrow needs a slice to stand on"
        )


def test_marks_are_narrow_and_do_not_overlap():
    made = list(timeline(tracks([sent(1, 1.0, 1, 0), sent(1, 1.0 + 5e-6, 1, 1), sent(1, 2.0, 1, 2)], []), TAGS))
    widths = [width for *_, width in slices(made, "sent")]
    assert widths[0] == pytest.approx(5, abs=0.1)
    assert widths[0] < 5
    assert widths[1:] == [MARK_US, MARK_US]


def test_ranks_with_other_clocks_are_put_on_the_first_ones():
    other = Clock((1.0, 3.0), (1000.0, 1000.0))
    ranks = tracks([sent(1, 1.5, 1, 0)], [received(1, 1001.75, 0, 0)], clocks=[SAME, other])
    (start,), (end,) = ([e["ts"] for e in timeline(ranks, TAGS) if e["ph"] == kind] for kind in "sf")
    assert end - start == pytest.approx(250_000, abs=0.01)


def test_the_file_is_one_that_viewers_read(tmp_path):
    path = tmp_path / "trace.json.gz"
    write_timeline(
        path, tracks([span(Phase.ENV, 1.0, 2.0), sent(1, 1.5, 1, 0)], [received(1, 1.6, 0, 0)]), TAGS, {"ranks": 2}
    )
    read = json.loads(gzip.decompress(path.read_bytes()))
    assert read["otherData"] == {"ranks": 2}
    check_trace(read)
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json.gz"]


def test_a_job_without_events_makes_a_file_too(tmp_path):
    write_timeline(tmp_path / "trace.json.gz", tracks([], []), TAGS, {})
    check_trace(json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes())))


def check_trace(read):
    """Check what the format asks for: known kinds, numbers, arrows in pairs, slices that nest."""
    ends = defaultdict(list)
    lines = defaultdict(list)
    for event in read["traceEvents"]:
        assert event["ph"] in ("M", "X", "s", "f")
        assert event["pid"] > 0
        if event["ph"] != "M":
            assert event["ts"] >= 0
            assert event["tid"] > 0
        if event["ph"] in "sf":
            ends[event["id"]].append(event["ph"])
        if event["ph"] == "X":
            assert event["dur"] >= 0
            lines[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert all(sorted(kinds) == ["f", "s"] for kinds in ends.values())
    for line in lines.values():
        around = []
        for began, ended in line:
            while around and around[-1] <= began + 2e-3:
                around.pop()
            assert not around or ended <= around[-1] + 2e-3, "slices of a line overlap without one being in the other"
            around.append(ended)
