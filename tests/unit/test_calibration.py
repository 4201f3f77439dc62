"""From a run's files to costs, and what ``simulate`` prints of them."""

import json
import math

import h5py
import pytest

pytest.importorskip("simpy")

from hpcddrl.comm.messages import Tag
from hpcddrl.comm.placement import Role
from hpcddrl.envs.make import probe
from hpcddrl.logs.measured import read_measured
from hpcddrl.logs.rank_log import RankLog
from hpcddrl.logs.run_dir import RunDirectory, rank_attributes
from hpcddrl.logs.timing import Phase
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.calibration import calibrate, scenario
from hpcddrl.runtime.checks import fitted
from hpcddrl.runtime.plan import job_of
from hpcddrl.settings import override
from hpcddrl.simulation.cost import Cost, Machine

SETTINGS = ["env.id=hpcddrl/Catch-v0", "env.num_envs=2", "algorithm.unroll_length=5", "logging.interval_s=1"]
# In each interval: events, seconds and squares of what a rank does; the rest of its second it waits.
LEARNER = {Phase.BATCH: (4, 0.04, 0.0004), Phase.GRADIENT: (4, 0.4, 0.05), Phase.PUBLISH: (4, 0.004, 4e-6)}
ACTOR = {
    Phase.ENV: (10, 0.5, 0.025),
    Phase.ACT: (10, 0.1, 0.001),
    Phase.SEND: (2, 0.02, 0.0002),
    Phase.COLLECT: (2, 0.04, 0.0008),
}


def config_of(recipe="impala", ranks=3, *settings):
    return fitted(override(RECIPES[recipe](), [*SETTINGS, *settings]), ranks)


def job(*arguments):
    config = config_of(*arguments)
    return job_of(config, probe(config.env))


def write_rank(run, config, rank, role, phases, intervals, idle_intervals=0):
    """Write a rank's file: intervals in which it only starts, those in which it does the same each time, its end."""
    log = RankLog(run.rank_file(1, rank), rank_attributes(config, role=role, world_rank=rank))
    done = 0
    for interval in range(idle_intervals + intervals + 1):
        busy = interval >= idle_intervals
        done += busy
        mine = phases if busy else {}
        seconds = {str(phase): 0.0 for phase in Phase} | {str(p): s for p, (_, s, _) in mine.items()}
        seconds["wait"] = 1.0 - sum(seconds.values())
        log.append("timing", seconds | {"wall": 1.0, "cpu": 0.3})
        log.append("waiting", {"cpu": 0.01})
        log.append("events", {str(p): n for p, (n, _, _) in mine.items()})
        log.append("squares", {str(p): x for p, (_, _, x) in mine.items()})
        steps = mine[Phase.ENV][0] * 2 * 13 / 14 if Phase.ENV in mine else 0.0  # one in 14 resets
        counted = {"time": interval + 1.0, "updates": 4.0 * done * (role == "learner"), "env_steps": steps * done}
        log.append("progress", {"predictions": 0.0, "trained": 0.0} | counted)
        if role == "actor" and busy:
            log.append("traffic/rollout", {"messages": 2.0 * done, "bytes": 2000.0 * done})
        if role == "learner" and busy:
            log.append("learning", {"lag_mean": 1.5})
    log.flush()


@pytest.fixture
def run(tmp_path):
    """Return the directory of a run of one learner and two actors, which took two seconds to start."""
    config, directory = config_of(), RunDirectory(tmp_path / "run")
    directory.create(config)
    directory.start_segment(3)
    write_rank(directory, config, 0, "learner", LEARNER, 5, idle_intervals=2)
    for rank in (1, 2):
        write_rank(directory, config, rank, "actor", ACTOR, 5, idle_intervals=2)
    return directory.path


def test_what_counts_begins_after_the_first_updates_and_leaves_out_the_end(run):
    learner, first, second = read_measured(run)
    assert (learner.role, first.role, second.rank) == ("learner", "actor", 2)
    for measured in (learner, first):
        assert measured.wall_s == 4.0  # of 8 intervals: 2 to start, the one with the first updates, and the last go
        assert sum(measured.seconds.values()) == pytest.approx(4.0)
    assert learner.events[Phase.GRADIENT] == 16
    assert learner.squares[Phase.GRADIENT] == pytest.approx(0.2)
    assert learner.counts["updates"] == 16
    assert learner.lag == pytest.approx(1.5)
    assert first.messages == {"rollout": 8.0}
    assert first.nbytes == {"rollout": 8000.0}
    assert math.isnan(first.lag)


def test_a_run_that_is_too_short_or_too_old_is_refused(run, tmp_path):
    config, short = config_of(), RunDirectory(tmp_path / "short")
    short.create(config)
    short.start_segment(1)
    write_rank(short, config, 0, "learner", LEARNER, 1)
    with pytest.raises(ValueError, match="too short to tell, no whole interval of 1 s"):
        read_measured(short.path)
    with h5py.File(RunDirectory(run).rank_file(1, 2), "r+") as file:
        del file["events"]
    with pytest.raises(ValueError, match="no /events"):
        read_measured(run)
    with pytest.raises(ValueError, match="no readable run here"):
        read_measured(tmp_path / "nowhere")


