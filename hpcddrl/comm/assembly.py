"""A point where all ranks meet that are still there: each reports to rank 0, which answers all of them.

Messages between two ranks do where anyone may die or fall silent; what is collective would wait for them for ever.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from hpcddrl.comm.channel import PATIENCE_S, Ending, Receiver, Sender, Tag, Traffic, drain
from hpcddrl.comm.control_messages import answer_layout, report_layout
from hpcddrl.comm.wait import Backoff
from hpcddrl.comm.world import World
from hpcddrl.types import Array

Conclude = Callable[[dict[int, Array]], Array]


def nothing() -> None:
    """Do nothing while others are awaited."""


def assemble(
    world: World,
    report: Array,
    conclude: Conclude,
    answer_bytes: int,
    traffic: Traffic,
    *,
    meanwhile: Callable[[], None] = nothing,
    reports_within_s: float = math.inf,
    patience_s: float = PATIENCE_S,
) -> Array:
    """Return what rank 0 concludes, [answer_bytes] u8, from the reports of all who are still there, itself included.

    Args:
        world: all ranks.
        report: of this rank, [nbytes] u8, as many on every rank.
        conclude: called on rank 0 with the reports by rank.
        answer_bytes: of what it returns.
        traffic: where messages are counted.
        meanwhile: called while others are awaited.
        reports_within_s: rank 0 gives up who has not reported then.
        patience_s: of this rank for rank 0.

    Raises:
        RunError: rank 0 did not answer in time.
    """
    if world.rank:
        reports = Sender(world, Tag.REPORT, report_layout(report.nbytes), 1, traffic)
        _say(reports, report, [0])
        answers = Receiver(world, [0], Tag.ANSWER, answer_layout(answer_bytes), slots=1)
        heard: list[Array] = []
        ending = Ending(((answers, lambda record: heard.append(record.data.copy())),), (reports,))
        drain(ending, patience_s=patience_s, meanwhile=meanwhile)
        return heard[0]
    others = list(range(1, world.size))
    answer = conclude({0: report} | _collect(world, others, report.nbytes, meanwhile, reports_within_s))
    told = Sender(world, Tag.ANSWER, answer_layout(answer_bytes), 1, traffic)
    _say(told, answer, others)
    drain(Ending(senders=(told,)), patience_s=patience_s, meanwhile=meanwhile)
    return answer


def _say(sender: Sender[Any], data: Array, to: list[int]) -> None:
    slot = sender.take()
    assert slot is not None, "the first"
    slot.record.data[:], slot.record.last[0] = data, 1
    for rank in to:
        sender.send(slot, rank)
    sender.release(slot)


def _collect(
    world: World, others: list[int], nbytes: int, meanwhile: Callable[[], None], within_s: float
) -> dict[int, Array]:
    receiver = Receiver(world, others, Tag.REPORT, report_layout(nbytes), slots=1)
    reports: dict[int, Array] = {}
    backoff, until = Backoff(), time.monotonic() + within_s
    while receiver.open:
        for slot in receiver.poll():
            reports[slot.source] = slot.record.data
        if time.monotonic() > until:
            world.give_up(world.silent | receiver.open)
        world.look()
        meanwhile()
        backoff.pause()
    return reports
