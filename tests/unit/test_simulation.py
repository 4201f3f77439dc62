"""Simulated jobs against what is known exactly: queues, pipelines, barriers, links and shared cores."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

pytest.importorskip("simpy")

from hpcddrl.comm.placement import Role, fit
from hpcddrl.comm.wait import LONGEST_S, SHORTEST_S
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.parts import rollouts_per_batch
from hpcddrl.settings import override
from hpcddrl.simulation import model
from hpcddrl.simulation.build import Scenario
from hpcddrl.simulation.cost import FREE, Cost, Machine, Work
from hpcddrl.simulation.model import simulate
from hpcddrl.simulation.world import Rank, World

IDEAL = Machine(latency_s=0.0, bandwidth=math.inf, test_s=0.0, sleep_s=0.0, report_s=0.0)
KINDS = ("rollout", "frames", "actions", "pull", "weights", "sample", "errors")
KINDS += ("gradient", "shard", "exchange", "allreduce")


def exponential(mean):
    return Cost(mean, mean**2)


def scenario(recipe, ranks, *settings, machine=IDEAL, nbytes=None, **work):
    """Return a job whose ranks of each role take this; times are long beside the sleeps between two polls."""
    config = override(RECIPES[recipe](), ["env.num_envs=1", *settings])
    config = dataclasses.replace(config, topology=fit(config.topology, ranks))
    return Scenario(
        config=config,
        rollouts=rollouts_per_batch(config, config.topology.actors_per_group or 0),
        nbytes=dict.fromkeys(KINDS, 1.0) | (nbytes or {}),
        work={role: [work.get(role.value, Work())] for role in Role},
        machine=machine,
        report_every_s=0.05,
    )


def machine_repairman(customers, think_s, service_s):
    """Return the throughput of M/M/1//N: N customers who think and are served one at a time, both exponentially."""
    weights = [
        math.factorial(customers) / math.factorial(customers - n) * (service_s / think_s) ** n
        for n in range(customers + 1)
    ]
    return (1 - weights[0] / sum(weights)) / service_s


# --- costs


def test_a_cost_is_drawn_with_its_mean_and_variance():
    drawn = [Cost(3.0, 2.0).draw(rng) for rng in [np.random.default_rng(0)] for _ in range(20_000)]
    assert np.mean(drawn) == pytest.approx(3, rel=0.02)
    assert np.var(drawn) == pytest.approx(2, rel=0.05)
    assert Cost(3.0).draw(np.random.default_rng(0)) == 3.0
    assert FREE.draw(np.random.default_rng(0)) == 0.0


def test_costs_add_as_independent_events_do():
    assert Cost(1, 2) + Cost(3, 4) == Cost(4, 6)
    assert Cost(1, 2).times(5) == Cost(5, 10)
    assert Cost(1, 2).scaled(3) == Cost(3, 18)


# --- throughput


@pytest.mark.parametrize("learners", [1, 3, 8])
def test_learners_at_a_server_are_the_machine_repairman(learners, monkeypatch):
    monkeypatch.setattr(model, "MOST", 2000)
    work = {"learner": Work(gradient=exponential(5.0)), "server": Work(update=exponential(1.0))}
    outcome = simulate(scenario("a3c", learners + 1, "algorithm.unroll_length=1", **work), seed=3)
    assert outcome.updates_per_s == pytest.approx(machine_repairman(learners, 5.0, 1.0), rel=0.05)
    assert outcome.load[Role.SERVER].mean == pytest.approx(outcome.updates_per_s, rel=0.03)


@pytest.mark.parametrize(("actors", "rollouts_per_s"), [(2, 2 / 10), (4, 4 / 10), (5, 0.5), (12, 0.5)])
def test_actors_and_a_learner_are_a_pipeline(actors, rollouts_per_s):
    work = {"actor": Work(env=Cost(0.75), act=Cost(0.25)), "learner": Work(batch=Cost(0.5), gradient=Cost(1.5))}
    outcome = simulate(scenario("impala", actors + 1, "algorithm.unroll_length=10", **work))
    assert outcome.updates_per_s == pytest.approx(rollouts_per_s, rel=0.01)
    assert outcome.steps_per_s == pytest.approx(10 * rollouts_per_s, rel=0.01)
    assert outcome.load[Role.LEARNER].mean == pytest.approx(min(1.0, 2 * rollouts_per_s), abs=0.02)


def test_few_rollouts_of_each_rank_are_enough_to_tell_the_rate(monkeypatch):
    monkeypatch.setattr(model, "MOST", 4)
    work = {"actor": Work(env=Cost(1.0)), "learner": Work(gradient=Cost(2.0))}
    outcome = simulate(scenario("impala", 41, "algorithm.unroll_length=10", **work))
    assert outcome.updates_per_s == pytest.approx(0.5, rel=0.01)
    assert outcome.steps_per_s == pytest.approx(5.0, rel=0.02)


