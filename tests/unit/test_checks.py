"""What is wrong with a configuration on so many ranks, found before there is a job."""

import pytest

from hpcddrl.networks.make import make_network
from hpcddrl.recipes import RECIPES
from hpcddrl.runtime.checks import checked, fitted
from hpcddrl.settings import override

CATCH = "env.id=hpcddrl/Catch-v0"


def check(recipe, ranks, *settings):
    return checked(fitted(override(RECIPES[recipe](), [CATCH, *settings]), ranks))


def complaint(recipe, ranks, *settings):
    with pytest.raises(ValueError, match=r".") as error:
        check(recipe, ranks, *settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_shard_needs_a_weight():
    small = "network.width=0.01"
    config = override(RECIPES["a3c"](), [CATCH, small])
    network = make_network(config.network, config.algorithm, check("a3c", 2, small), seed=0)
    count = sum(p.numel() for p in network.parameters())
    check("a3c", count + 1, small, f"topology.servers={count}")
    said = complaint("a3c", count + 2, small, f"topology.servers={count + 1}")
    assert said.startswith(f"topology.servers = {count + 1}: more shards than the network's {count:,} weights")


def test_each_of_several_environments_needs_a_rank_that_steps_it():
    two = "env.id=hpcddrl/Catch-v0,hpcddrl/Catch-v0"
    check("impala", 3, two)
    check("dqn", 2, two)
    assert "2 environments for 1 ranks that step any" in complaint("impala", 2, two)
    assert "2 environments for 1 ranks that step any" in complaint("dqn", 1, two)


def test_what_an_automatic_choice_cannot_try_is_found_before_there_is_a_job():
    twice = ['compression={"kind": "auto", "candidates": [{"kind": "student"}, {"kind": "student"}]}']
    assert "two are called 'student 0.5 fp32'" in complaint("impala", 2, *twice)
    few = ["compression=auto", "env.num_envs=1", "algorithm.unroll_length=2"]
    assert "3 observations of a first rollout are too few" in complaint("impala", 2, *few)
    check("impala", 2, "compression=auto")


def test_the_student_of_any_group_must_suit_the_observations():
    vectors, student = "env.id=CartPole-v1", "group_settings.1.compression=student"
    check("group_ensemble", 4, vectors, student)
    said = complaint("group_ensemble", 4, vectors, student, "group_settings.1.compression.torso=nature")
    assert "compression.torso = 'nature', of the student" in said


def test_action_values_need_a_choice_among_actions():
    said = complaint("dqn", 1, "env.id=Pendulum-v1")
    assert "algorithm.kind = 'q_learning': needs a choice among actions" in said


def test_a_student_needs_a_teacher():
    assert "coupling.run is not set" in complaint("kickstart", 2)


def test_a_pretext_task_needs_images_with_room_for_convolutions():
    vectors = ("env.id=CartPole-v1", "network.torso=auto")
    assert "needs images, the environment shows vectors of 16" in complaint("staged", 2, *vectors)
    assert "env.frame_stack = 1: a pretext task needs two frames" in complaint("staged", 2, "env.frame_stack=1")
    assert "network.torso = 'mlp'" in complaint("staged", 2, "network.torso=auto")
    check("staged", 2, *vectors, "stages.early=none")


def test_a_replay_of_rollouts_holds_a_batch_at_least():
    small = ("stages.early=none", "stages.middle.capacity=15")
    assert "stages.middle.capacity = 15: fewer than the 16 rollouts" in complaint("staged", 2, *small)
    check("staged", 2, "stages.early=none", "stages.middle.capacity=16")


@pytest.mark.parametrize("recipe", sorted(set(RECIPES) - {"kickstart"}))
def test_nothing_is_wrong_with_the_recipes(recipe):
    assert check(recipe, 4).frame_shape == check("impala", 4).frame_shape
