"""What exchanging models costs groups of one rank whose environments sleep, so that there is time to see it in."""

import pytest

from benchmarks import flow, groups, jobs, rows


@pytest.mark.slow
@pytest.mark.mpi
def test_exchange_in_random_pairs_is_cheap_and_sends_what_the_topology_says(tmp_path, monkeypatch):
    for module in (flow, jobs):
        monkeypatch.setattr(module, "code_key", lambda: "c0de000000")
    arguments = ["--groups", "8", "--topology", "random_pairs", "--seconds", "36", "--into", str(tmp_path)]
    assert groups.main(arguments) == flow.DONE
    (row,) = rows.read_rows(tmp_path / "groups.csv")
    assert row["over"] == "0 of 8", row
    sent, planned = (float(part.strip("()")) for part in row["messages"].split())
    assert planned == 1.0
    assert 0.8 < sent <= 1.1, "a round of one pair each, but for those that a peer was too late for"
    nbytes, planned = (float(part.strip("()")) for part in row["bytes"].split())
    assert nbytes == planned
    assert (tmp_path / "groups.md").read_text().count("random_pairs") == 1
