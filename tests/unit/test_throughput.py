"""The tables of throughput: their rows, what is missing, and the bound."""

import itertools

import pytest

from benchmarks import flow, parts, rows, throughput
from hpcddrl.logs.measured import Measured
from hpcddrl.logs.timing import Phase

ALONE = {"env": 3000.0, "infer": 6000.0, "train": 2000.0}
CODE, AROUND = "c0de000000", {"code": "c0de000000", "load": "0.1", "others": "0.0", "date": "2026-01-01"}


def rank(role, counts, **seconds):
    phases = {phase: seconds.get(phase, 0.0) for phase in Phase}
    return Measured(0, role, 10.0, 10.0, 0.0, phases, {}, {}, {"env_steps": 0.0, "trained": 0.0, **counts}, {}, {}, 1.5)


MEASURED = (
    rank("learner", {"trained": 9000.0}, gradient=8.0, wait=2.0),
    rank("actor", {"env_steps": 5000.0}, env=9.0, wait=1.0),
    rank("actor", {"env_steps": 7000.0}, env=10.0),
)


@pytest.fixture
def jobs(monkeypatch):
    """Answer for the machine; return the jobs that would have run."""
    ran = []

    def run(ranks, env, seconds, settings, cores=None):
        assert cores in (None, ranks)
        ran.append((ranks, env, seconds, settings))
        if settings.get("precision") == "bf16":
            raise RuntimeError("why it failed")
        return MEASURED, AROUND | {"about": "software", "command": f"mpirun -n {ranks}"}

    monkeypatch.setattr(throughput, "run_impala", run)
    monkeypatch.setattr(
        throughput, "on_cores", lambda part, *_: {"env": 3000.0, "infer": 6000.0, "train": 2000.0}[part]
    )
    monkeypatch.setattr(flow, "code_key", lambda: CODE)
    return ran


def test_the_bound_is_every_core_busy_with_one_of_the_parts():
    assert parts.bound(ALONE) == pytest.approx(1000.0)


def test_rows_are_written_as_runs_end_and_not_made_again(tmp_path, jobs, capsys):
    arguments = ["--ranks", "3", "--precision", "auto", "bf16", "--steps", "5", "--into", str(tmp_path)]
    assert throughput.main(arguments) == 1
    assert [ranks for ranks, *_ in jobs] == [3] * 6 + [2, 3]  # two precisions by three splits, one actor, two actors
    assert "why it failed" in capsys.readouterr().out
    found = rows.read_rows(tmp_path / "throughput.csv")
    assert [row["split"] for row in found] == ["given", "auto", "auto, Horovod"]
    for row in found:
        assert (row["bound"], row["trained_per_s"], row["of_bound"], row["lag"]) == ("1000", "900", "0.90", "1.5")
    assert [r["an_actor"] for r in rows.read_rows(tmp_path / "actors.csv")] == ["1200", "600"]
    jobs.clear()
    assert throughput.main([*arguments, "--missing"]) == 0
    assert not jobs
    throughput.main(arguments)
    assert [settings["precision"] for *_, settings in jobs] == ["bf16"] * 3


def test_the_text_has_both_tables_and_the_phases(tmp_path, jobs):
    throughput.main(["--ranks", "2", "--torso", "nips", "--precision", "fp32", "--into", str(tmp_path)])
    assert [settings.get("algorithm.unroll_length") for *_, settings in jobs] == ["5"] * 3 + ["20"] * 4
    text = (tmp_path / "throughput.md").read_text()
    phases = "gradient 80%, wait 20% | env 95% (90%–100%), wait 5% (0%–10%)"
    for setting in itertools.product(("5", "20"), ("2",), ("given", "auto", "auto, Horovod")):
        measured = f"3000 | 6000 | 2000 | 1000 | 900 | 0.90 | 1 | 1.5 | {phases} |"
        assert f"| nips | fp32 | {' | '.join(setting)} | {measured}" in text
    assert "| 0.25 | 20 | 1 | 1200 | 1200 | 0.20 | 0.05 |" in text


def test_devices_have_a_table_of_their_own_where_they_are_compared(tmp_path, jobs):
    arguments = ["--ranks", "2", "--precision", "fp32", "--steps", "5", "--device", "cpu", "cuda"]
    assert throughput.main([*arguments, "--into", str(tmp_path)]) == 0
    learners = [settings.get("device.learner") for *_, settings in jobs]
    assert learners == [None] * 4 + ["cpu", "cuda"]
    found = rows.read_rows(tmp_path / "devices.csv")
    assert [(row["device"], row["infer_per_s"], row["trained_per_s"]) for row in found] == [
        ("cpu", "6000", "900"),
        ("cuda", "6000", "900"),
    ]
    assert "## By device" in (tmp_path / "throughput.md").read_text()


def test_one_rank_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        throughput.main(["--ranks", "1"])
    assert "a learner and its actors" in capsys.readouterr().err


def test_changed_files_are_refused(tmp_path, jobs, monkeypatch, capsys):
    monkeypatch.setattr(flow, "code_key", lambda: CODE + rows.CHANGED)
    assert throughput.main(["--ranks", "2", "--into", str(tmp_path)]) == flow.REFUSED
    assert not jobs
