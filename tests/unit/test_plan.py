"""The plan of a job before there is one: pure, fast at any size, and in line with what the roles are made of."""

import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from hpcddrl.comm.placement import Role
from hpcddrl.config import AdaGrad, Adam, RMSProp
from hpcddrl.envs.make import probe
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.checks import fitted
from hpcddrl.runtime.footprint import footprint, hosts, optimizer_vectors
from hpcddrl.runtime.pace import Pace, learner, natural
from hpcddrl.runtime.plan import busiest, crews, env_steps_per_s, flows, job_of, spans, updates_per_s
from hpcddrl.settings import override

CATCH = "env.id=hpcddrl/Catch-v0"
PLANNED = sorted(set(RECIPES) - {"kickstart"})  # a teacher is a run, and there is none


def job(recipe, ranks, *options):
    config = fitted(override(RECIPES[recipe](), [CATCH, *options]), ranks)
    return job_of(config, probe(config.env))


def by_kind(made, steps_per_s=1000.0):
    return {flow.kind: flow for flow in flows(made, steps_per_s)}


def parts_of(made, role):
    found = footprint(made, flows(made, 1000.0))[role]
    return {part.what: part for part in found}


# --- messages


def test_an_actor_sends_a_rollout_for_every_t_steps_of_its_environments():
    made = job("impala", 5, "env.num_envs=8", "algorithm.unroll_length=10")
    rollout = by_kind(made)["rollout"]
    assert rollout.messages_per_s == pytest.approx(4 * 1000 / 80)
    assert set(rollout.receivers) == {0}
    assert rollout.load(5)[0] == pytest.approx(rollout.bytes_per_s)
    assert busiest(made, [rollout]) == (0, pytest.approx(rollout.bytes_per_s))


def test_actors_of_several_learners_deal_rollouts_to_all_and_ask_one():
    found = by_kind(job("impala", 6, "topology.learners_per_group=2"))
    assert sorted(zip(found["rollout"].senders, found["rollout"].receivers, strict=True)) == [
        (actor, learner) for actor in range(2, 6) for learner in (0, 1)
    ]
    assert list(zip(found["pull"].senders, found["pull"].receivers, strict=True)) == [(2, 0), (3, 1), (4, 0), (5, 1)]


def test_a_ring_moves_the_gradient_twice_but_for_one_part():
    made = job("impala", 8, "topology.learners_per_group=4")
    ring = by_kind(made)["allreduce"]
    updates = updates_per_s(made, 1000.0)
    assert ring.bytes_per_s == pytest.approx(4 * updates * 2 * 3 / 4 * 4 * made.parameters, rel=1e-3)


def test_every_leader_hears_every_other_one():
    made = job("group_ensemble", 16)
    exchange = by_kind(made)["exchange"]
    assert len(exchange.senders) == 8 * 7
    assert exchange.per_s == pytest.approx(updates_per_s(made, 1000.0) / 20)


@pytest.mark.parametrize(
    ("topology", "pairs", "a_round"), [("ring", 8, 8), ("random_pairs", 56, 8), ("all_to_all", 56, 56)]
)
def test_bytes_of_exchange_grow_as_the_topology_says(topology, pairs, a_round):
    made = job("group_ensemble", 16, f"coupling.topology={topology}")
    exchange = by_kind(made)["exchange"]
    assert len(set(zip(exchange.senders, exchange.receivers, strict=True))) == pairs
    assert exchange.messages_per_s == pytest.approx(a_round * updates_per_s(made, 1000.0) / 20)


def test_of_an_odd_number_of_groups_one_is_left_out_of_random_pairs():
    made = job("group_ensemble", 6, "topology.actors_per_group=1", "coupling.topology=random_pairs")
    assert by_kind(made)["exchange"].messages_per_s == pytest.approx(2 * updates_per_s(made, 1000.0) / 20)


