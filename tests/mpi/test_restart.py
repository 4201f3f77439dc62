"""Runs that are cut at a checkpoint and go on: as if nothing had happened where that is promised, and accounted for."""

import json
import os
import re
import shutil

import pytest
import torch
from launch import hpcddrl, read_json, settings

from hpcddrl.logs import checkpoint

pytestmark = pytest.mark.mpi

CATCH, CARTPOLE = "hpcddrl/Catch-v0", "CartPole-v1"
LIMIT_S = 180.0
SMALL = {"experience__learning_starts": 1000, "experience__capacity": 2000}
REPLAYED = {  # rollouts, from the first thousand frames on
    "stages__detector": "by_frames",
    "stages__detector__middle_from": 1000,
    "stages__early": "none",
    "stages__late": "none",
    "env__frame_stack": 1,
    "network__torso": "auto",
}
INLINE = {"topology__replays_per_group": 0, "topology__actors_per_group": 0, "algorithm__target_every": 50}
OVERLAPPED = {
    "topology__learners_per_group": 2,
    "topology__actors_per_group": 0,
    "update__overlap": "true",
}
EVERY_THIRD = {
    "compression__distillation__trigger": "every",
    "compression__distillation__trigger__updates": 3,  # so that checkpoints find what acts standing still, and not
    "compression__distillation__steps": 4,
}


