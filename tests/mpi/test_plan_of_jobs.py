"""The plan of a job against the job itself: the channels that its ranks make, and the bytes that go through them."""

import json
from collections import defaultdict
from pathlib import Path

import h5py
import pytest
from launch import python, read_json, settings

from hpcddrl.envs.make import probe
from hpcddrl.runtime.plan import env_steps_per_s, flows, job_of
from hpcddrl.settings import load

pytestmark = pytest.mark.mpi

PROGRAM = Path(__file__).parent / "programs" / "channels.py"
CATCH = "hpcddrl/Catch-v0"
REPLAYS = settings(
    topology__replays_per_group=1,
    topology__actors_per_group=2,
    experience__learning_starts=200,
    env__num_envs=4,
)
CASES = {
    "impala": ("impala", 3, 30_000, []),
    "a3c": ("a3c", 3, 20_000, []),
    "two shards": ("a3c", 4, 15_000, settings(topology__servers=2)),
    "paac": ("paac", 3, 30_000, []),
    "two groups": ("group_ensemble", 4, 30_000, settings(coupling__exchange_every=5)),
    "two learners": ("impala", 4, 20_000, settings(topology__learners_per_group=2, update__backend="mpi")),
    "int8": ("impala", 3, 8_000, settings(compression="whole", compression__format="int8")),
    "replay ranks": ("dqn", 4, 8_000, REPLAYS),
}
ENDS = {"order", "roll", "report", "answer"}  # said once, or when a stage or a leg begins, or a rank falls silent
EXACT = {"rollout", "gradient", "frames", "actions"}  # the others are sent at most as often as planned


class Ran:
    """A short run, and its plan."""

    def __init__(self, recipe, ranks, frames, options, folder):
        run = ["run", recipe, "--env", CATCH, "--frames", str(frames), "--out", folder / "run"]
        often = settings(logging__interval_s=0.5, precision="fp32")  # nothing to time at start
        done = python(ranks, PROGRAM, folder, *run, *often, *options, cwd=folder, limit_s=60)
        assert done.rc == 0, done.text
        config = load(read_json(folder / "run" / "config.json"))
        self.job = job_of(config, probe(config.env))
        self.flows = flows(self.job, 1000.0)
        self.notes = [note for rank in range(ranks) for note in json.loads((folder / f"{rank}.json").read_text())]
        self.sent, self.steps = defaultdict(float), 0.0
        for path in (folder / "run/segments/0001").glob("*.h5"):
            with h5py.File(path, "r") as file:
                self.steps += file["progress/predictions"][-1]  # env steps, those too that only reset
                for kind, table in file.get("traffic", {}).items():
                    self.sent[kind] += table["bytes"][-1]


@pytest.fixture(scope="module", params=CASES)
def ran(request, tmp_path_factory):
    return Ran(*CASES[request.param], tmp_path_factory.mktemp("plan"))


def test_every_channel_of_the_job_is_in_the_plan_with_its_buffers(ran):
    received = {tuple(note[1:]) for note in ran.notes if note[0] == "received" and note[1] not in ENDS}
    assert received == {
        (flow.kind, flow.nbytes, int(source), int(dest), flow.posted)
        for flow in ran.flows
        for source, dest in zip(flow.senders, flow.receivers, strict=True)
        if flow.posted
    }


def test_no_sender_has_more_buffers_than_planned(ran):
    limits = defaultdict(int)
    for _, kind, nbytes, rank, _, limit in (note for note in ran.notes if note[0] == "sent"):
        limits[kind, nbytes, rank] += limit
    planned = {(f.kind, f.nbytes, int(rank)): f.most for f in ran.flows for rank in f.senders if f.most}
    assert planned == {channel: limits[channel] for channel in planned}


def test_the_bytes_of_an_env_step_are_those_planned(ran):
    planned = defaultdict(float)
    for flow in ran.flows:
        planned[flow.kind] += flow.bytes_per_s / env_steps_per_s(ran.job, 1000.0)
    found = {kind: nbytes / ran.steps for kind, nbytes in ran.sent.items() if kind not in ("status", *ENDS)}
    table = ", ".join(f"{kind} {found[kind]:.1f} of {planned[kind]:.1f}" for kind in found)
    print(f"bytes per env step over {ran.steps:.0f} steps: {table}")
    assert set(found) == {flow.kind for flow in ran.flows if flow.most} - {"status"}
    for kind, nbytes in found.items():
        assert nbytes < 1.25 * planned[kind], table
        assert nbytes > (0.75 if kind in EXACT else 0.01) * planned[kind], table