def test_groups_that_differ_send_what_each_kind_sends():
    options = ("group_settings.1.network.width=0.5", "group_settings.1.algorithm.unroll_length=5")
    made = job("group_ensemble", 12, *options)
    kinds = {size: [f for f in flows(made, 1000.0) if f.kind == size] for size in ("exchange", "rollout")}
    for first, second in kinds.values():
        assert {made.places[rank].group % 2 for rank in first.senders} == {0}
        assert {made.places[rank].group % 2 for rank in second.senders} == {1}
        assert second.nbytes < first.nbytes
    assert [len(flow.senders) for flow in kinds["exchange"]] == [3 * 5, 3 * 5]
    assert kinds["exchange"][1].per_s == pytest.approx(2 * kinds["exchange"][0].per_s), "it updates twice as often"
    assert kinds["exchange"][1].nbytes == pytest.approx(4 * made.sizes[1], rel=0.05)
    total = sum(flow.messages_per_s for flow in flows(made, 1000.0) if flow.kind == "status")
    assert total == pytest.approx(by_kind(job("group_ensemble", 12))["status"].messages_per_s)


def test_a_server_shard_gets_its_part_of_each_gradient():
    whole, parts = (by_kind(job("a3c", 5 + k, f"topology.servers={k}"))["gradient"] for k in (1, 4))
    assert len(parts.senders) == 4 * len(whole.senders)
    assert parts.nbytes == pytest.approx(whole.nbytes / 4, rel=0.02)


def test_lockstep_answers_every_frame_and_updates_once_a_rollout_of_all():
    made = job("paac", 4, "env.num_envs=16", "algorithm.unroll_length=5")
    found = by_kind(made)
    assert found["frames"].messages_per_s == found["actions"].messages_per_s == pytest.approx(3 * 1000 / 16)
    assert updates_per_s(made, 1000.0) == pytest.approx(1000 / (16 * 5))


def test_rollouts_that_are_drawn_again_are_updates_too():
    twice, once = job("staged", 3), job("staged", 3, "stages.middle=none")
    assert updates_per_s(twice, 1000.0) == pytest.approx(2 * updates_per_s(once, 1000.0))
    assert by_kind(twice)["gradient"].per_s == pytest.approx(2 * by_kind(once)["gradient"].per_s)
    nothing = ("stages.middle=none", "stages.early=none", "stages.late=none", "stages.detector=none")
    untold = by_kind(job("staged", 3, *nothing))
    assert "exchange" not in untold
    late = twice.config.stages.late
    rounds = updates_per_s(twice, 1000.0) / (late.apart_updates + late.distilling_updates)
    assert by_kind(twice)["exchange"].messages_per_s == pytest.approx(2 * rounds)
    assert by_kind(twice)["status"].nbytes - untold["status"].nbytes == 8 * 4096


def test_rollouts_that_a_server_keeps_go_there_once_and_come_back_as_often_as_they_are_drawn():
    made = job("staged", 4, "stages.middle.held_by=server", "stages.middle.replay_ratio=0.5")
    found, batches = by_kind(made), 1000 / (made.config.algorithm.unroll_length * made.config.env.num_envs)
    assert found["rollout"].messages_per_s == pytest.approx(3 * batches)
    assert found["sample"].messages_per_s == found["errors"].messages_per_s == pytest.approx(3 * batches / 2)
    assert set(found["rollout"].receivers) == set(found["sample"].senders) == {0}
    own = by_kind(job("staged", 4))
    assert "sample" not in own
    assert "rollout" not in own


def test_passes_over_a_batch_are_updates_too():
    made = job("ppo", 1)
    surrogate = made.config.algorithm.surrogate
    batches = 1000 / (made.config.algorithm.unroll_length * made.config.env.num_envs)
    assert updates_per_s(made, 1000.0) == pytest.approx(batches * surrogate.epochs * surrogate.minibatches)


@pytest.mark.parametrize("name", PLANNED)
def test_all_messages_but_statuses_follow_the_pace(name):
    made = job(name, 12)
    slow, fast = by_kind(made, 100.0), by_kind(made, 1000.0)
    for kind in slow.keys() - {"status"}:
        assert fast[kind].bytes_per_s == pytest.approx(10 * slow[kind].bytes_per_s), kind
    assert fast["status"].bytes_per_s == slow["status"].bytes_per_s
    assert env_steps_per_s(made, 100.0) * 10 == env_steps_per_s(made, 1000.0)


# --- memory


