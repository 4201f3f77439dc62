"""The tables of weak scaling and of communication, without running any job."""

import math

import pytest

from benchmarks import communication, flow, jobs, rows, scaling
from hpcddrl.logs.measured import Measured
from hpcddrl.logs.timing import Phase

CODE = "c0de000000"
SETTING = scaling.Setting("4 × CPU", "5", "60", "1")


def measured(rank, role, **seconds):
    spent = dict.fromkeys(Phase, 0.0) | {Phase(name): value for name, value in seconds.items()}
    sent = {"rollout": 40.0} if role == "actor" else {"weights": 20.0}
    return Measured(
        rank=rank,
        role=role,
        wall_s=10.0,
        cpu_s=1.0,
        wait_cpu_s=0.0,
        seconds=spent,
        events=dict.fromkeys(Phase, 1.0),
        squares=dict.fromkeys(Phase, 0.0),
        counts={"env_steps": 400.0 * (role == "actor"), "updates": 80.0, "predictions": 0.0, "trained": 0.0},
        messages=sent,
        nbytes={tag: 1e5 * count for tag, count in sent.items()},
        lag=1.25 if role == "learner" else math.nan,
    )


RUN = (
    measured(0, "learner", wait=7, gradient=3),
    measured(1, "actor", env=9, act=1),
    measured(2, "actor", env=8, wait=2),
)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Return a table in an empty folder, on committed code, whose runs end at once with what `RUN` measured."""
    for module in (scaling, jobs, flow):
        monkeypatch.setattr(module, "code_key", lambda: CODE)
    monkeypatch.setattr(scaling, "machine", lambda: SETTING.machine)
    monkeypatch.setattr(scaling, "launch", lambda line, log, limit: None)
    monkeypatch.setattr(scaling, "read_measured", lambda run: RUN)
    monkeypatch.setattr(scaling, "simulated", lambda base, ranks: 78.0)
    return tmp_path


def test_a_run_is_of_one_sleeping_environment_an_actor(tmp_path):
    line = scaling.command(8, SETTING, tmp_path)
    assert line[:3] == ["mpirun", "-n", "8"]
    assert "hpcddrl/Sleep-v0" in line
    assert {"env.num_envs=1", "env.frame_stack=4", "env.options.sleep_s=0.005", "network.width=0.25"} <= set(line)
    assert "logging.interval_s=5" in line
    short = scaling.command(8, SETTING._replace(seconds="12"), tmp_path)
    assert "logging.interval_s=1" in short


def test_a_row_has_rates_shares_and_what_was_sent(table):
    row = scaling.row_of(3, {"frames_per_s": "45", "ranks": "2", "run": "first"}, table)
    assert row["frames_per_s"] == "80.0"
    assert row["efficiency"] == f"{40 / 45:.3f}"
    assert row["simulated"] == "78.0 (-2.5%)"
    assert row["learner_idle"] == "0.700"
    assert row["lag"] == "1.25"
    assert row["traffic"] == "rollout 8/s 0.8 MB/s, weights 2/s 0.2 MB/s"
    assert row["learner_phases"] == "wait 70%, gradient 30%"
    assert row["actor_phases"] == "env 85% (80%–90%), wait 10% (0%–20%), act 5% (0%–10%)"


def test_rows_are_added_as_runs_end_and_skipped_when_there(table, capsys):
    arguments = ["--ranks", "3,2", "--into", str(table)]
    assert scaling.main([*arguments, "--missing"]) == 0
    assert "0 of 2 rows are there; missing: 2 ranks; 3 ranks" in capsys.readouterr().out
    assert scaling.main(arguments) == 0
    there = rows.read_rows(table / "scaling.csv")
    assert [row["ranks"] for row in there] == ["2", "3"]
    assert [row["efficiency"] for row in there] == ["1.000", "0.500"]
    assert "| 3 | 80.0 | 0.500 |" in (table / "scaling.md").read_text()
    capsys.readouterr()
    assert scaling.main([*arguments, "--missing"]) == 0
    assert "2 of 2 rows are there; missing: none" in capsys.readouterr().out
    assert scaling.main([*arguments, "--sleep-ms", "6", "--missing"]) == 0
    assert "missing: 2 ranks; 3 ranks" in capsys.readouterr().out


def test_a_run_that_fails_is_said_and_the_others_go_on(table, monkeypatch, capsys):
    def launch(line, log, limit_s):
        if line[2] == "2":
            raise RuntimeError("started\nwhy")

    monkeypatch.setattr(scaling, "launch", launch)
    monkeypatch.setattr(scaling, "ROOT", table)
    assert scaling.main(["--ranks", "2,3", "--into", str(table)]) == 1
    assert "2 ranks: failed\nstarted\nwhy" in capsys.readouterr().out
    assert [row["ranks"] for row in rows.read_rows(table / "scaling.csv")] == ["3"]


def test_changed_files_are_refused(table, monkeypatch, capsys):
    monkeypatch.setattr(flow, "code_key", lambda: CODE + rows.CHANGED)
    assert scaling.main(["--ranks", "2", "--into", str(table)]) == flow.REFUSED
    assert "commit them, or give --dirty" in capsys.readouterr().err


# --- communication

FOUND = {"allreduce": 2.0, "allreduce_bare": 1.5, "publication": 4.0, "publication_bare": 3.0}
FOUND |= {"latency_us": 1.234, "bandwidth_gb": 5.678, "test_us": 0.3}


def test_shares_are_the_bare_loops_time_divided_by_the_others():
    row = communication.row_of(FOUND, {})
    assert (row["allreduce_share"], row["publication_share"]) == ("0.75", "0.75")
    assert (row["latency_us"], row["bandwidth_gb"]) == ("1.23", "5.68")
    assert "horovod_ms" not in row


def test_horovod_is_shown_at_its_default_and_at_its_best():
    cycles = {"0.1": FOUND | {"horovod": 1.6}, "1": FOUND | {"horovod": 6.0}}
    row = communication.row_of(FOUND | {"horovod": 5.0}, cycles)
    assert (row["horovod_ms"], row["horovod_share"]) == ("5.000", "0.30")
    assert (row["horovod_best_ms"], row["horovod_best_share"], row["horovod_best_cycle"]) == ("1.600", "0.94", "0.1 ms")
    assert communication.row_of(FOUND | {"horovod": 1.0}, cycles)["horovod_best_cycle"] == "default"


def test_each_size_has_a_row_and_is_timed_once(tmp_path, monkeypatch, capsys):
    asked = []

    def timed(ranks, megabytes, cycle_ms):
        asked.append((ranks, megabytes, cycle_ms))
        return FOUND | {"horovod": 5.0}

    monkeypatch.setattr(communication, "timed", timed)
    for module in (communication, flow):
        monkeypatch.setattr(module, "code_key", lambda: CODE)
    arguments = ["--ranks", "2", "--megabytes", "1.7", "6.8", "--into", str(tmp_path)]
    assert communication.main(arguments) == 0
    assert asked[: len(asked) // 2] == [(2, 1.7, cycle) for cycle in (None, *communication.CYCLES_MS)]
    assert [r["megabytes"] for r in rows.read_rows(tmp_path / "communication.csv")] == ["1.7", "6.8"]
    assert "| 2 | 6.8 | 2.000 | 1.500 | 0.75 |" in (tmp_path / "communication.md").read_text()
    before = len(asked)
    assert communication.main(arguments) == 0
    assert len(asked) == before
    assert "2 of 2 rows are there" in capsys.readouterr().out
