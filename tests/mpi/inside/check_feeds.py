"""The queue of a learner's actors: fast ones that wait for a slow learner, and slow ones that never do."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpcddrl.comm.channel import Ending, Sender, Tag, Traffic, drain
from hpcddrl.comm.messages import rollout_layout
from hpcddrl.comm.placement import Place, Role
from hpcddrl.comm.wait import wait_until
from hpcddrl.comm.world import World
from hpcddrl.logs.timing import Timing
from hpcddrl.roles.counters import Counters
from hpcddrl.roles.feeds import Queue
from hpcddrl.roles.publishing import AsTheyAre, Inbox, Publisher
from hpcddrl.types import Discrete, EnvSpec, Weights

SPEC = EnvSpec(frame_shape=(2,), frame_dtype=np.dtype(np.float32), frame_stack=1, frame_skip=1, action=Discrete(2))
LAYOUT = rollout_layout(SPEC, 2, 1)
ROLLOUTS = 12  # of each actor


def act(world, collect_s):
    """Send rollouts that tell when they were begun, in ms; return how long each then waited to be let in."""
    sender, waited = Sender(world, Tag.ROLLOUT, LAYOUT, 1, Traffic()), []
    for _ in range(ROLLOUTS):
        slot = sender.take()
        slot.record.version[0] = time.monotonic_ns() // 1_000_000
        time.sleep(collect_s)
        finished = time.monotonic()
        sender.send(slot, 0)
        sender.release(slot)
        wait_until(lambda: sender.idle, longest_s=1e-3)
        waited.append(time.monotonic() - finished)
    sender.say_last([0])
    drain(Ending((), (sender,)))
    return waited


def learn(world, taking, learn_s):
    """Learn from all; return the rollouts' ages when they were taken, in s, and the order in which they came."""
    control = SimpleNamespace(timing=Timing(), counters=Counters(), tick=lambda: None, stop=False)
    publisher = SimpleNamespace(serve=lambda: None, postpone=lambda waits: None)
    actors = range(1, world.size)
    queue = Queue(world, actors, LAYOUT, 1, taking, publisher, control)
    ages, order = [], []
    for _ in range(ROLLOUTS * len(actors)):
        ((source, rollout),) = queue.take(0)
        ages.append(1e-3 * (time.monotonic_ns() // 1_000_000 - rollout.version[0]))
        order.append(source)
        queue.release()
        time.sleep(learn_s)
    drain(queue.end())
    return ages, order


@pytest.fixture
def world():
    places = (Place(Role.LEARNER, 0, 0), *(Place(Role.ACTOR, 0, i) for i in range(MPI.COMM_WORLD.size - 1)))
    world = World(MPI.COMM_WORLD.Dup(), places, False)
    yield world
    world.Free()


@pytest.mark.skipif(MPI.COMM_WORLD.size < 3, reason="needs two actors")
@pytest.mark.parametrize(("taking", "rounds"), [("arrived", 2), ("wanted", 1)])
def test_beside_a_slow_learner_a_rollout_is_so_many_rounds_old(world, taking, rounds):
    """A round is an update from each actor's rollout; what is let in ahead of time waits for another."""
    actors, learn_s = world.size - 1, 0.03
    if world.rank:
        act(world, collect_s=0.01)
        return
    ages, order = learn(world, taking, learn_s)
    settled = slice(4 * actors, -2 * actors)
    assert np.median(ages[settled]) == pytest.approx(rounds * actors * learn_s, rel=0.3)
    assert np.bincount(order[settled]).tolist() == [ROLLOUTS - 6] * actors  # nobody is passed over


@pytest.mark.skipif(MPI.COMM_WORLD.size < 2, reason="needs an actor")
@pytest.mark.parametrize("taking", ["arrived", "wanted", "in_turn"])
def test_beside_a_fast_learner_nobody_waits(world, taking):
    if world.rank:
        assert np.median(act(world, collect_s=0.02)) < 0.01
    else:
        ages, _ = learn(world, taking, learn_s=0.0)
        assert np.median(ages) < 0.04


@pytest.mark.skipif(MPI.COMM_WORLD.size < 3, reason="needs two actors")
def test_who_is_postponed_gets_the_weights_of_the_moment_when_it_no_longer_is(world):
    values, traffic = torch.zeros(4), Traffic()
    if world.rank:
        got = []
        inbox = Inbox(world, [0], 16, lambda packed: got.append(packed.copy()), exact=False, traffic=traffic)
        assert not inbox.owed
        inbox.ask(0)
        assert inbox.owed
        wait_until(inbox.refresh)
        assert not inbox.owed
        assert inbox.version == (7 if world.rank == 1 else 0)
        drain(inbox.end())
        return
    others = range(1, world.size)
    publisher = Publisher(world, others, AsTheyAre(values), exact=False, timing=Timing(), traffic=traffic)
    publisher.postpone(lambda actor: actor == 1)
    publisher.put(Weights(0, values))
    wait_until(lambda: publisher.serve() or traffic.messages[Tag.WEIGHTS] == len(others) - 1)
    until = time.monotonic() + 0.1
    while time.monotonic() < until:
        publisher.serve()
    assert traffic.messages[Tag.WEIGHTS] == len(others) - 1
    publisher.put(Weights(7, values))
    publisher.postpone(lambda actor: False)
    wait_until(lambda: publisher.serve() or traffic.messages[Tag.WEIGHTS] == len(others))
    drain(publisher.end())
