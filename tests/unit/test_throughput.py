"""The tables of throughput: their rows, what is missing, and the bound."""

import json

import h5py
import pytest

from benchmarks import parts, rows, steady, throughput

ALONE = {"env": 3000.0, "infer": 6000.0, "train": 2000.0}
CODE, AROUND = "c0de000000", {"code": "c0de000000", "load": "0.1", "others": "0.0", "date": "2026-01-01"}
SHARES = {"learner": {"gradient": 0.8, "wait": 0.2}, "actor": {"gradient": 0.0, "wait": 1.0}}
STEADY = steady.Steady({"trained": 900.0, "env_steps": 1200.0}, SHARES)


@pytest.fixture
def jobs(monkeypatch):
    """Answer for the machine; return the jobs that would have run."""
    ran = []

    def run(ranks, env, seconds, settings):
        ran.append((ranks, env, seconds, settings))
        if settings.get("precision") == "bf16":
            raise RuntimeError("why it failed")
        return STEADY, 1.5, AROUND | {"about": "software", "command": f"mpirun -n {ranks}"}

    monkeypatch.setattr(throughput, "run_impala", run)
    monkeypatch.setattr(
        throughput, "on_cores", lambda part, *_: {"env": 3000.0, "infer": 6000.0, "train": 2000.0}[part]
    )
    monkeypatch.setattr(throughput, "code_key", lambda: CODE)
    return ran


def test_the_bound_is_every_core_busy_with_one_of_the_parts():
    assert parts.bound(ALONE) == pytest.approx(1000.0)


def test_rows_are_written_as_runs_end_and_not_made_again(tmp_path, jobs, capsys):
    arguments = ["--ranks", "3", "--torso", "nature", "--precision", "auto", "bf16", "--into", str(tmp_path)]
    assert throughput.main(arguments) == 1
    assert [ranks for ranks, *_ in jobs] == [3, 3, 2, 3]  # two precisions, one actor, two actors
    assert "why it failed" in capsys.readouterr().out
    (row,) = rows.read_rows(tmp_path / "throughput.csv")
    assert (row["bound"], row["trained_per_s"], row["of_bound"], row["lag"]) == ("1000", "900", "0.90", "1.5")
    assert [r["an_actor"] for r in rows.read_rows(tmp_path / "actors.csv")] == ["1200", "600"]
    jobs.clear()
    assert throughput.main([*arguments, "--missing"]) == 0
    assert not jobs
    throughput.main(arguments)
    assert [settings["precision"] for *_, settings in jobs] == ["bf16"]


def test_the_text_has_both_tables_and_the_shares(tmp_path, jobs):
    throughput.main(["--ranks", "2", "--torso", "nips", "--precision", "fp32", "--into", str(tmp_path)])
    text = (tmp_path / "throughput.md").read_text()
    assert "| nips | fp32 | 2 | 3000 | 6000 | 2000 | 1000 | 900 | 0.90 |" in text
    assert "| gradient | 80.0 | 0.0 |" in text
    assert text.index("| wait | 20.0 | 100.0 |") < text.index("| gradient | 80.0 | 0.0 |")
    assert "| 0.25 | 1 | 1200 | 1200 | 0.20 | 1.00 |" in text
    assert json.loads(rows.read_rows(tmp_path / "throughput.csv")[0]["shares"]) == SHARES


def test_one_rank_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        throughput.main(["--ranks", "1"])
    assert "a learner and its actors" in capsys.readouterr().err


def test_changed_files_are_refused(tmp_path, jobs, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "code_key", lambda: CODE + rows.CHANGED)
    assert throughput.main(["--ranks", "2", "--into", str(tmp_path)]) == throughput.REFUSED
    assert not jobs


def test_a_run_is_read_from_after_its_start(tmp_path):
    with h5py.File(tmp_path / "run.h5", "w") as file:
        for rank, role in enumerate(("learner", "actor", "actor")):
            group = file.create_group(f"ranks/{rank:04d}")
            group.attrs["role"] = role
            group["progress/time"], group["progress/trained"] = [5.0, 12.0, 16.0, 20.0], [0.0, 50.0, 70.0, 130.0]
            group["timing/wall"] = [5.0, 7.0, 4.0, 4.0]
            group["timing/wait"] = [5.0, 7.0, 1.0 + rank, 1.0]
            group["timing/cpu"] = [9.0] * 4
    read = steady.read_steady(tmp_path, ["trained"])
    assert read.rates == {"trained": pytest.approx(3 * 80 / 8)}
    assert read.shares == {"learner": {"wait": 2 / 8}, "actor": {"wait": pytest.approx((3 + 4) / 2 / 8)}}
    with pytest.raises(ValueError, match="rank 0000 has no interval after its first 18 s"):
        steady.read_steady(tmp_path, ["trained"], start_s=18.0)