@pytest.mark.parametrize(
    ("method", "make"),
    [
        (RMSProp(), torch.optim.RMSprop),
        (RMSProp(momentum=0.9), lambda p: torch.optim.RMSprop(p, momentum=0.9)),
        (RMSProp(centered=True), lambda p: torch.optim.RMSprop(p, centered=True)),
        (Adam(), torch.optim.Adam),
        (AdaGrad(), torch.optim.Adagrad),
    ],
    ids=["rmsprop", "momentum", "centered", "adam", "adagrad"],
)
def test_an_optimizer_keeps_as_many_vectors_as_torch_does(method, make):
    weights = torch.zeros(50, requires_grad=True)
    weights.grad = torch.ones(50)
    optimizer = make([weights])
    optimizer.step()
    kept = [value for value in optimizer.state[weights].values() if getattr(value, "shape", None) == (50,)]
    assert optimizer_vectors(method) == len(kept)


def test_an_ensemble_keeps_the_weights_of_each_peer():
    made = job("group_ensemble", 16)
    peers = parts_of(made, Role.LEARNER)["peers' weights"]
    assert peers.total == 7 * 4 * made.parameters


def test_delay_compensation_keeps_a_backup_a_learner():
    made = job("a3c", 6, "topology.servers=2", "update.compensation=adaptive")
    parts = parts_of(made, Role.SERVER)
    assert parts["backups of the weights"].total == 4 * 4 * made.shard
    assert parts["running mean square"].total == 4 * made.shard


def test_the_learner_that_receives_from_all_holds_a_buffer_for_each():
    made = job("impala", 65)
    part = parts_of(made, Role.LEARNER)["rollout received"]
    assert part.number == 64


def test_hosts_hold_what_their_ranks_do():
    made = job("impala", 10)
    parts = footprint(made, flows(made, 1000.0))
    found = hosts(made, parts, base=1000, ranks_per_host=4)
    assert sorted((host.hosts, host.ranks) for host in found if Role.LEARNER in host.ranks) == [
        (1, {Role.LEARNER: 1, Role.ACTOR: 3})
    ]
    total = sum(1000 + sum(part.total for part in parts[place.role]) for place in made.places)
    assert sum(host.hosts * host.nbytes for host in found) == total


# --- roles and pace


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([0], "0"),
        (list(range(1, 4096)), "1-4095"),
        (list(range(0, 16, 2)), "0, 2, … 14"),
        ([1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15], "1-3, 5-7, … 13-15"),
        ([0, 1, 4, 5, 6], "0-1, 4-6"),
    ],
)
def test_ranks_are_written_shortly(ranks, text):
    assert spans(ranks) == text


def test_every_rank_has_a_role():
    for name in PLANNED:
        made = job(name, 12)
        assert sorted(rank for crew in crews(made) for rank in crew.ranks) == list(range(12))


def test_a_slow_learner_is_the_bottleneck():
    made, pace = job("impala", 5), Pace(steps=1000.0, answers=float("inf"), samples=2000.0)
    assert learner(made, 1000.0, pace).samples == 4000.0
    assert learner(made, 1000.0, pace).busy == pytest.approx(2.0)


def test_what_steps_and_learns_does_both_in_turn():
    made, pace = job("a3c", 3), Pace(steps=1000.0, answers=float("inf"), samples=1000.0)
    assert natural(made, pace) == pytest.approx(500.0)
    assert learner(made, 500.0, pace).busy == pytest.approx(1.0)


def test_a_learner_that_acts_is_busy_with_both():
    made, pace = job("ga3c", 3), Pace(steps=1000.0, answers=4000.0, samples=4000.0)
    wanted = learner(made, 1000.0, pace)
    assert wanted.answers == 2000.0
    assert wanted.busy == pytest.approx(1.0)


# --- the command


def hpcddrl(*arguments, before=""):
    code = f"import sys\n{before}\nsys.argv = ['hpcddrl', *{list(map(str, arguments))!r}]\n"
    code += "from hpcddrl.__main__ import main\nmain()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


