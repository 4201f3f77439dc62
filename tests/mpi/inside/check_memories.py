"""Rollouts that a server keeps for all of its learners."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from mpi4py import MPI

from hpcddrl.comm.channel import Traffic, drain, reopen
from hpcddrl.comm.messages import rollout_layout
from hpcddrl.comm.placement import Place, Role
from hpcddrl.comm.world import World
from hpcddrl.config import RolloutReplay
from hpcddrl.logs.timing import Timing
from hpcddrl.replay.rollouts import RolloutMemory
from hpcddrl.roles.memories import KeepsRollouts, ServersMemory
from hpcddrl.types import Discrete, EnvSpec

SPEC = EnvSpec(frame_shape=(2,), frame_dtype=np.dtype(np.float32), frame_stack=1, frame_skip=1, action=Discrete(2))
T, B, COUNT, MAX_LAG = 3, 2, 4, 50
CONFIG = RolloutReplay(held_by="server", capacity=1000, alpha=1.0, epsilon=1e-6)
LIMIT_S = 30.0


@pytest.fixture
def world():
    learners = (Place(Role.LEARNER, group, 0) for group in range(MPI.COMM_WORLD.size - 1))
    world = World(MPI.COMM_WORLD.Dup(), (Place(Role.SERVER, None, 0), *learners), False)
    yield world
    world.Free()


def control():
    return SimpleNamespace(timing=Timing())


def rollout_of(number, version):
    """Return a rollout in which everything says its number, step and environment."""
    _, rollout = rollout_layout(SPEC, T, B).allocate()
    rollout.version[0] = version
    rollout.reward[:] = 1000 * number + 10 * np.arange(T)[:, None] + np.arange(B)
    rollout.log_mu[:], rollout.frames[:] = -rollout.reward, number
    return rollout


def server(world):
    _, like = rollout_layout(SPEC, T, 1).allocate()
    memory = RolloutMemory(CONFIG, like, seed=0)
    learners = range(1, world.size)
    return memory, KeepsRollouts(world, learners, memory, SPEC, T, B, COUNT, CONFIG, control(), Traffic())


def learner(world):
    return ServersMemory(world, 0, SPEC, T, B, 1, COUNT, MAX_LAG, world.rank, control(), Traffic())


def come_through(world, serve=lambda: False):
    """Wait until all ranks have come as far."""
    through = world.Ibarrier()
    while not through.Test():
        if not serve():
            time.sleep(1e-4)


def begin_anew(world, ending):
    """Drain, and open again when all have."""
    drain(ending)
    world.Barrier()
    reopen(ending)


def until(wanted):
    """Call a function until what it returns is not None."""
    end = time.monotonic() + LIMIT_S
    while (found := wanted()) is None:
        assert time.monotonic() < end, "nothing came"
        time.sleep(1e-4)
    return found


@pytest.mark.skipif(MPI.COMM_WORLD.size < 3, reason="needs two learners")
def test_each_learner_draws_what_the_others_have_learned_from(world):
    if world.rank == 0:
        memory, keeping = server(world)
        for _ in range(2):  # legs
            come_through(world, lambda: keeping.serve(version=7))
            begin_anew(world, keeping.end())
        assert len(memory) >= B * (world.size - 1)
        drain(keeping.end())
        return
    remote, everyone = learner(world), set(range(1, world.size))
    for leg in range(2):
        remote.keep([rollout_of(world.rank, version=leg)])
        remote.learned(np.array([1.0, 3.0], np.float32))
        seen = set()
        while seen != everyone:
            drawn = until(lambda: remote.draw(version=7))
            rollout = drawn.rollout
            whose, places = np.divmod(rollout.reward, 1000)
            assert (whose == whose[0]).all()
            assert (places // 10 == np.arange(T)[:, None]).all()
            np.testing.assert_array_equal(rollout.log_mu, -rollout.reward)
            np.testing.assert_array_equal(rollout.frames[..., 0], np.broadcast_to(whose[0], (1 + T, COUNT)))
            assert set(rollout.version) <= set(range(leg + 1))
            assert (drawn.weight > 0).all()
            assert remote.kept >= COUNT
            seen |= set(whose[0].astype(int))
            remote.redrawn(drawn, np.where(places[0] == 0, 1.0, 3.0).astype(np.float32), np.ones(COUNT, bool))
        come_through(world)
        begin_anew(world, remote.end())
    drain(remote.end())


@pytest.mark.skipif(MPI.COMM_WORLD.size != 2, reason="looks at the one learner's errors")
@pytest.mark.parametrize("meant", [True, False])
def test_errors_come_back_to_the_rollouts_that_were_drawn(world, meant):
    if world.rank == 0:
        memory, keeping = server(world)
        come_through(world, lambda: keeping.serve(version=1))
        drain(keeping.end())
        errors = memory._priorities.get(np.arange(2 * B)) - CONFIG.epsilon
        np.testing.assert_allclose(errors, world.recv(source=1), rtol=1e-5)
        return
    remote = learner(world)
    for number in range(2):
        remote.keep([rollout_of(number, version=0)])
        remote.learned(np.array([1.0, 2.0], np.float32))
        until(lambda: None if remote._fresh.busy(0) else True)
    drawn = until(lambda: remote.draw(version=1))
    expected = np.array([1.0, 2.0, 1.0, 2.0])
    if meant:
        expected[drawn.keys] = 9.0
    remote.redrawn(drawn, np.full(COUNT, 9.0, np.float32), np.full(COUNT, meant))
    come_through(world)
    drain(remote.end())
    world.send(expected, dest=0)


@pytest.mark.skipif(MPI.COMM_WORLD.size < 2, reason="needs a learner")
def test_what_has_waited_too_long_is_not_learned_from(world):
    if world.rank == 0:
        _, keeping = server(world)
        come_through(world, lambda: keeping.serve(version=0))
        drain(keeping.end())
        return
    remote = learner(world)
    for _ in range(COUNT // B):
        remote.keep([rollout_of(world.rank, version=0)])
        remote.learned(np.ones(B, np.float32))
        until(lambda: None if remote._fresh.busy(0) else True)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert remote.draw(version=MAX_LAG + 1) is None
        time.sleep(1e-3)
    assert remote.kept >= COUNT, "something came, and was looked at"
    come_through(world)
    drain(remote.end())