def test_learners_that_reduce_wait_for_the_last(monkeypatch):
    monkeypatch.setattr(model, "MOST", 2000)
    work = {"learner": Work(gradient=exponential(1.0))}
    settings = ["topology.learners_per_group=4", "topology.actors_per_group=0", "update.backend=mpi"]
    outcome = simulate(scenario("impala", 4, "algorithm.unroll_length=1", *settings, **work), seed=1)
    assert outcome.updates_per_s == pytest.approx(1 / (1 + 1 / 2 + 1 / 3 + 1 / 4), rel=0.05)


def test_learners_that_overlap_wait_for_the_update_before(monkeypatch):
    """An update begins its average when its gradient is made and all have begun that of the update before."""
    monkeypatch.setattr(model, "MOST", 2000)
    work = {"learner": Work(gradient=exponential(1.0))}
    settings = ["topology.learners_per_group=4", "topology.actors_per_group=0", "update.overlap=true"]
    outcome = simulate(scenario("impala", 4, "algorithm.unroll_length=1", *settings, **work), seed=1)
    came, updates = np.zeros(4), 20_000
    for gradients in np.random.default_rng(0).exponential(size=(updates, 4)):
        came = np.maximum(came + gradients, came.max())
    assert outcome.updates_per_s == pytest.approx(updates / came.max(), rel=0.05)


def test_in_lockstep_a_step_takes_the_environments_and_everyones_inference():
    work = {"actor": Work(env=Cost(1.0)), "learner": Work(act=Cost(0.1), gradient=Cost(2.0))}
    outcome = simulate(scenario("paac", 6, "algorithm.unroll_length=4", **work))
    assert outcome.steps_per_s == pytest.approx(5 * 4 / (4 * (1.0 + 5 * 0.1) + 2.0), rel=0.01)
    assert outcome.lag == 0


def test_an_update_of_several_rollouts_waits_for_all():
    work = {"actor": Work(env=Cost(1.0)), "learner": Work(gradient=Cost(0.5))}
    settings = ["algorithm.unroll_length=2", "algorithm.rollouts_per_batch=3"]
    outcome = simulate(scenario("impala", 4, *settings, **work))
    assert outcome.updates_per_s == pytest.approx(1 / 2, rel=0.01)


@pytest.mark.parametrize(("recipe", "ranks"), [("dqn", 1), ("apex", 4)])
def test_a_replay_is_learned_from_in_proportion_to_what_comes(recipe, ranks):
    stepping = Work(env=Cost(1.0))
    work = {"learner": stepping if recipe == "dqn" else Work(gradient=Cost(0.001)), "actor": stepping}
    settings = ["experience.batch_size=16", "experience.replay_ratio=4", "algorithm.unroll_length=4"]
    outcome = simulate(scenario(recipe, ranks, *settings, **work))
    assert outcome.updates_per_s == pytest.approx(outcome.steps_per_s * 4 / 16, rel=0.02)
    assert math.isnan(outcome.lag)


def test_a_slow_learner_holds_a_synchronous_servers_others():
    fast, slow = Work(gradient=Cost(1.0)), Work(gradient=Cost(3.0))
    job = scenario("a3c", 3, "update.mode=synchronous", "algorithm.unroll_length=1")
    job = dataclasses.replace(job, work={**job.work, Role.LEARNER: [fast, slow]})
    assert simulate(job).updates_per_s == pytest.approx(1 / 3, rel=0.01)


# --- what is between the ranks


def test_a_message_takes_its_latency_and_its_bytes():
    slow = IDEAL._replace(latency_s=0.25, bandwidth=100.0)
    work = {"learner": Work(gradient=Cost(1.0))}
    outcome = simulate(
        scenario("a3c", 2, "algorithm.unroll_length=1", machine=slow, nbytes={"gradient": 50.0, "shard": 50.0}, **work)
    )
    assert outcome.updates_per_s == pytest.approx(1 / (1.0 + 2 * (0.25 + 0.5)), rel=0.01)
    assert outcome.bytes_per_s["gradient"] == pytest.approx(50 * outcome.updates_per_s, rel=0.02)


def test_a_link_that_is_full_is_what_limits():
    narrow = IDEAL._replace(bandwidth=100.0)
    work = {"actor": Work(env=Cost(1.0))}
    outcome = simulate(
        scenario("impala", 9, "algorithm.unroll_length=1", machine=narrow, nbytes={"rollout": 50.0}, **work)
    )
    assert outcome.updates_per_s == pytest.approx(2.0, rel=0.03)  # a little less: requests for weights come too
    assert outcome.load[Role.LEARNER].wire == pytest.approx(1.0, abs=0.02)


def test_ranks_that_compute_share_the_cores_of_their_host(monkeypatch):
    monkeypatch.setattr(model, "MOST", 40)
    shared = IDEAL._replace(cores=2, ranks_per_host=6)
    work = {"learner": Work(env=Cost(0.05), act=Cost(0.05))}
    alone = simulate(scenario("dqn", 6, **work)).steps_per_s
    together = simulate(scenario("dqn", 6, machine=shared, **work)).steps_per_s
    sleeping = simulate(scenario("dqn", 6, machine=shared, learner=Work(env=Cost(0.1), env_cpu=0.0))).steps_per_s
    assert alone == pytest.approx(60, rel=0.01)
    assert together == pytest.approx(20, rel=0.02)
    assert sleeping == pytest.approx(60, rel=0.01)


