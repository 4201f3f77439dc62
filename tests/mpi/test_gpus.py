"""Jobs whose learners compute on another device: on GPUs, where there are any, else on one that stands in for them."""

from pathlib import Path

import pytest
from launch import hpcddrl, python, read_json, settings

PROGRAM = Path(__file__).parents[1] / "elsewhere.py"


@pytest.mark.mpi
def test_jobs_that_learn_elsewhere_come_to_the_same_weights(tmp_path):
    """Weights are averaged, published and exchanged, and go through a server; actions are chosen on that device."""
    small = "env.id=hpcddrl/Catch-v0 env.num_envs=2 algorithm.unroll_length=4 deterministic=true"
    lines = [
        f"group_ensemble {small} budget.frames=240 coupling.exchange_every=2",
        f"impala {small} budget.frames=160 topology.learners_per_group=2 update.backend=mpi",
        f"paac {small} budget.frames=120 topology.actors_per_group=3",
        f"a3c {small} budget.frames=120",
    ]
    done = python(4, PROGRAM, tmp_path, *lines, cwd=tmp_path, limit_s=250)
    assert done.rc == 0, done.text
    for line in lines:
        assert f"{line}: the same" in done.stdout, done.text


@pytest.mark.gpu
@pytest.mark.mpi
@pytest.mark.parametrize(
    ("ranks", "recipe", "options"),
    [
        (4, "impala", {"topology__learners_per_group": 2, "update__backend": "mpi"}),
        (4, "group_ensemble", {"coupling__exchange_every": 2}),
        (3, "elf", {}),
        (3, "gorila", {"experience__learning_starts": 200}),
    ],
)
def test_a_job_learns_on_gpus(ranks, recipe, options, tmp_path):
    chosen = settings(network__torso="resnet", network__width=0.25, **options)
    arguments = ["--env", "hpcddrl/Catch-v0", "--frames", "20000", "--device", "cuda", "--out", tmp_path / "run"]
    job = hpcddrl(ranks, "run", recipe, *arguments, *chosen, cwd=tmp_path)
    assert job.rc == 0, job.text
    summary = read_json(tmp_path / "run" / "summary.json")
    assert all(name.startswith("cuda:") for name in summary["devices"]["learner"])
    assert summary["devices"].get("actor", ["cpu"]) == ["cpu"]
    assert summary["updates"] > 0
