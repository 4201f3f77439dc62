"""What a trace is made of: messages that an observer is told of, and clocks that are compared."""

import time
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpcddrl.comm.channel import Ending, Receiver, Sender, Tag, Traffic, drain, ignore
from hpcddrl.comm.clocks import clocks_ahead
from hpcddrl.comm.exchange import Exchange
from hpcddrl.comm.records import Layout
from hpcddrl.comm.tracing import TracedComm
from hpcddrl.comm.wait import wait_until
from hpcddrl.logs.trace import Kind, Recorder
from hpcddrl.types import Tuning, Weights

EACH = 20


class Nothing(NamedTuple):
    last: np.ndarray
    payload: np.ndarray


class Traced:
    COMM = MPI.COMM_NULL

    def test_every_message_is_told_of_once_on_either_side_with_its_number(self, comm):
        recorder = Recorder(10_000)
        traced, ranks, traffic = TracedComm(comm, recorder), list(range(comm.size)), Traffic()
        layout = Layout(Nothing, {"payload": ((3,), np.float64)})
        receiver = Receiver(traced, ranks, Tag.PULL, layout, slots=2)
        sender = Sender(traced, Tag.PULL, layout, 4, traffic)
        sent = received = 0

        def all_there():
            nonlocal sent, received
            slot = sender.take() if sent < EACH else None
            if slot is not None:
                for rank in ranks:
                    sender.send(slot, rank)
                sender.release(slot)
                sent += 1
            for slot in receiver.poll():
                received += not slot.record.last[0]
                receiver.release(slot)
            return received == EACH * comm.size

        wait_until(all_there, longest_s=1e-4)
        sender.say_last(ranks)
        drain(Ending(((receiver, ignore),), (sender,)))
        self.check(comm, recorder, Tag.PULL, ranks, ranks, EACH + 1)
        events = recorder.events()
        assert set(events["nbytes"][events["kind"] == Kind.SENT]) == {layout.nbytes}

    def test_announced_messages_are_told_of_too(self, comm):
        recorder = Recorder(10_000)
        peers = [rank for rank in range(comm.size) if rank != comm.rank]
        exchange = Exchange(TracedComm(comm, recorder), 5, 0, peers, dict.fromkeys(peers, 5), Traffic())
        weights, got = Weights(1, torch.zeros(5)), []
        exchange.post(weights, 0.0, Tuning(), peers)
        exchange.take_from(peers, lambda arrived: got.append(arrived.rank))
        drain(exchange.end())
        assert sorted(got) == peers
        self.check(comm, recorder, Tag.EXCHANGE, peers, peers, 2)

    @staticmethod
    def check(comm, recorder, tag, dests, sources, each):
        events = recorder.events()
        assert set(events["what"]) <= {tag}
        for kind, others in ((Kind.SENT, dests), (Kind.RECEIVED, sources)):
            own = events[events["kind"] == kind]
            for other in others:
                assert own["number"][own["peer"] == other].tolist() == list(range(each))
        assert len(events) == each * (len(dests) + len(sources))
        comm.Barrier()

    def test_clocks_that_are_set_apart_are_found_to_be(self, comm):
        if comm.size == 1:
            assert clocks_ahead(comm, []) == {}
            return
        asked = list(range(1, comm.size, 2))

        def clock():
            return time.perf_counter() + 100.0 * comm.rank

        found = clocks_ahead(comm, asked, clock)
        assert found == ({} if comm.rank else {rank: pytest.approx(100.0 * rank, abs=0.05) for rank in asked})
        comm.Barrier()


class TestAlone(Traced):
    COMM = MPI.COMM_SELF


class TestWorld(Traced):
    COMM = MPI.COMM_WORLD
