"""Averaging over the learners of a group: both backends, several groups at once, and the update built on it."""

import contextlib
import time

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpcddrl.comm.allreduce import Total, averaging
from hpcddrl.comm.circle import Circle
from hpcddrl.config import Adam, Optimization, RMSProp
from hpcddrl.logs.timing import Timing
from hpcddrl.networks.flat import TAIL
from hpcddrl.roles.reducing import AllReduceUpdate, AtOnce, Pipelined
from hpcddrl.roles.updates import LocalUpdate, OptimizerStep
from hpcddrl.types import RunError, Weights

WORLD = MPI.COMM_WORLD
P = 10_001  # no multiple of any vector width
BACKENDS = ["mpi", "horovod"]


@pytest.fixture(scope="module")
def learners():
    """Two groups where there are ranks for two, and one rank that does not learn where there are five."""
    colour = MPI.UNDEFINED if WORLD.size == 5 and WORLD.rank == 4 else WORLD.rank * 2 // max(2, min(WORLD.size, 4))
    comm = WORLD.Split(colour, WORLD.rank)
    yield comm
    if comm != MPI.COMM_NULL:
        comm.Free()


@contextlib.contextmanager
def opened(backend, learners):
    """Make an averaging, on learners alone."""
    if learners == MPI.COMM_NULL:
        yield None
    else:
        made = averaging(backend, Circle(learners))
        yield made
        made.close()
    WORLD.Barrier()


