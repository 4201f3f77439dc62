"""Every recipe from start to end in a few seconds, and what it leaves behind."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from launch import ROOT, Finished, hpcddrl, read_json, settings

from hpcddrl.logs import checkpoint
from hpcddrl.logs.schema import COLUMNS, SCHEMA
from hpcddrl.logs.timing import Phase
from hpcddrl.recipes import RECIPES
from hpcddrl.settings import dump, group_config, load

pytestmark = pytest.mark.mpi

CATCH, PONG, BREAKOUT = "hpcddrl/Catch-v0", "ALE/Pong-v5", "ALE/Breakout-v5"
DEFAULT = "group_ensemble"
COUPLED = (DEFAULT, "ensemble_hetero")


class Case(NamedTuple):
    recipe: str
    ranks: int
    env: str = CATCH
    options: tuple[str, ...] = ()
    named: bool = True  # else as `python -m hpcddrl` without a word: the default recipe and environment

    @property
    def budget(self) -> tuple[str, float]:
        """What ends it: coupled groups after so much that they have met, the others after some seconds."""
        if self.recipe == "staged":
            return "frames", 12_000
        if self.recipe in COUPLED and self.ranks > 2:
            return "frames", 2_500 * self.ranks if self.env == CATCH else 6_000
        return "seconds", 2 + self.ranks / 2  # more ranks start later, and the clock runs then too

    def __str__(self) -> str:
        return f"{self.recipe}-{self.ranks}-{self.env.split('/')[-1].split('-')[0].lower()}"


def given(**values: object) -> tuple[str, ...]:
    return tuple(settings(**values))


STAGES = given(stages__detector="by_frames", stages__detector__middle_from=1000, stages__detector__late_from=8000)
LATE = given(stages__late__apart_updates=5, stages__late__distilling_updates=3)
SMALL_IMAGES = given(env__frame_stack=2, network__torso="nips")
SOON = given(experience__learning_starts=500, experience__batch_size=32)  # to learn within seconds
CASES = [
    Case("group_ensemble", 6, options=(*given(topology__groups=2, topology__learners_per_group=2), *STAGES)),
    Case("staged", 4, options=(*given(topology__servers=2), *STAGES, *SMALL_IMAGES, *LATE)),
    Case("ensemble_hetero", 4, options=given(topology__actors_per_group=0)),
    Case("dqn", 1, "CartPole-v1", SOON),
    Case("gorila", 3, options=SOON),
    Case("ddql", 2, "hpcddrl/BitFlip-v0", (*SOON, *given(experience__hindsight="future", env__reward="raw"))),
    Case("apex", 3, options=SOON),
    Case("a3c", 4, options=given(topology__servers=2)),
    Case("ga3c", 2),
    Case("ga3c_faithful", 2),
    Case("elf", 3),
    Case("paac", 4, options=given(acting__reuse_forward="true")),
    Case("ppo", 2),
    Case("impala", 2, "Pendulum-v1", given(topology__split="auto")),
    Case("nnc_ga3c", 2, options=given(compression__distillation__beside="true")),
    Case("nnc_impala", 2, options=given(compression__format="int8", env__num_envs=8)),
    Case("nnc_apex", 3, options=SOON),
    Case("impala", 3, f"{PONG},{BREAKOUT}", given(env__num_envs=2)),
    Case("kickstart", 2, options=given(coupling__anneal_frames=50_000)),
    Case(DEFAULT, 2, PONG, given(env__num_envs=2), named=False),
]


class Run:
    """One finished run; ``more`` are settings beside the case's own."""

    def __init__(self, case: Case, folder: Path, more: tuple[str, ...] = ()) -> None:
        self.case, self.path = case, folder / "run"
        named = ["run", case.recipe, "--env", case.env] if case.named else []
        often = settings(logging__interval_s=1, **({"coupling.exchange_every": 5} if case.recipe in COUPLED else {}))
        arguments = [
            *named,
            f"--{case.budget[0]}",
            str(case.budget[1]),
            "--out",
            self.path,
            *often,
            *case.options,
            *more,
        ]
        self.job: Finished = hpcddrl(case.ranks, *arguments, cwd=folder)
        assert self.job.rc == 0, self.job.text
        self.summary = read_json(self.path / "summary.json")
        self.config = load(read_json(self.path / "config.json"))
        self.files = [h5py.File(self.path / f"segments/0001/rank-{rank:04d}.h5", "r") for rank in range(case.ranks)]

    def close(self) -> None:
        for file in self.files:
            file.close()

    def of_role(self, role: str) -> list[h5py.File]:
        return [file for file in self.files if file.attrs["role"] == role]

    @property
    def steppers(self) -> list[h5py.File]:
        return self.of_role("actor") or self.of_role("learner")

    @property
    def groups(self) -> list[int]:
        return sorted({int(file.attrs["group"]) for file in self.files} - {-1})

    def learners_of(self, group: int) -> list[int]:
        """Return the world ranks that learn in a group."""
        return [int(file.attrs["world_rank"]) for file in self.of_role("learner") if file.attrs["group"] == group]

    @property
    def replays(self) -> bool:
        return self.config.experience.kind == "replay"

    @property
    def passes(self) -> int:
        """How often a transition is learned from at most, where none is drawn from a replay."""
        found = [getattr(group_config(self.config, group).algorithm, "surrogate", None) for group in self.groups]
        return max(s.epochs if s is not None and s.kind == "clipped" else 1 for s in found)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Return the directory of a run that has learned a little."""
    folder = tmp_path_factory.mktemp("teacher")
    done = hpcddrl(2, "run", "impala", "--env", CATCH, "--frames", "3000", "--out", folder / "run", cwd=folder)
    assert done.rc == 0, done.text
    return folder / "run"


@pytest.fixture(scope="module", params=CASES, ids=str)
def run(request, tmp_path_factory):
    made = Run(request.param, tmp_path_factory.mktemp("smoke"), needed(request.param, request))
    yield made
    made.close()


def needed(case, request) -> tuple[str, ...]:
    """Return settings that a case cannot have before tests run."""
    return given(coupling__run=request.getfixturevalue("teacher")) if case.recipe == "kickstart" else ()


def test_every_recipe_is_run():
    assert {case.recipe for case in CASES} == set(RECIPES)


def test_it_says_where_it_runs_how_it_goes_and_how_it_ended(run):
    out = run.job.stdout
    assert f"hpcddrl {run.case.recipe} on {run.case.env}, {run.case.ranks} ranks" in out
    assert f"ended by {run.case.budget[0]}" in out
    assert "[Time " in out
    assert "Share of wall time" in out
    assert "Traceback" not in run.job.stderr
    log = (run.path / "run.log").read_text()
    for line in log.splitlines():
        assert line.rstrip() in out


def test_every_file_of_a_rank_is_whole(run):
    for rank, file in enumerate(run.files):
        wanted = {"timing", "progress", "waiting"}
        wanted |= {"learning"} if file.attrs["role"] in ("learner", "server") else set()
        assert wanted <= set(file), f"rank {rank} has {sorted(file)}"
        for name, group in file.items():
            tables = group.values() if name == "traffic" else [group]
            for table in tables:
                assert len({len(column) for column in table.values()}) == 1, f"rank {rank} /{name}: ragged"
        assert len(file["timing/wall"]) >= 2
        assert {f"timing/{phase}" for phase in Phase} <= {f"timing/{name}" for name in file["timing"]}
        assert not list(run.path.glob("**/*.new"))
    assert len(list((run.path / "segments/0001").iterdir())) == run.case.ranks


def test_the_phases_of_every_row_sum_to_its_wall_time(run):
    for rank, file in enumerate(run.files):
        wall = file["timing/wall"][:]
        phases = np.stack([file[f"timing/{phase}"][:] for phase in Phase])
        assert (phases >= 0).all(), f"rank {rank}"
        np.testing.assert_allclose(phases.sum(0), wall, rtol=0.01, err_msg=f"rank {rank}")
        assert (file["timing/cpu"][:] >= 0).all()
        assert (file["waiting/cpu"][:] <= file["timing/cpu"][:] + 0.05).all()


def test_the_rows_cover_the_whole_run(run):
    wall_s = run.summary["wall_s"]
    if run.case.budget[0] == "seconds":
        assert wall_s >= run.case.budget[1]
    for rank, file in enumerate(run.files):
        total, last = file["timing/wall"][:].sum(), file["progress/time"][-1]
        assert total == pytest.approx(last, abs=0.1), f"rank {rank}"
        assert total == pytest.approx(wall_s, rel=0.05, abs=1.5), f"rank {rank}"  # ranks part one after another
        time = file["progress/time"][:]
        assert (np.diff(time) > 0).all(), f"rank {rank}"


def test_counters_only_rise(run):
    for rank, file in enumerate(run.files):
        for name in (
            "frames",
            "env_steps",
            "episodes",
            "trained",
            "produced",
            "used",
            "dropped",
            "updates",
            "predictions",
        ):
            assert (np.diff(file[f"progress/{name}"][:]) >= 0).all(), f"rank {rank} {name}"
    assert run.summary["updates"] > 0


def test_no_data_are_from_the_future_and_on_policy_recipes_are_on_policy(run):
    for file in run.of_role("learner"):
        learning = file["learning"]
        least, mean, most = (learning[f"lag_{name}"][:] for name in ("min", "mean", "max"))
        seen = ~np.isnan(mean)
        assert seen.any()
        assert (least[seen] >= 0).all()
        assert (least[seen] <= mean[seen]).all()
        assert (mean[seen] <= most[seen]).all()
        if run.case.recipe in ("paac", "ppo", "a3c"):  # a3c: against its own copy
            assert (most[seen] == 0).all()


def test_every_applied_gradient_is_in_the_servers_histogram_of_staleness(run):
    if not run.of_role("server"):
        pytest.skip("no server")
    learners = len(run.of_role("learner"))
    for file in run.of_role("server"):
        staleness, count = file["staleness/staleness"][:], file["staleness/count"][:]
        assert (staleness >= 0).all()
        assert (count > 0).all()
        handed = file["handovers/updates"][:].sum() if "handovers" in file else 0
        assert count.sum() + handed == file["progress/updates"][-1] > handed
        most = file["learning/staleness_max"][:]
        assert np.nanmax(most) == staleness.max()
        assert np.nanmin(file["learning/staleness_mean"][:]) >= 0
        if learners == 1:
            assert (staleness == 0).all()


def test_every_transition_is_learned_from_or_counted_as_dropped_or_pending(run):
    counts = run.summary["transitions"]
    assert counts["produced"] > 0
    assert counts["used"] > 0
    assert counts["produced"] == counts["used"] + counts["dropped"] + counts["pending"]
    assert counts.pop("lost") == 0  # nobody has died
    if run.replays:
        assert counts["trained"] <= run.config.experience.replay_ratio * counts["produced"]
        assert counts["trained"] >= counts["used"]
    else:
        assert counts["pending"] == 0
        assert counts["used"] <= counts["trained"] - counts["replayed"] <= run.passes * counts["used"]
    assert (counts["replayed"] > 0) == (run.config.stages.middle.kind == "replay")
    for name, count in counts.items():
        assert sum(file[f"progress/{name}"][-1] for file in run.files) == count
    steps = sum(file["progress/env_steps"][-1] for file in run.files)
    # an actor that is told to stop may have begun a rollout that it does not send
    unroll, envs = run.config.algorithm.unroll_length, run.config.env.num_envs
    assert 0 <= steps - counts["produced"] <= unroll * envs * len(run.steppers)


def test_frames_are_env_steps_times_the_frame_skip(run):
    skip = 4 if run.case.env.startswith("ALE/") else 1
    for file in run.files:
        assert (file["progress/frames"][:] == skip * file["progress/env_steps"][:]).all()
    assert run.summary["frames"] == skip * run.summary["env_steps"]


def test_episodes_are_those_of_the_environment(run):
    rows = [file["episodes"] for file in run.steppers if "episodes" in file]
    assert sum(len(table["return"]) for table in rows) == run.summary["episodes"]
    for table in rows:
        assert (np.diff(table["frames"][:]) >= 0).all()
        if run.case.env == CATCH:
            assert set(table["return"][:]) <= {-1.0, 1.0}
            assert set(table["length"][:]) == {13.0}
        if run.case.env == "Pendulum-v1":
            assert set(table["length"][:]) == {200.0}
            assert (table["return"][:] < 0).all()
        if run.case.env == "CartPole-v1":
            assert (table["return"][:] == table["length"][:]).all()


def test_losses_are_finite_and_weights_are_saved(run):
    losses = ("td_error", "weight_mean", "value_mean") if run.replays else ("policy_loss", "value_loss", "entropy")
    for file in run.of_role("learner"):
        for name in ("loss", "grad_norm", *losses):
            values = file[f"learning/{name}"][:]
            assert len(values)
            assert np.isfinite(values).all(), name
    shards = [f"server-{k:04d}" for k in range(len(run.of_role("server")))]
    folder = run.path / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == (shards or [f"group-{g:04d}" for g in run.groups])
    states = checkpoint.newest_of_all(folder)
    assert list(states) == (shards[:1] or [f"group-{g:04d}" for g in run.groups])
    for state in states.values():
        assert all(tensor.isfinite().all() for tensor in state.network.values())
    versions = [state.version for state in states.values()]
    assert run.summary["updates"] == sum(versions), "an update of several learners together is one update"


def test_errors_and_weights_of_what_a_replay_gave_are_logged(run):
    if not run.replays:
        pytest.skip("no replay")
    uniform = run.config.experience.priorities.kind == "uniform"
    for file in run.of_role("learner"):
        assert (file["learning/td_error"][:] >= 0).all()
        weight = file["learning/weight_mean"][:]
        assert ((weight > 0) & (weight <= 1)).all()
        assert not uniform or (weight == 1).all()
        assert file["progress/trained"][-1] % run.config.experience.batch_size == 0


def test_one_file_opens_the_whole_run(run):
    with h5py.File(run.path / "run.h5", "r") as whole:
        ranks = [f"{rank:04d}" for rank in range(run.case.ranks)]
        assert whole.attrs["schema"] == SCHEMA
        assert list(whole["segments"]) == ["0001"]
        assert list(whole["ranks"]) == list(whole["segments/0001/ranks"]) == ranks
        for rank, name in enumerate(ranks):
            for path in (f"ranks/{name}", f"segments/0001/ranks/{name}"):
                assert whole[path].attrs["world_rank"] == rank
                np.testing.assert_array_equal(whole[f"{path}/timing/wall"][:], run.files[rank]["timing/wall"][:])


def test_a_moved_run_opens_too(run, tmp_path):
    moved = tmp_path / "elsewhere"
    moved.symlink_to(run.path, target_is_directory=True)
    with h5py.File(moved / "run.h5", "r") as whole:
        assert len(whole["ranks/0000/timing/wall"]) >= 2


def test_every_dataset_has_its_unit_and_meaning(run):
    for file in run.files:
        found: list[str] = []
        file.visititems(lambda name, item, found=found: found.append(name) if isinstance(item, h5py.Dataset) else None)
        assert found
        for name in found:
            assert (file[name].attrs["unit"], file[name].attrs["meaning"]) == COLUMNS[name]
            assert file[name].attrs["meaning"]


def test_every_file_says_where_it_comes_from(run):
    for rank, file in enumerate(run.files):
        attributes = dict(file.attrs)
        assert attributes["schema"] == SCHEMA
        assert attributes["recipe"] == run.case.recipe
        group = int(attributes["group"])
        own = run.config if group < 0 else group_config(run.config, group)
        assert json.loads(attributes["config"]) == dump(own)
        assert (attributes["world_rank"], attributes["world_size"]) == (rank, run.case.ranks)
        assert attributes["role"] in ("server", "learner", "replay", "actor")
        assert attributes["env"] in (run.case.env.split(",") if file in run.steppers else [""])
        assert attributes["group"] == -1 if attributes["role"] == "server" else attributes["group"] >= 0
        assert attributes["started"].endswith("+00:00")
        assert {"git_commit", "git_dirty", "host", "slurm_job_id"} <= set(attributes)
        if (ROOT / ".git").exists():
            assert len(attributes["git_commit"]) == 40
        versions = json.loads(attributes["versions"])
        assert {"python", "numpy", "torch", "mpi4py", "horovod", "ale_py"} <= set(versions)
        assert all(versions.values())


def test_the_configuration_reads_back_as_it_was_resolved(run):
    config = load(read_json(run.path / "config.json"))
    assert config.recipe == run.case.recipe
    assert config.env.id == run.case.env
    assert config.topology.groups is not None, "the layout is the one that ran"
    assert config.topology.actors_per_group is not None
    ranks = config.topology.servers + config.topology.groups * (
        config.topology.learners_per_group + config.topology.replays_per_group + config.topology.actors_per_group
    )
    assert ranks == run.case.ranks
    budget = {"frames": config.budget.frames, "seconds": config.budget.seconds}
    assert budget == {"frames": None, "seconds": None} | dict([run.case.budget])


def test_the_summary_has_what_readers_rely_on(run):
    summary = run.summary
    assert (summary["recipe"], summary["env"], summary["ranks"]) == (run.case.recipe, run.case.env, run.case.ranks)
    assert summary["seed"] == 1
    assert summary["exit_reason"] == run.case.budget[0]
    if run.case.budget[0] == "frames":
        assert summary["frames"] >= run.case.budget[1]
    rates = ("env_steps_per_s", "predictions_per_s", "trained_samples_per_s")
    for name in ("frames", "env_steps", "updates", "wall_s", *rates):
        assert summary[name] > 0, name
    assert summary["env_steps_per_s"] == pytest.approx(summary["env_steps"] / summary["wall_s"])
    assert {"episodes", "return_mean", "return_best", "lag_mean"} <= set(summary)
    if summary["episodes"]:
        assert summary["return_mean"] <= summary["return_best"]
    roles = {file.attrs["role"] for file in run.files}
    assert set(summary["phase_share"]) == set(summary["peak_rss_bytes"]) == roles
    for shares in summary["phase_share"].values():
        assert sum(shares.values()) == pytest.approx(1.0)
    assert all(2**20 < n < 2**40 for n in summary["peak_rss_bytes"].values())


def test_messages_are_counted(run):
    if run.case.ranks == 1:
        assert all("traffic" not in file for file in run.files)
        return
    central, shards, replays = run.config.acting.kind == "central", run.of_role("server"), run.of_role("replay")
    learner = {"errors"} if replays else set()
    learner |= {"gradient"} if shards else set()
    learner |= ({"actions"} if central else {"weights"}) if run.of_role("actor") else set()
    actor = {"frames"} if central else {"rollout", "pull"}
    wanted = {"actor": actor, "learner": learner, "server": {"weights"}, "replay": {"sample"}}
    for role in {file.attrs["role"] for file in run.files}:
        assert wanted[role] <= {tag for file in run.of_role(role) for tag in file["traffic"]}
    for file in run.files:
        for tag in file["traffic"].values():
            assert (np.diff(tag["messages"][:]) >= 0).all()
            assert (np.diff(tag["bytes"][:]) >= 0).all()
            assert (tag["bytes"][:] >= tag["messages"][:]).all()


def test_groups_look_at_each_other(run):
    if run.case.recipe not in COUPLED or len(run.groups) == 1:
        pytest.skip("no coupled groups")
    for file in run.of_role("learner"):
        exchange, kl = file["exchange"], file["learning/kl"][:]
        assert (exchange["version"][:] % 5 == 0).all()
        assert exchange["peers"][-1] == len(run.groups) - 1
        ages = exchange["age"][:]
        assert np.isfinite(ages[exchange["peers"][:] > 0]).all()
        assert (kl[np.isfinite(kl)] >= -1e-6).all()
        weight = file["learning/weight_own"][:]
        weight = weight[np.isfinite(weight)]
        assert len(weight)
        assert ((weight > 0) & (weight < 1)).all()
        differ = file["learning/disagreement"][:]
        differ = differ[np.isfinite(differ)]
        assert ((differ >= 0) & (differ <= 1)).all()


def test_all_who_share_weights_enter_a_stage_with_the_same_version(run):
    entered = {
        rank: list(zip(file["stages/stage"][:], file["stages/version"][:], strict=True)) if "stages" in file else []
        for rank, file in enumerate(run.files)
    }
    if run.config.stages.detector.kind == "none":
        assert not any(entered.values())
        return
    assert [stage for stage, _ in entered[0]] == [1, 2]
    for group in run.groups:
        others = run.of_role("server") or [run.files[run.learners_of(group)[0]]]
        wanted = entered[int(others[0].attrs["world_rank"])]
        assert [stage for stage, _ in wanted] == [1, 2]
        for rank, file in enumerate(run.files):
            if file.attrs["group"] == group:
                reached = wanted[: len(entered[rank])] if file.attrs["role"] == "actor" else wanted
                assert entered[rank] == reached, f"rank {rank} of group {group}"
                assert "reason" not in file["stages"] or rank == 0
    reasons = run.files[0]["stages/reason"].asstr()[:]
    for reason, frames in zip(reasons, run.files[0]["stages/frames"][:], strict=True):
        assert f"frames on: {reason}" in run.job.stdout
        assert 1000 <= frames <= run.summary["frames"]
    assert "[Stage " in run.job.stdout


def test_what_acts_in_a_networks_place_says_what_it_costs_and_whether_that_is_a_real_gain(run):
    said = re.findall(r"compression (.+): \d+\.\d{3} ms for (\d+) observations, .+'s, (.+)", run.job.stdout)
    if run.config.compression.kind == "uncompressed":
        assert said == []
        return
    ((name, together, verdict),) = said
    assert int(together) == run.config.env.num_envs
    assert verdict in ("real speed", "not faster"), "neither students nor eight bits are simulated"
    counts = rf"compression {name}: ([\d,]+) parameters instead of ([\d,]+), ([\d,]+) .+ instead of ([\d,]+)"
    numbers = re.findall(counts, run.job.stdout)[0]
    parameters, whole, macs, whole_macs = (int(number.replace(",", "")) for number in numbers)
    assert parameters < 0.6 * whole
    assert macs < 0.6 * whole_macs


def test_helpers_run_in_their_stages(run):
    if run.case.recipe != "staged":
        assert not any("helpers" in file for file in run.files)
        return
    for file in run.of_role("learner"):
        helped, (middle, late) = file["helpers"], file["stages/version"][:]
        told = zip(helped["helper"].asstr()[:], helped["running"][:], helped["version"][:], strict=True)
        rows = {(name, bool(on)): version for name, on, version in told}
        assert len(rows) == len(helped["helper"]) == 5
        assert rows["late_ensemble", True] >= late
        assert rows["autoencoder", True] == 0
        assert middle <= rows["rollout_replay", True] <= rows["autoencoder", False] < late
        assert rows["rollout_replay", False] >= late
        assert np.isfinite(file["learning/pretext_loss"][0])
        effective = file["learning/replay_effective"][:]
        effective = effective[np.isfinite(effective)]
        assert len(effective)
        assert ((effective > 0) & (effective <= 1)).all()
        assert file["timing/pretext"][:].sum() > 0
    assert len(list(run.path.glob("pretext/group-*.png"))) == len(run.of_role("learner"))


def test_workers_of_a_server_go_on_apart_and_become_one_model_again(run):
    if run.case.recipe != "staged":
        assert not any("handovers" in file for file in run.files)
        return
    for file in run.of_role("learner"):
        version, peers = file["exchange/version"][:], file["exchange/peers"][:]
        assert (version % 8 == 0).all()
        assert peers[-1] == len(run.groups) - 1
        assert np.isfinite(file["learning/kl"][:]).any()
    taken = [file["handovers/learner"][:][file["handovers/restarted"][:] == 1] for file in run.of_role("server")]
    for restarted in taken:
        assert len(restarted) == len(taken[0]) > 0, "no shard goes on from it alone"
        assert set(restarted) == {run.learners_of(0)[0]}


def test_a_teacher_counts_for_less_and_less(run):
    if run.case.recipe != "kickstart":
        pytest.skip("no teacher")
    (file,) = run.of_role("learner")
    kl, beta = file["learning/kl"][:], file["learning/beta"][:]
    taught = np.isfinite(kl)
    assert taught.any()
    assert (kl[taught] >= -1e-6).all()
    assert (np.diff(beta[taught]) < 0).all()
    assert (file["learning/weight_own"][:][taught] == 0).all(), "the student's policy is no part of what teaches"


def test_games_are_dealt_to_those_that_step(run):
    games = run.case.env.split(",")
    stepped = [file.attrs["env"] for file in run.steppers]
    assert stepped == [games[i % len(games)] for i in range(len(stepped))]
    if len(games) > 1:
        assert set(stepped) == set(games)


def test_horovod_is_named_with_its_version_and_each_groups_ranks(run):
    if all(len(run.learners_of(group)) == 1 for group in run.groups):
        assert "Horovod" not in run.job.stdout, "one learner has nothing to average"
        return
    version = json.loads(run.files[0].attrs["versions"])["horovod"]
    for group in run.groups:
        ranks = ", ".join(map(str, run.learners_of(group)))
        assert f"Horovod {version} averages over ranks {ranks} of group {group}" in run.job.stdout


@pytest.mark.slow  # every run once more
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_every_recipe_learns_is_evaluated_from_the_start_to_the_end(case, request, tmp_path):
    made = Run(case, tmp_path, (*needed(case, request), "--evaluate-every", "2000", *given(evaluation__episodes=3)))
    found = [file for file in made.files if "evaluation" in file]
    assert len(found) == (1 if made.of_role("server") else len(made.groups))
    for file in found:
        table = file["evaluation"]
        versions = table["version"][:].tolist()
        assert versions[0] == 0
        assert versions == sorted(set(versions))
        assert versions[-1] == file["progress/updates"][-1], "a server may have made some more for others"
        assert (table["episodes"][:] == 3).all()
        assert ((table["low"][:] <= table["return"][:]) & (table["return"][:] <= table["high"][:])).all()
    kept = made.summary["evaluation"]
    assert [row["version"] for row in kept.values()] == [file["evaluation/version"][-1] for file in found]
    made.close()
