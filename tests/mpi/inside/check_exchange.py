"""The exchange of weights between leaders: the newest arrives, nobody waits, deterministic runs lose nothing."""

import random
import time

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpcddrl.comm.channel import Traffic, drain
from hpcddrl.comm.exchange import CLOSING_BYTES, Exchange
from hpcddrl.comm.messages import exchange_layout
from hpcddrl.comm.partners import neighbours, partners
from hpcddrl.comm.wait import wait_until
from hpcddrl.types import Tuning, Weights


def size_of(rank):
    """Networks differ."""
    return 50_000 + 1_000 * rank


def weights(rank, version):
    return Weights(version, torch.full((size_of(rank),), rank * 1000.0 + version))


def check(arrived, version=None):
    assert arrived.architecture == 77 + arrived.rank
    assert arrived.score == -arrived.version / 2
    assert arrived.tuning == (arrived.version, 0.5)
    assert version in (None, arrived.version)
    assert len(arrived.flat) == size_of(arrived.rank)
    assert (arrived.flat == np.float32(arrived.rank * 1000.0 + arrived.version)).all()


class Peers:
    COMM = MPI.COMM_NULL

    def exchange(self, comm, topology="all_to_all"):
        to, by = neighbours(topology, comm.size, comm.rank) if comm.size > 1 else ((), ())
        traffic = Traffic()
        made = Exchange(comm, size_of(comm.rank), 77 + comm.rank, to, {r: size_of(r) for r in by}, traffic)
        comm.Barrier()
        return made

    def test_what_was_posted_arrives_whole_and_newest_last(self, comm):
        exchange, others = self.exchange(comm), [r for r in range(comm.size) if r != comm.rank]
        newest = {}

        def use(arrived):
            check(arrived)
            assert arrived.version > newest.get(arrived.rank, 0)
            newest[arrived.rank] = arrived.version

        for version in range(1, 6):
            exchange.post(weights(comm.rank, version), -version / 2, Tuning(version, 0.5), others)
            wanted = dict.fromkeys(others, version)
            wait_until(lambda wanted=wanted: exchange.take(use) or newest == wanted)
            wait_until(lambda: exchange.take(use) or exchange._sender.idle)
            comm.Barrier()  # everybody has everybody's
        assert exchange.skipped == 0
        sent = 5 * len(others) * exchange_layout(size_of(comm.rank)).nbytes
        assert exchange.nbytes == sent
        ending = exchange.end()
        assert exchange.nbytes == sent + len(others) * CLOSING_BYTES
        drain(ending)

    def test_only_the_newest_is_kept_of_what_was_looked_at(self, comm):
        exchange, others = self.exchange(comm), [r for r in range(comm.size) if r != comm.rank]
        for version in range(1, 6):
            exchange.post(weights(comm.rank, version), -version / 2, Tuning(version, 0.5), others)
            wait_until(lambda: exchange.look() or exchange._sender.idle)
            all_taken = comm.Ibarrier()
            wait_until(lambda arrived=all_taken: exchange.look() or arrived.Test())
        taken = []
        wait_until(lambda: exchange.look() or all(k and k[-1].record.version[0] == 5 for k in exchange._kept.values()))
        exchange.take(lambda arrived: taken.append(arrived.version) or check(arrived))
        assert taken == [5] * len(others)
        comm.Barrier()
        drain(exchange.end())

    def test_a_peer_that_never_looks_holds_nobody_up(self, comm):
        exchange, silent = self.exchange(comm), comm.size - 1
        others = [r for r in range(comm.size) if r != comm.rank]
        seen = dict.fromkeys((r for r in range(comm.size - 1) if r != comm.rank), 0)

        def use(arrived):
            seen[arrived.rank] = arrived.version

        if comm.rank != silent or comm.size == 1:
            for version in range(1, 11):
                begin = time.monotonic()
                exchange.post(weights(comm.rank, version), -version / 2, Tuning(version, 0.5), others)
                assert time.monotonic() - begin < 5.0
                wait_until(lambda version=version: exchange.take(use) or all(v >= version for v in seen.values()))
                wait_until(lambda: exchange.take(use) or not any(exchange._sender.busy(r) for r in seen))
        if comm.size > 1:
            among = comm.Split(comm.rank == silent, comm.rank)
            among.Barrier()  # the lookers are through before the silent one does anything
            among.Free()
        if comm.size > 1 and comm.rank != silent:
            assert exchange.skipped == 9, "one is on its way to the silent one, the rest were passed over"
        comm.Barrier()
        drain(exchange.end())

    @pytest.mark.parametrize("topology", ["all_to_all", "ring", "random_pairs"])
    def test_take_from_takes_exactly_one_round(self, comm, topology):
        """However unevenly the peers run: with every round's versions and no later ones."""
        exchange, dice = self.exchange(comm, topology), random.Random(comm.rank)
        for version in range(1, 41):
            taken = {}
            if dice.random() < 0.3:
                time.sleep(dice.random() * 0.01)
            to, by = partners(topology, comm.size, comm.rank, version, 0) if comm.size > 1 else ((), ())
            exchange.post(weights(comm.rank, version), -version / 2, Tuning(version, 0.5), to)

            def use(arrived, taken=taken, version=version):
                check(arrived, version)
                taken[arrived.rank] = taken.get(arrived.rank, 0) + 1

            exchange.take_from(by, use)
            assert taken == dict.fromkeys(by, 1)
        assert exchange.skipped == 0
        drain(exchange.end())

    def test_take_from_does_not_wait_for_peers_that_have_ended(self, comm):
        """Rank r posts r + 1 rounds and ends; the others go on without it."""
        exchange, rounds = self.exchange(comm), comm.rank + 1
        others = [r for r in range(comm.size) if r != comm.rank]
        for version in range(1, rounds + 1):
            taken = []
            exchange.post(weights(comm.rank, version), -version / 2, Tuning(version, 0.5), others)
            exchange.take_from(others, lambda arrived, taken=taken: taken.append((arrived.rank, arrived.version)))
            still = [r for r in others if r + 1 >= version]
            assert sorted(taken) == [(r, version) for r in still]
        drain(exchange.end())


class TestExchangeOnSelf(Peers):
    COMM = MPI.COMM_SELF


class TestExchangeOnWorld(Peers):
    COMM = MPI.COMM_WORLD
