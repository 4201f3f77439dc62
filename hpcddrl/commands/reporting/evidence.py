"""A finding, and what the rules that make them look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hpcddrl.logs.read import Runs


class Finding(NamedTuple):
    """Something to know about a run."""

    level: str  # "problem": the results suffer; "warning": time is wasted; "note": worth knowing
    title: str
    evidence: str
    remedy: str


class Evidence(NamedTuple):
    """What the rules look at."""

    run: Runs  # one run
    config: Mapping[str, Any]
    shares: pd.DataFrame  # [roles, phases]

    def wait(self, role: str) -> float:
        """Return a role's share of waiting, NaN if the run has no such role."""
        return float(self.shares["wait"].get(role, np.nan))

    def table(self, name: str, role: str | None = None) -> pd.DataFrame:
        """Return a table (of one role's ranks)."""
        table = self.run.tables[name]
        return table if role is None else table[table["role"] == role]

    def final(self, column: str) -> float:
        """Return the sum over ranks and segments of the last value of a column of progress."""
        last = self.table("progress").groupby(["segment", "rank"])[column].last()
        return float(last.sum())

    def field(self, path: str, default: Any = None) -> Any:
        """Return a field of the configuration by its dotted name."""
        node: Any = self.config
        for name in path.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        return default if node is None else node