def final(out):
    return {p.name: checkpoint.newest(p) for p in sorted((out / "checkpoints").iterdir())}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def tear(path):
    """Leave what a node that lost its power may leave of a file."""
    os.truncate(path, path.stat().st_size // 2)


def account(out):
    """Return what a run did since its start, after a look whether it closes."""
    found = read_json(out / "summary.json")["since_start"]
    assert found["produced"] == found["used"] + found["dropped"] + found["pending"]
    newest = max((out / "restart").iterdir(), key=lambda p: p.name)
    assert json.loads((newest / "DONE").read_text())["manifest"]["account"] == found
    return found


@pytest.mark.parametrize(
    ("recipe", "ranks", "env", "frames", "options"),
    [
        ("nnc_impala", 2, CATCH, 3000, {"logging__checkpoint_updates": 4, **EVERY_THIRD}),
        ("impala", 2, CATCH, 6000, {"logging__checkpoint_updates": 4, **OVERLAPPED}),
        pytest.param("impala", 2, CATCH, 3000, {"logging__checkpoint_updates": 4}, marks=pytest.mark.slow),
        pytest.param(
            "nnc_ga3c",
            3,
            CATCH,
            6000,
            {"logging__checkpoint_updates": 4, "acting__minimum": "all", "algorithm__rollouts_per_batch": 2}
            | EVERY_THIRD,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "nnc_apex",
            1,
            CARTPOLE,
            6000,
            {"logging__checkpoint_updates": 40, **SMALL, **INLINE, **EVERY_THIRD},
            marks=pytest.mark.slow,
        ),
        pytest.param("a3c", 3, CARTPOLE, 4000, {"logging__checkpoint_updates": 10}, marks=pytest.mark.slow),
        pytest.param("staged", 2, CATCH, 6000, {"logging__checkpoint_updates": 20, **REPLAYED}, marks=pytest.mark.slow),
        pytest.param(
            "apex", 1, CARTPOLE, 6000, {"logging__checkpoint_updates": 40, **SMALL, **INLINE}, marks=pytest.mark.slow
        ),
        pytest.param(
            "group_ensemble",
            4,
            CARTPOLE,
            6000,
            {"logging__checkpoint_updates": 4, "coupling__exchange_every": 3},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["nnc_impala", "overlapped", "impala", "nnc_ga3c", "nnc_apex", "a3c", "staged", "apex", "group_ensemble"],
)
def test_a_run_that_goes_on_from_any_of_its_checkpoints_ends_with_the_same_weights(
    recipe, ranks, env, frames, options, tmp_path
):
    """It is cut by damage to the newest checkpoints, which are named: a flipped bit, in the newest half a file."""
    out, cut = tmp_path / "run", tmp_path / "cut"
    many = settings(logging__keep_checkpoints=100, **options)
    arguments = ["--env", env, "--deterministic", "--frames", str(frames), "--out", out, *many]
    whole = hpcddrl(ranks, "run", recipe, *arguments, cwd=tmp_path, limit_s=LIMIT_S)
    assert whole.rc == 0, whole.text
    shutil.copytree(out, cut)
    shutil.rmtree(cut / "checkpoints")
    numbers = sorted(p.name for p in (cut / "restart").iterdir())
    assert len(numbers) >= 3
    *flipped, torn = numbers[2:]
    for number in flipped:
        flip(cut / "restart" / number / "node-0000.bin")
    tear(cut / "restart" / torn / "node-0000.bin")
    more = hpcddrl(ranks, "run", "--resume", cut, cwd=tmp_path, limit_s=LIMIT_S)
    assert more.rc == 0, more.text
    assert re.search(rf"restart/{torn}: node-0000.bin is cut off at [\d,]+ bytes", more.stdout), more.text
    for number in flipped:
        assert f"restart/{number}/node-0000.bin: the bytes do not agree with their checksum" in more.stdout, more.text
    assert "checkpoint 2 of " in more.stdout
    ours, theirs = final(out), final(cut)
    assert ours.keys() == theirs.keys()
    for owner, state in ours.items():
        assert (state.version, state.frames) == (theirs[owner].version, theirs[owner].frames)
        for name, tensor in state.network.items():
            assert torch.equal(tensor, theirs[owner].network[name]), f"{owner} {name}"
    for run in (out, cut):
        account(run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "sizes", "options"),
    [("group_ensemble", (8, 4, 8), {}), ("apex", (3, 4, 3), SMALL), ("apex", (8, 4, 8), SMALL)],
)
def test_the_account_closes_over_segments_on_other_numbers_of_ranks(recipe, sizes, options, tmp_path):
    out, before = tmp_path / "run", None
    for n, ranks in enumerate(sizes):
        frames = ["--frames", str(4000 * (n + 1))]
        begin = [recipe, "--env", CARTPOLE, "--out", out, *settings(**options)] if n == 0 else ["--resume", out]
        done = hpcddrl(ranks, "run", *begin, *frames, cwd=tmp_path, limit_s=LIMIT_S)
        assert done.rc == 0, done.text
        found = account(out)
        if before is not None:
            assert f"redistributed: {sizes[n - 1]} ranks in " in done.stdout, done.text
            assert found["frames"] - before["frames"] == read_json(out / "summary.json")["frames"]
            assert found["used"] > before["used"]
        before = found
    assert before["frames"] >= 12000


def test_rollouts_that_a_server_keeps_are_there_again_when_a_run_goes_on(tmp_path):
    out = tmp_path / "run"
    options = settings(**REPLAYED, stages__middle__held_by="server")
    first = hpcddrl(3, "run", "staged", "--env", CATCH, "--frames", "15000", "--out", out, *options, cwd=tmp_path)
    assert first.rc == 0, first.text
    assert re.search(r"replay of 2,000 rollouts .* GB on each server", first.stdout), first.text
    account(out)
    assert read_json(out / "summary.json")["transitions"]["replayed"] > 0
    more = hpcddrl(3, "run", "--resume", out, "--frames", "25000", cwd=tmp_path)
    assert more.rc == 0, more.text
    (kept,) = set(re.findall(r"replay of rollouts: ([\d,]+) are there", more.stdout))
    assert int(kept.replace(",", "")) >= 16, "as many as a batch has"
    account(out)
    assert read_json(out / "summary.json")["transitions"]["replayed"] > 0


@pytest.mark.slow
def test_an_automatic_choice_stays_and_its_student_goes_on(tmp_path):
    """The actor tries the candidates; the learner alone has the checkpoint."""
    out, student = tmp_path / "run", {"kind": "student", "width": 0.1}
    auto = {"kind": "auto", "kl_bound": 1e9, "candidates": [student, {"kind": "binary"}]}
    wide = ["--set", "network.torso=nature", "--set", "network.width=2"]  # so that what is small is faster
    options = ["--set", f"compression={json.dumps(auto)}", *wide]
    first = hpcddrl(2, "run", "impala", "--env", CATCH, "--frames", "600", "--out", out, *options, cwd=tmp_path)
    assert first.rc == 0, first.text
    (order,) = re.findall(r"compression auto: (.*student 0\.1 fp32.*)", first.stdout)
    assert "auto tried student 0.1 fp32" in first.stdout
    more = hpcddrl(2, "run", "--resume", out, "--frames", "1200", cwd=tmp_path)
    assert more.rc == 0, more.text
    assert f"compression auto: {order}, as at the checkpoint; nothing is tried again" in more.stdout
    assert "auto tried" not in more.stdout
    assert "begins anew" not in more.stdout
    account(out)
