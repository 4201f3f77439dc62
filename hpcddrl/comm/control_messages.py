"""What rank 0 and the others tell each other about the run itself: who stands where, what is next, who is there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcddrl.comm.records import Layout
from hpcddrl.types import Array


class Status(NamedTuple):
    """Any rank to rank 0: where it stands. Counters are since the run's start."""

    last: Array
    signal: Array  # [1] i64: the signal that asked this rank to stop, or 0
    counters: Array  # [len(COUNTERS)] f64, see roles.status
    ended: Array  # [1] i64: episodes that ended since the status before, as far as their returns are here
    returns: Array  # [most] f64: their returns, oldest first


class Order(NamedTuple):
    """Rank 0 to learners and servers: what the run is to do next; with ``last`` to end."""

    last: Array
    stage: Array  # [1] i64: to enter, see `types.Stage`; or -1
    leg: Array  # [1] i64: to end for a checkpoint, see `roles.legs`; or -1


class RollCallMessage(NamedTuple):
    """Rank 0 to all others: who is silent."""

    last: Array
    silent: Array  # [ranks] u8
    final: Array  # [1] u8: the run ends, and nobody waits for these any more


class ReportMessage(NamedTuple):
    """All others to rank 0, when they have come to a point where all meet."""

    last: Array
    data: Array  # [nbytes] u8


class AnswerMessage(NamedTuple):
    """Rank 0 to all others there, when all have reported."""

    last: Array
    data: Array  # [nbytes] u8


def status_layout(counters: int, returns: int) -> Layout[Status]:
    """Lay out a status with its counters and so many returns at most."""
    one = (1,)
    return Layout(
        Status,
        {
            "signal": (one, np.int64),
            "counters": ((counters,), np.float64),
            "ended": (one, np.int64),
            "returns": ((returns,), np.float64),
        },
    )


def order_layout() -> Layout[Order]:
    """Lay out an order."""
    return Layout(Order, {"stage": ((1,), np.int64), "leg": ((1,), np.int64)})


def roll_layout(ranks: int) -> Layout[RollCallMessage]:
    """Lay out who of so many ranks is silent."""
    return Layout(RollCallMessage, {"silent": ((ranks,), np.uint8), "final": ((1,), np.uint8)})


def report_layout(nbytes: int) -> Layout[ReportMessage]:
    """Lay out what a rank reports."""
    return Layout(ReportMessage, {"data": ((nbytes,), np.uint8)})


def answer_layout(nbytes: int) -> Layout[AnswerMessage]:
    """Lay out what rank 0 answers."""
    return Layout(AnswerMessage, {"data": ((nbytes,), np.uint8)})
