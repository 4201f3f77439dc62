"""A run's layout and messages as tables: measured from its logs, with who gets them from the job's plan."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from hpcddrl.figures.rates import mean_rate
from hpcddrl.figures.traffic import sent
from hpcddrl.logs.read import Runs

MESSAGES = ["kind", "sender", "receiver", "nbytes", "messages_per_s", "bytes_per_s", "planned_per_s", "expected"]


def roles(run: Runs) -> pd.DataFrame:
    """Return a row a role of the newest segment: role, count, groups (0: in none), ranks (in words), hosts."""
    from hpcddrl.runtime.plan import spans

    ranks = run.ranks[run.ranks["segment"] == run.ranks["segment"].max()]
    rows = [
        {
            "role": role,
            "count": len(own),
            "groups": int((own["group"].drop_duplicates() >= 0).sum()),
            "ranks": spans(sorted(own["rank"])),
            "hosts": ", ".join(sorted(set(own["host"]))),
        }
        for role, own in ranks.groupby("role", sort=False)
    ]
    return pd.DataFrame(rows, columns=["role", "count", "groups", "ranks", "hosts"])


def messages(run: Runs, config: dict[str, Any]) -> pd.DataFrame:
    """Return a row a kind of message: ends, size, rates as measured and, at the run's own pace, as planned.

    What is in no rank's log, the collectives, has ``expected`` set and its rates from the plan.

    Raises:
        ValueError: the plan of this job cannot be made here, for example since its environment is not installed.
    """
    progress = run.tables["progress"]
    steps = mean_rate(progress, "env_steps")
    newest = run.tables["traffic"][run.tables["traffic"]["segment"] == run.ranks["segment"].max()]
    measured = sent(newest, ["role"])
    rows = []
    for (kind, sender, receiver), planned in _planned(config, steps).items():
        known = (sender, kind) in measured.index
        collective = kind in ("allreduce", "broadcast")
        counts = measured.loc[(sender, kind)] if known else {"messages": 0.0, "bytes": 0.0}
        rates = {"messages_per_s": counts["messages"], "bytes_per_s": counts["bytes"]}
        if collective:
            rates = {"messages_per_s": planned["messages_per_s"], "bytes_per_s": planned["bytes_per_s"]}
        row = {"kind": kind, "sender": sender, "receiver": receiver, "nbytes": planned["nbytes"]}
        rows.append(row | rates | {"planned_per_s": planned["bytes_per_s"], "expected": collective})
    return pd.DataFrame(rows, columns=MESSAGES)


def _planned(config: dict[str, Any], steps_per_s: float) -> dict[tuple[str, str, str], dict[str, float]]:
    """Return the flows of a job at a pace of its env steps, by kind and the roles at their ends."""
    from hpcddrl.comm.placement import place
    from hpcddrl.envs.make import probe
    from hpcddrl.roles.counters import steppers
    from hpcddrl.runtime.plan import flows, job_of
    from hpcddrl.settings import load

    loaded = load(config)
    stepping = len(steppers(place(loaded.topology)))
    job = job_of(loaded, probe(loaded.env))
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    pace = steps_per_s / stepping if math.isfinite(steps_per_s) else 0.0
    for flow in flows(job, pace):
        if flow.kind == "status":  # from all to rank 0, whatever its role
            continue
        ends = str(job.places[flow.senders[0]].role), str(job.places[flow.receivers[0]].role)
        sums = {"nbytes": flow.nbytes, "messages_per_s": flow.messages_per_s, "bytes_per_s": flow.bytes_per_s}
        found[(flow.kind, *ends)] = sums
    return found
