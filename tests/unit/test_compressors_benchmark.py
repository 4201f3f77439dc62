"""The table of compressors' latencies: rows that grow, and none measured twice."""

import pytest
import torch
from teachers import SMALL, blueprint_of, states_of, teacher_of

from benchmarks import compressors, flow
from benchmarks.rows import read_rows


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Return a function that runs the command on committed code and gives the rows and the text."""
    for module in (compressors, flow):
        monkeypatch.setattr(module, "code_key", lambda: "c0de000000")
    monkeypatch.setattr("hpcddrl.envs.make.probe", lambda env: SMALL)

    def run(*arguments):
        fixed = ["--torso", "nips", "--batch", "2", "--repetitions", "1", "--into", tmp_path]
        code = compressors.main(list(map(str, [*fixed, *arguments])))
        return code, read_rows(tmp_path / "compressors.csv"), (tmp_path / "compressors.md").read_text()

    return run


def test_each_compressor_is_a_row_beside_the_best_float_format(bench):
    code, rows, text = bench("--compressor", "int8", "magnitude 0.8")
    assert code == flow.DONE
    assert [(row["compressor"], row["batch"]) for row in rows] == [("int8", "2"), ("magnitude 0.8", "2")]
    for row in rows:
        latency, best = float(row["latency_ms"]), float(row["best_float_ms"])
        assert float(row["ratio"]) == pytest.approx(latency / best, abs=0.02 + 0.01 * latency / best)
        assert f"| {row['compressor']} | 2 | {row['latency_ms']} |" in text
    assert rows[0]["verdict"] in ("real speed", "not faster")
    assert rows[1]["verdict"] == "simulated"
    assert int(rows[0]["bytes"]) < 0.27 * 4 * int(rows[0]["parameters"])


def test_what_was_measured_is_not_measured_again_until_the_code_changes(bench, monkeypatch):
    bench("--compressor", "int8")
    measured = []
    monkeypatch.setattr(compressors, "measure", lambda subject, names, batch, repetitions: measured.append(names) or [])
    bench("--compressor", "int8")
    assert measured == []
    monkeypatch.setattr(flow, "code_key", lambda: "c0de000001")
    code, rows, _ = bench("--compressor", "int8")
    assert (code, len(rows)) == (flow.FAILED, 1), "a row without its measurement is not written"
    assert measured == [["int8"]]


def test_what_a_run_has_learned_is_judged_on_observations_that_nothing_was_distilled_on(bench, tmp_path, monkeypatch):
    """Random networks say nothing of answers; of a run, KL and agreement are told, and it is a subject of its own."""
    blueprint = blueprint_of("nips")
    monkeypatch.setattr(compressors, "LONG", compressors.LONG.__class__(steps=2, batch_size=8))
    followed, make = [], compressors.make_compressor

    def making(candidate, made_for):
        compressor = make(candidate, made_for)
        follow = compressor.follow
        compressor.follow = lambda teacher, states: followed.append(states) or follow(teacher, states)
        return compressor

    states = states_of(SMALL, 40)
    monkeypatch.setattr(compressors, "make_compressor", making)
    monkeypatch.setattr(compressors, "learned", lambda run: (blueprint, teacher_of(blueprint), states))
    monkeypatch.setattr(compressors, "subject_of", lambda run: compressors.Subject("Catch", "nips", run))
    code, rows, text = bench("--compressor", "int8", "student 0.5 fp32", "--teacher", "runs/a")
    assert code == flow.DONE
    assert [row["teacher"] for row in rows] == ["", "", "runs/a", "runs/a"]
    assert all((row["kl"] != "", row["agreement"] != "") == (row["teacher"] != "",) * 2 for row in rows)
    assert 0 <= float(rows[2]["kl"]) < float(rows[3]["kl"]), "eight bits err less than half the network"
    assert "## nips for Catch, learned in runs/a" in text
    assert all(torch.equal(seen, states[10:]) for seen in followed[2:])


def test_a_teacher_that_is_no_run_is_refused(bench, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench("--teacher", "nowhere")
    assert "--teacher: " in capsys.readouterr().err