def test_costs_are_seconds_by_event_with_their_scatter(run):
    known = calibrate(job(), read_measured(run))
    (learner,), (actor, _) = known.work[Role.LEARNER], known.work[Role.ACTOR]
    assert learner.gradient.mean == pytest.approx(0.1)
    assert learner.gradient.variance == pytest.approx(0.05 / 4 - 0.1**2)
    assert learner.batch == Cost(pytest.approx(0.01), pytest.approx(0.0, abs=1e-12))
    assert actor.env.mean == pytest.approx(0.05)
    assert actor.act.mean == pytest.approx(0.01)
    assert actor.collect.mean == pytest.approx(0.02)
    assert known.frames_a_step == pytest.approx(13 / 14)
    assert known.frames_per_s == pytest.approx(2 * 2 * 10 * 13 / 14)
    assert actor.cpu == 1.0  # 0.29 s of processor time: 0.16 s of work, the rest was the environments'
    assert actor.env_cpu == pytest.approx((0.29 - 0.16) / 0.5)
    assert learner.cpu == pytest.approx(0.29 / 0.444)


def test_costs_follow_the_sizes_of_another_layout(run):
    known = calibrate(job(), read_measured(run))
    larger = scenario(known, job("impala", 9, "algorithm.unroll_length=10", "env.num_envs=4"), Machine())
    (learner,), (actor, _) = larger.work[Role.LEARNER], larger.work[Role.ACTOR]
    assert learner.gradient.mean == pytest.approx(0.1 * 4)
    assert actor.env.mean == pytest.approx(0.05 * 2)
    assert actor.collect.mean == pytest.approx(0.02 * 4)
    assert larger.ranks == 9
    assert larger.nbytes["rollout"] > 3 * scenario(known, known.job, Machine()).nbytes["rollout"]


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (("impala", 1), "had these roles: actor, learner; the job has these: learner;"),
        (("impala", 3, "network.width=0.5"), "network = "),
        (("impala", 3, "env.frame_stack=2"), "env.frame_stack = 2"),
        (("a3c", 3), "update.kind = 'server': the run was measured with 'allreduce'"),
        (("group_ensemble", 4), "coupling.kind = 'ensemble'"),
        (("impala", 3, "stages.detector=detected"), "stages.detector = "),
    ],
)
def test_what_a_run_cannot_tell_is_refused(run, wanted, complaint):
    known = calibrate(job(), read_measured(run))
    with pytest.raises(ValueError, match=complaint):
        scenario(known, job(*wanted), Machine())


def test_a_run_in_stages_tells_of_no_pace(run):
    with pytest.raises(ValueError, match=r"stages.detector.kind = 'by_frames'.*simulate from one with"):
        calibrate(job("impala", 3, "stages.detector=by_frames"), read_measured(run))


def test_sizes_have_the_names_that_messages_are_logged_by(run):
    known = calibrate(job(), read_measured(run))
    assert set(scenario(known, known.job, Machine()).nbytes) <= {tag.name.lower() for tag in Tag} | {"allreduce"}


def test_simulate_prints_a_table_and_writes_numbers_and_a_picture(run, command, tmp_path):
    code, out, err = command("simulate", run, "--ranks", "3,17", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "37.14 frames/s measured" in " ".join(out.split())
    rows = [line.split("│")[1:-1] for line in out.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == ["3", "17"]
    assert [row[-1].strip() for row in rows] == ["actors", "learner"]
    data = json.loads((tmp_path / "out" / "simulation.json").read_text())
    assert [found["ranks"] for found in data["jobs"]] == [3, 17]
    assert [found["topology"]["actors_per_group"] for found in data["jobs"]] == [2, 16]
    rates = [found["frames_per_s"] for found in data["jobs"]]
    cycle_s = 5 * 0.06 + 0.02 + 0.01  # a rollout's steps, its collection and sending
    assert rates[0] == pytest.approx(2 * 10 / cycle_s * 13 / 14, rel=0.02)
    assert rates[1] == pytest.approx(10 / 0.111 * 13 / 14, rel=0.02)  # batch, gradient and publication
    assert data["jobs"][1]["load"]["learner"]["most"] > 0.98
    assert (tmp_path / "out" / "simulation.png").stat().st_size > 10_000


def test_what_was_not_measured_is_said(run, command):
    code, out, err = command("simulate", run, "--ranks", "6", "--set", "topology.learners_per_group=2")
    assert (code, err) == (0, "")
    assert "allreduce: the run had one learner a group" in out
    assert "peers:" not in out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--ranks", "4,x"], "not counts of ranks"),
        (["--ranks", "0"], "not counts of ranks"),
        (["--ranks", "4", "--ranks-per-host", "2"], "give both"),
        (["--ranks", "4", "--set", "network.width=2"], "network = "),
        ([], "Missing option '--ranks'"),
    ],
)
def test_a_mistake_is_one_line(run, command, options, complaint):
    code, _, err = command("simulate", run, *options)
    assert code == 2
    assert complaint in err
    assert err.count("\n") == 1
