"""The exchange of weights between leaders: the newest arrives, nobody waits, deterministic runs lose nothing."""

import random
import time

import numpy as np
import torch
from mpi4py import MPI

from hpcddrl.comm.channel import Traffic, drain
from hpcddrl.comm.exchange import Exchange
from hpcddrl.comm.wait import wait_until
from hpcddrl.types import Weights

P = 50_000


def weights(rank, version):
    return Weights(version, torch.full((P,), rank * 1000.0 + version))


class Peers:
    COMM = MPI.COMM_NULL

    def exchange(self, comm):
        exchange = Exchange(comm, [r for r in range(comm.size) if r != comm.rank], P, Traffic())
        comm.Barrier()
        return exchange

    def test_what_was_posted_arrives_whole_and_newest_last(self, comm):
        exchange = self.exchange(comm)
        newest = {}

        def use(rank, version, flat):
            assert version > newest.get(rank, 0)
            assert (flat == np.float32(rank * 1000.0 + version)).all()
            newest[rank] = version

        for version in range(1, 6):
            exchange.post(weights(comm.rank, version))
            wanted = dict.fromkeys((r for r in range(comm.size) if r != comm.rank), version)
            wait_until(lambda wanted=wanted: exchange.take(use) or newest == wanted)
            wait_until(lambda: exchange.take(use) or exchange._sender.idle)
            comm.Barrier()  # everybody has everybody's
        assert exchange.skipped == 0
        drain(exchange.end())

    def test_a_peer_that_never_looks_holds_nobody_up(self, comm):
        exchange, silent = self.exchange(comm), comm.size - 1
        seen = dict.fromkeys((r for r in range(comm.size - 1) if r != comm.rank), 0)

        def use(rank, version, flat):
            seen[rank] = version

        if comm.rank != silent or comm.size == 1:
            for version in range(1, 11):
                begin = time.monotonic()
                exchange.post(weights(comm.rank, version))
                assert time.monotonic() - begin < 5.0
                wait_until(lambda version=version: exchange.take(use) or all(v >= version for v in seen.values()))
                wait_until(lambda: exchange.take(use) or not any(exchange._sender.busy(r) for r in seen))
        if comm.size > 1:
            others = comm.Split(comm.rank == silent, comm.rank)
            others.Barrier()  # the lookers are through before the silent one does anything
            others.Free()
        if comm.size > 1 and comm.rank != silent:
            # at most two lie in the silent one's buffers and one is on its way; the rest were passed over
            assert 10 - 3 <= exchange.skipped < 10
        comm.Barrier()
        drain(exchange.end())

    def test_take_all_takes_exactly_one_round(self, comm):
        """However unevenly the peers run: with every round's versions and no later ones."""
        exchange, dice = self.exchange(comm), random.Random(comm.rank)
        for version in range(1, 41):
            taken = {}
            if dice.random() < 0.3:
                time.sleep(dice.random() * 0.01)
            exchange.post(weights(comm.rank, version))
            exchange.take_all(
                lambda rank, version, flat, taken=taken: taken.setdefault(rank, []).append((version, flat[0]))
            )
            assert taken == {
                r: [(version, np.float32(r * 1000.0 + version))] for r in range(comm.size) if r != comm.rank
            }
        assert exchange.skipped == 0
        drain(exchange.end())

    def test_take_all_does_not_wait_for_peers_that_have_ended(self, comm):
        """Rank r posts r + 1 rounds and ends; the others go on without it."""
        exchange, rounds = self.exchange(comm), comm.rank + 1
        for version in range(1, rounds + 1):
            taken = []
            exchange.post(weights(comm.rank, version))
            exchange.take_all(lambda rank, version, flat, taken=taken: taken.append((rank, version)))
            still = [r for r in range(comm.size) if r != comm.rank and r + 1 >= version]
            assert sorted(taken) == [(r, version) for r in still]
        drain(exchange.end())


class TestExchangeOnSelf(Peers):
    COMM = MPI.COMM_SELF


class TestExchangeOnWorld(Peers):
    COMM = MPI.COMM_WORLD
