"""What a run made of its processors, against runs whose every number is known."""

import re

import pytest
from written_runs import config_of, write_run

from hpcddrl.logs.run_dir import RunDirectory


def test_busy_and_waiting_are_shares_of_each_roles_time(command, tmp_path):
    run = write_run(tmp_path / "run", config_of(ranks=3), rows=10)
    code, out, err = command("efficiency", run)
    assert (code, err) == (0, "")
    rows = [re.findall(r"[\w.%]+", line) for line in out.splitlines() if "│" in line]
    # per second a learner is busy for 0.6 s, an actor for 0.8
    assert rows == [["learner", "1", "60%", "40%", "100", "MB"], ["actor", "2", "80%", "20%", "100", "MB"]]
    assert out.strip().splitlines()[-1] == "efficiency: 73% of 3 processors for 10 s"  # (0.6 + 2 × 0.8) / 3
    assert "28% of 8 processors" in command("efficiency", run, "--cpus", 8)[1]  # 2.2 / 8


def test_only_the_newest_segment_counts(command, tmp_path):
    run = write_run(tmp_path / "run", rows=10)
    write_run(run, rows=4)
    assert "for 4 s" in command("efficiency", run)[1]


def test_a_damaged_file_is_named_and_its_processor_counted(command, tmp_path):
    run = write_run(tmp_path / "run", config_of(ranks=3))
    damaged = RunDirectory(run).rank_file(1, 2)
    damaged.write_bytes(b"torn")
    code, out, err = command("efficiency", run)
    assert code == 0
    assert "47% of 3 processors" in out  # (0.6 + 0.8) / 3
    assert err == f"{damaged}: not readable, not counted\n"


@pytest.mark.parametrize("name", ["nothing", "."])
def test_where_no_run_is_it_says_so(command, tmp_path, name):
    code, _, err = command("efficiency", tmp_path / name)
    assert code == 2
    assert "no run here" in err
