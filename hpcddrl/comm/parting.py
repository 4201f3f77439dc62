"""The end of a job: every rank that is still there hands in a report, rank 0 concludes, and all leave with one code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from hpcddrl.comm.channel import Ending, Receiver, Sender, Tag, Traffic, drain
from hpcddrl.comm.messages import ReportMessage, code_layout, report_layout
from hpcddrl.comm.wait import Backoff
from hpcddrl.comm.world import World

PATIENCE_S = 30.0  # for reports: all who hand one in have come to their end already

Report = dict[str, Any]


def part(world: World, report: Report, conclude: Callable[[dict[int, Report]], int], traffic: Traffic) -> int:
    """Return the exit code that rank 0 concludes from the reports of all who are still there, itself included.

    Args:
        world: all ranks.
        report: of this rank, of what JSON can hold.
        conclude: called on rank 0 with the reports by rank.
        traffic: where messages are counted.
    """
    if world.rank:
        _hand_in(world, report, traffic)
        return _told(world)
    others = list(range(1, world.size))
    code = conclude({0: report} | _collect(world, others))
    codes = Sender(world, Tag.CODE, code_layout(), 1, traffic)
    slot = codes.take()
    assert slot is not None, "the first"
    slot.record.code[0], slot.record.last[0] = code, 1
    for rank in others:
        codes.send(slot, rank)
    codes.release(slot)
    drain(Ending(senders=(codes,)))
    return code


def _collect(world: World, others: list[int]) -> dict[int, Report]:
    receiver = Receiver(world, others, Tag.REPORT, report_layout(), slots=1)
    reports: dict[int, Report] = {}
    backoff, until = Backoff(), time.monotonic() + PATIENCE_S
    while receiver.open:
        for slot in receiver.poll():
            reports[slot.source] = _read(slot.record)
        if time.monotonic() > until:
            world.give_up(world.silent | receiver.open)
        world.look()
        backoff.pause()
    return reports


def _hand_in(world: World, report: Report, traffic: Traffic) -> None:
    sender = Sender(world, Tag.REPORT, report_layout(), 1, traffic)
    slot = sender.take()
    assert slot is not None, "the first"
    text = json.dumps(report).encode()
    slot.record.length[0], slot.record.last[0] = len(text), 1
    slot.record.text[: len(text)] = np.frombuffer(text, np.uint8)
    sender.send(slot, 0)
    sender.release(slot)
    drain(Ending(senders=(sender,)))


def _told(world: World) -> int:
    receiver = Receiver(world, [0], Tag.CODE, code_layout(), slots=1)
    codes: list[int] = []
    drain(Ending(((receiver, lambda record: codes.append(int(record.code[0]))),)))
    return codes[0]


def _read(record: ReportMessage) -> Report:
    report: Report = json.loads(record.text[: record.length[0]].tobytes())
    return report