WITHOUT_MPI = "sys.modules['mpi4py'] = None"  # importing it fails


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "impala", "--ranks", 3, "--env", "hpcddrl/Catch-v0"),
        ("plan", "apex", "--ranks", 6, "--env", "hpcddrl/Catch-v0", "--steps-per-s", 500, "--ranks-per-host", 4),
        ("ranks", "a3c"),
        ("list",),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_neither_plan_nor_ranks_nor_list_touches_mpi(arguments):
    done = hpcddrl(*arguments, before=WITHOUT_MPI)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_a_pace_given_is_a_pace_and_nothing_is_timed(command):
    arguments = ("plan", "paac", "--ranks", 4, "--env", "hpcddrl/Catch-v0", "--steps-per-s", 750)
    (code, first, err), (_, second, _) = command(*arguments), command(*arguments)
    assert (code, err) == (0, "")
    known = [line for line in first.splitlines() if "interpreter" not in line and " all " not in line]
    assert [line for line in second.splitlines() if "interpreter" not in line and " all " not in line] == known
    assert "750 env steps/s" in first
    assert "as given" in first
    assert "measured on this machine" not in first


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "devices: each learner computes on cores; all other roles on cores"),
        (["network.torso=resnet"], "computes on a GPU if its node has one, else cores; all other roles on cores"),
        (
            ["device.learner=cuda", "device.inference=cpu"],
            "computes on a GPU of its node, and chooses actions on cores",
        ),
    ],
)
def test_a_plan_says_what_each_role_computes_on(command, settings, said):
    chosen = [word for setting in settings for word in ("--set", setting)]
    pace = ("--env", "hpcddrl/Catch-v0", "--steps-per-s", 100)
    code, out, _ = command("plan", "paac", "--ranks", 2, *pace, "--set", "acting.reuse_forward=false", *chosen)
    assert code == 0
    assert said in " ".join(out.split())
    assert ("this machine's GPUs: " in " ".join(out.split())) == bool(settings)


def test_without_a_pace_one_is_measured_and_the_learner_held_against_it(command):
    code, out, _ = command("plan", "impala", "--ranks", 3, "--env", "hpcddrl/Catch-v0")
    assert code == 0
    assert "measured on this machine, with this" in " ".join(out.split())
    assert "one learner here, alone on one thread, learns from" in " ".join(out.split())


@pytest.mark.parametrize("name", PLANNED)
def test_every_recipe_is_planned_for_4096_ranks_at_once(command, name):
    start = time.perf_counter()
    code, out, err = command(
        *("plan", name, "--ranks", 4096, "--env", "hpcddrl/Catch-v0", "--steps-per-s", 1000, "--ranks-per-host", 64)
    )
    assert (code, err) == (0, "")
    assert time.perf_counter() - start < 3
    lines = out.splitlines()
    assert len(lines) < 90
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan", "impalla", "--ranks", 4], "recipe 'impalla': there is none; nearest: impala"),
        (["plan", "impala"], "Missing option '--ranks'"),
        (["plan", "impala", "--ranks", 0], "0 is not in the range"),
        (["plan", "group_ensemble", "--ranks", 1], "1 ranks cannot be laid out"),
        (["plan", "impala", "--ranks", 4, "--steps-per-s", 0], "0.0 is not in the range"),
        (["plan", "impala", "--ranks", 4, "--env", "hpcddrl/Cach-v0"], "no such environment"),
        (["plan", "impala", "--ranks", 4, "--set", "env.num_env=8"], "nearest: env.num_envs"),
        (["ranks", "group_ensemble", "--check", 1], "1 ranks cannot be laid out"),
        (["ranks", "a3c", "--most", 1], "no count up to 1 can be laid out"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(command, arguments, expected):
    code, out, err = command(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err


def test_ranks_says_the_smallest_count_first(command):
    assert command("ranks", "a3c")[1].startswith("a3c: at least 2 ranks (1 server and 1 group of 1 learner)")


def test_ranks_checks_a_count(command):
    assert command("ranks", "group_ensemble", "--check", 16) == (
        *(0, "group_ensemble on 16 ranks: 8 groups of 1 learner + 1 actor\n", ""),
    )


def test_numbers_are_finite_at_one_rank(command):
    for name in ("impala", "paac", "dqn"):
        made = job(name, 1)
        assert all(np.isfinite(flow.bytes_per_s) for flow in flows(made, 1000.0))
        assert command("plan", name, "--ranks", 1, "--env", "hpcddrl/Catch-v0", "--steps-per-s", 100)[0] == 0
