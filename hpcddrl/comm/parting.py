"""The end of a job: every rank that is still there hands in a report, rank 0 concludes, and all leave with one code."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from hpcddrl.comm.assembly import assemble
from hpcddrl.comm.channel import Traffic
from hpcddrl.comm.world import World
from hpcddrl.types import Array

PATIENCE_S = 30.0  # for reports: all who hand one in have come to their end already
REPORT_BYTES = 8192

Report = dict[str, Any]


def part(world: World, report: Report, conclude: Callable[[dict[int, Report]], int], traffic: Traffic) -> int:
    """Return the exit code that rank 0 concludes from the reports of all who are still there, itself included.

    Args:
        world: all ranks.
        report: of this rank, of what JSON can hold.
        conclude: called on rank 0 with the reports by rank.
        traffic: where messages are counted.
    """

    def code_of(reports: dict[int, Array]) -> Array:
        return np.array([conclude({rank: _read(data) for rank, data in reports.items()})], np.uint8)

    code = assemble(world, _written(report), code_of, 1, traffic, reports_within_s=PATIENCE_S)
    return int(code[0])


def _written(report: Report) -> Array:
    """Return a report as text, filled up with blanks."""
    text = json.dumps(report).encode()
    assert len(text) <= REPORT_BYTES
    return np.frombuffer(text.ljust(REPORT_BYTES), np.uint8)


def _read(data: Array) -> Report:
    report: Report = json.loads(data.tobytes())
    return report
