"""A real job's trace: every block of its phases and every message that its files count, on one clock."""

import gzip
import json
from collections import Counter

import h5py
import numpy as np
import pytest
from launch import hpcddrl, settings

CATCH = "hpcddrl/Catch-v0"


@pytest.mark.mpi
def test_the_trace_has_what_the_files_count(tmp_path):
    options = [*settings(network__torso="mlp", precision="fp32", logging__interval_s=0.5), "--trace"]
    job = hpcddrl(2, "run", "impala", "--env", CATCH, "--seconds", 2, "--out", tmp_path / "run", *options, cwd=tmp_path)
    assert job.rc == 0, job.text
    path = tmp_path / "run" / "segments" / "0001" / "trace.json.gz"
    assert f"events in {path}; open it in https://ui.perfetto.dev" in job.stdout
    read = json.loads(gzip.decompress(path.read_bytes()))
    assert read["otherData"]["ranks"] == 2
    assert read["otherData"]["events"] == read["otherData"]["events_seen"], "so short a job fits"
    events = read["traceEvents"]
    arrows = {kind: {e["id"]: e for e in events if e["ph"] == kind} for kind in "sf"}
    assert arrows["s"].keys() == arrows["f"].keys()
    assert all(arrows["f"][i]["ts"] >= start["ts"] for i, start in arrows["s"].items()), "none comes before it was sent"
    drawn = Counter((e["name"], e["tid"] // 2 - 1) for e in arrows["s"].values())
    spans = Counter((e["name"], e["tid"] // 2) for e in events if e["ph"] == "X" and e["cat"] == "phase")
    with h5py.File(tmp_path / "run" / "run.h5") as file:
        for number in range(2):
            rank = file[f"ranks/{number:04d}"]
            for phase in ("env", "act", "gradient", "update", "batch"):
                counted = np.nansum(rank[f"events/{phase}"][:]) if phase in rank["events"] else 0
                assert spans[phase, number] == counted
            for tag in ("rollout", "pull", "weights"):
                counted = rank[f"traffic/{tag}/messages"][-1] if tag in rank["traffic"] else 0
                assert counted <= drawn[tag, number] <= counted + 3, "the closing records may come after the last row"