@pytest.mark.parametrize("comes_s", [0.0, 1e-5, 0.3, 0.6, 17.2])
def test_who_waits_finds_a_message_at_the_end_of_a_sleep(comes_s):
    world = World(IDEAL._replace(sleep_s=0.01), seed=0)
    rank = Rank(world, Role.ACTOR, Work(), tests=1)
    found = []

    def waiting():
        yield from rank.wait(lambda: world.now >= comes_s)
        found.append(world.now)

    world.clock.process(waiting())
    world.later(comes_s, rank.ring)
    world.clock.run()
    expected, delay_s = 0.0, SHORTEST_S
    while expected < comes_s:
        expected += delay_s + 0.01
        delay_s = min(2 * delay_s, LONGEST_S)
    assert found == [pytest.approx(expected)]


# --- age


def test_an_actor_beside_a_fast_learner_acts_with_weights_one_update_old():
    work = {"actor": Work(env=Cost(1.0)), "learner": Work(gradient=Cost(0.1))}
    assert simulate(scenario("impala", 2, **work)).lag == 1


@pytest.mark.parametrize("actors", [4, 12])
def test_beside_a_slow_learner_data_are_as_old_as_the_actors_are_many(actors):
    """Nobody's rollout is let in before it is wanted, so that each begins one as the learner takes the one before."""
    work = {"actor": Work(env=Cost(0.1)), "learner": Work(gradient=Cost(1.0))}
    outcome = simulate(scenario("impala", actors + 1, "algorithm.unroll_length=10", **work))
    assert outcome.updates_per_s == pytest.approx(1.0, rel=0.01)
    assert actors <= outcome.lag <= actors + 1


def test_gradients_at_a_server_are_as_stale_as_the_others_are_many():
    work = {"learner": Work(gradient=exponential(1.0)), "server": Work(update=Cost(0.01))}
    outcome = simulate(scenario("a3c", 6, "algorithm.unroll_length=1", **work))
    assert outcome.staleness == pytest.approx(4, rel=0.05)  # each other one's, once on average
    assert outcome.lag == 0


# --- as a whole

USUAL = Work(env=Cost(5e-3, 1e-8), act=Cost(3e-4, 1e-9), batch=Cost(2e-4), gradient=Cost(2e-3, 1e-7), update=Cost(3e-4))
ALL = {role.value: USUAL for role in Role}


def test_the_same_seed_gives_the_same_and_another_does_not(monkeypatch):
    monkeypatch.setattr(model, "MOST", 10)
    job = scenario("impala", 8, machine=Machine(), **ALL)
    assert repr(simulate(job, 1)) == repr(simulate(job, 1))  # NaN is not equal to itself
    assert simulate(job, 1).steps_per_s != simulate(job, 2).steps_per_s


@pytest.mark.parametrize("recipe", ["impala", "a3c", "elf", "apex"])
def test_a_slower_network_makes_no_job_faster_and_more_ranks_no_job_slower(recipe, monkeypatch):
    monkeypatch.setattr(model, "MOST", 20)
    rates = [
        simulate(scenario(recipe, 8, machine=Machine(latency_s=latency), **ALL)).steps_per_s
        for latency in (0.0, 1e-3, 1e-2, 1e-1)
    ]
    assert all(slower <= faster * 1.01 for faster, slower in itertools.pairwise(rates))
    sizes = [simulate(scenario(recipe, ranks, machine=Machine(), **ALL)).steps_per_s for ranks in (4, 8, 32)]
    assert all(more >= fewer * 0.98 for fewer, more in itertools.pairwise(sizes))


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_can_be_simulated(recipe, monkeypatch):
    monkeypatch.setattr(model, "MOST", 8)
    nbytes = dict.fromkeys(KINDS, 1e5)
    outcome = simulate(scenario(recipe, 8, "env.num_envs=4", machine=Machine(), nbytes=nbytes, **ALL))
    assert 0 < outcome.steps_per_s < 8 * 4 / 5e-3
    assert outcome.updates_per_s > 0
    assert sum(load.ranks for load in outcome.load.values()) == outcome.ranks == 8


def test_groups_that_share_nothing_stand_for_each_other(monkeypatch):
    monkeypatch.setattr(model, "MOST", 20)
    few, many = (simulate(scenario("group_ensemble", n, machine=Machine(report_s=0.0), **ALL)) for n in (8, 16384))
    assert many.steps_per_s == pytest.approx(few.steps_per_s * 16384 / 8, rel=0.02)
    assert many.load[Role.LEARNER].ranks == 8192
    assert many.messages_per_s["exchange"] == pytest.approx(
        few.messages_per_s["exchange"] * (8192 * 8191) / (4 * 3), rel=0.3
    )