def vector(rank, seed, size=P):
    return np.random.default_rng([seed, rank]).normal(size=size).astype(np.float32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_the_mean_over_the_own_group(backend, learners):
    """Also when the learners come at different times, and on every one of them bit for bit the same."""
    with opened(backend, learners) as mean:
        if mean is None:
            return
        for seed, size in enumerate((1, 2, P, 1_000_000)):
            mine = torch.from_numpy(vector(WORLD.rank, seed, size))
            everyones = learners.allgather(WORLD.rank)
            expected = np.mean([vector(rank, seed, size).astype(np.float64) for rank in everyones], axis=0)
            mean.average(mine)
            np.testing.assert_allclose(mine.numpy(), expected, rtol=0, atol=1e-6)
            assert len(set(learners.allgather(mine.numpy().tobytes()))) == 1


def test_the_backends_agree(learners):
    results = []
    for backend in BACKENDS:
        with opened(backend, learners) as mean:
            mine = torch.from_numpy(vector(WORLD.rank, seed=11))
            if mean is not None:
                mean.average(mine)
            results.append(mine.numpy())
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_names_itself_with_a_version(backend, learners):
    with opened(backend, learners) as mean:
        if mean is not None:
            assert {"mpi": "mpi4py Allreduce (", "horovod": "Horovod 0."}[backend] in mean.name


def optimization(method):
    return Optimization(method=method, learning_rate=1e-2, max_gradient_norm=0.5)


def initial():
    return torch.from_numpy(vector(0, seed=5))


def padded(gradient):
    """Give a gradient its room for what is reduced with it."""
    return torch.from_numpy(np.append(gradient, np.zeros(TAIL, np.float32)))


def shared_update(mean, learners, values, chosen):
    step = OptimizerStep(values, chosen, None, learners.size)
    return AllReduceUpdate(AtOnce(mean), step, chosen, Timing(), leads=learners.rank == 0)


@pytest.mark.parametrize("method", [RMSProp(), Adam()], ids=lambda m: m.kind)
@pytest.mark.parametrize("backend", BACKENDS)
def test_averaging_identical_data_is_the_local_update(backend, method, learners):
    chosen = optimization(method)
    with opened(backend, learners) as mean:
        if mean is None:
            return
        ours, theirs = initial(), initial()
        shared = shared_update(mean, learners, ours, chosen)
        local = LocalUpdate(OptimizerStep(theirs, chosen, None), chosen, Timing())
        a, b = Weights(0, ours), Weights(0, theirs)
        for update in range(20):
            gradient = vector(0, seed=100 + update)
            a, b = shared(a, padded(gradient), 1, 1, 0.0, False), local(b, padded(gradient), 1, 1, 0.0, False)
        assert a.version == b.version == 20
        np.testing.assert_allclose(a.flat, b.flat, rtol=0, atol=1e-6)
        assert shared.metrics["grad_norm"] == pytest.approx(local.metrics["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_pipelined_means_come_one_call_late_whoever_is_late(backend, learners):
    with opened(backend, learners) as mean:
        if mean is None:
            return
        pipeline, size = Pipelined(mean), 1_000_000
        everyones = learners.allgather(WORLD.rank)
        for call in range(4):
            time.sleep(0.02 * ((learners.rank + call) % 2))
            mine = torch.from_numpy(vector(WORLD.rank, call, size))
            assert pipeline(mine) is (call > 0)
            if call:
                before = [vector(rank, call - 1, size).astype(np.float64) for rank in everyones]
                np.testing.assert_allclose(mine.numpy(), np.mean(before, axis=0), rtol=0, atol=1e-6)
                assert len(set(learners.allgather(mine.numpy().tobytes()))) == 1
            for _ in range(10):
                pipeline.advance()
        pipeline.rest()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_late_learner_delays_no_other_where_means_come_one_call_late(backend, learners):
    """Learners take turns in being late by 0.1 s: at once, every call waits for one of them; pipelined, none does."""
    turns = 8
    with opened(backend, learners) as mean:
        if mean is None or learners.size == 1:
            return
        took = {}
        for reduction in (AtOnce(mean), Pipelined(mean)):
            learners.Barrier()
            start = time.perf_counter()
            for call in range(turns):
                if call % learners.size == learners.rank:
                    time.sleep(0.1)
                reduction(torch.from_numpy(vector(WORLD.rank, call)))
                reduction.advance()
            reduction.rest()
            took[type(reduction)] = max(learners.allgather(time.perf_counter() - start))
        assert took[AtOnce] >= 0.1 * turns
        assert took[Pipelined] < 0.9 * took[AtOnce]


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_stay_bit_identical_and_differ_between_groups(backend, learners):
    chosen = optimization(RMSProp())
    with opened(backend, learners) as mean:
        if mean is None:
            return
        flat = initial()
        update = shared_update(mean, learners, flat, chosen)
        weights = Weights(0, flat)
        for n in range(10):
            weights = update(weights, padded(vector(WORLD.rank, seed=n)), 1, 1, 0.0, False)
            assert len(set(learners.allgather(weights.flat.numpy().tobytes()))) == 1
        digest = weights.flat.numpy().tobytes()
    if WORLD.size in (3, 4):  # everybody learns, in two groups
        assert len(set(WORLD.allgather(digest))) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_learner_that_wants_to_stop_stops_its_group_at_the_same_update(backend, learners):
    chosen = optimization(RMSProp())
    with opened(backend, learners) as mean:
        if mean is None:
            return
        update = shared_update(mean, learners, initial(), chosen)
        weights = Weights(0, initial())
        while not weights.last and weights.version < 50:
            stop = weights.version == 7 and learners.rank == learners.size - 1
            weights = update(weights, padded(vector(WORLD.rank, seed=weights.version)), 1, 1, 0.0, stop)
        assert weights.version == 8


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_learner_without_a_finite_gradient_is_an_error_on_all_of_its_group(backend, learners):
    """And nobody's weights are spoilt."""
    chosen = optimization(RMSProp())
    with opened(backend, learners) as mean:
        if mean is None:
            return
        flat = initial()
        update = shared_update(mean, learners, flat, chosen)
        gradient = vector(WORLD.rank, seed=3)
        if learners.rank == learners.size - 1:
            gradient[17] = np.nan
        with pytest.raises(RunError, match="not finite"):
            update(Weights(0, flat), padded(gradient), 1, 1, 0.0, False)
        assert torch.equal(flat, initial())


def test_a_total_is_the_sum_and_the_same_on_every_rank():
    """Also when the ranks come at different times."""
    comm = WORLD.Dup()
    total = Total(comm)
    for i in range(3):
        time.sleep(0.01 * ((comm.rank + i) % 3))
        values = [1 / (3 + rank + i) for rank in range(comm.size)]
        got = total(values[comm.rank])
        assert got == sum(values)
        assert len(set(comm.allgather(got))) == 1
    comm.Free()
