"""The sheet of what compression can give a run, and what it gave."""

import json
import math

import pytest
from click.testing import CliRunner

from hpcddrl.commands.cli import cli
from hpcddrl.logs.measured import Measured
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.logs.timing import Phase
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime import speed_ups
from hpcddrl.runtime.checks import fitted
from hpcddrl.settings import override

CATCH = "env.id=hpcddrl/Catch-v0"


def measured(role, rank, predictions, **seconds):
    """Return what a rank did in ten seconds, half of them here for acting."""
    nothing, wall = dict.fromkeys(Phase, 0.0), 10.0
    spent = nothing | {Phase(name): value for name, value in seconds.items()}
    events = nothing | {phase: 100.0 for phase, value in spent.items() if value}
    counts = {"predictions": predictions, "env_steps": 0.0, "trained": 0.0, "updates": 0.0}
    return Measured(rank, role, wall, wall, 0.0, spent, events, nothing, counts, {}, {}, math.nan)


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Return what writes a finished run that made so many predictions in ten seconds."""
    paces = {}

    def make(name, predictions, *settings, recipe="ga3c"):
        run = RunDirectory(tmp_path / name)
        run.create(fitted(override(RECIPES[recipe](), [CATCH, "env.num_envs=4", *settings]), 2))
        run.write_summary({"wall_s": 10.0})
        paces[run.path] = (
            measured("learner", 0, predictions, act=4.0, gradient=5.0, wait=1.0),
            measured("actor", 1, 0.0, env=2.0, wait=8.0),
        )
        return run.path

    monkeypatch.setattr(speed_ups, "read_measured", paces.__getitem__)
    return make


def amdahl(*arguments):
    return CliRunner().invoke(cli, ["amdahl", *map(str, arguments), "--repetitions", "1"])


def test_the_sheet_sets_what_was_measured_beside_what_the_law_allows(make_run):
    plain = make_run("plain", 800.0)
    runs = [make_run(name, predictions, "compression=student") for name, predictions in (("a", 960.0), ("b", 1040.0))]
    done = amdahl(plain, *runs)
    assert done.exit_code == 0, done.output
    summary = json.loads((plain / "summary.json").read_text())
    assert summary["wall_s"] == 10.0
    rows = {row["compressor"]: row for row in summary["amdahl"]}
    assert {"bf16", "int8", "student 0.5 fp32", "channels 0.5 int8", "binary"} <= set(rows)
    for row in rows.values():
        assert (row["share"], row["batch"]) == (0.4, 8)
        assert row["bound"] == pytest.approx(1 / 0.6)
        assert row["predicted"] == pytest.approx(1 / (0.6 + 0.4 / row["speed_up"]))
    student = rows["student 0.5 fp32"]
    assert student["measured"] == pytest.approx(1000 / 800)
    assert student["reached"] == pytest.approx(0.25 / (student["predicted"] - 1))
    assert rows["int8"]["measured"] is None
    assert "40.0%" in (plain / "run.log").read_text()
    assert "student 0.5 fp32" in (plain / "run.log").read_text()
    assert (plain / "amdahl.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("plain", "other", "complaint"),
    [
        (("compression=whole",), (), "compression.kind = 'whole'; the first run has to be one without"),
        ((), (), "compression.kind = 'uncompressed'; name runs with one compressor each"),
        ((), ("compression=auto",), "compression.kind = 'auto'; name runs with one compressor each"),
        ((), ("compression=whole", "network.width=0.5"), "its network is not that of the run without"),
        ((), ("compression=whole", "acting.minimum=all", "algorithm.rollouts_per_batch=1"), "its acting is not"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(make_run, plain, other, complaint):
    done = amdahl(make_run("plain", 100.0, *plain), make_run("other", 100.0, *other))
    assert isinstance(done.exception, ValueError)
    assert complaint in str(done.exception)


def test_a_run_that_is_not_over_is_refused(make_run):
    plain = make_run("plain", 100.0)
    (plain / "summary.json").unlink()
    assert "so the run is not over" in str(amdahl(plain).exception)
