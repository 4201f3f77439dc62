"""Channels: order, credits, the last record, and that draining leaves nothing behind."""

import random
import time
from typing import NamedTuple

import numpy as np
import pytest
from mpi4py import MPI

from hpcddrl.comm.channel import Ending, Receiver, Sender, Tag, Traffic, drain, ignore
from hpcddrl.comm.records import Layout
from hpcddrl.comm.wait import wait_until
from hpcddrl.types import RunError


class Numbered(NamedTuple):
    last: np.ndarray
    number: np.ndarray  # [1] i64
    payload: np.ndarray  # [n] f64: the sender's rank and the number, repeated


def layout(values=10):
    return Layout(Numbered, {"number": ((1,), np.int64), "payload": ((values,), np.float64)})


def fill(slot, rank, number):
    slot.record.number[0] = number
    slot.record.payload[0::2] = rank
    slot.record.payload[1::2] = number


def check(slot, number):
    assert slot.record.number[0] == number
    assert (slot.record.payload[0::2] == slot.source).all()
    assert (slot.record.payload[1::2] == number).all()


class Offering:
    """A rank's records for rank 0, which holds back whom it does not want yet."""

    def __init__(self, comm, slots):
        self.comm, self.sent = comm, 0
        self.receiver = Receiver(comm, range(comm.size) if comm.rank == 0 else [], Tag.ROLLOUT, layout(), slots)
        self.sender = Sender(comm, Tag.ROLLOUT, layout(), 1, Traffic())

    def offer(self, records):
        """Send one more if there is room and there are not so many yet; say whether there are."""
        slot = self.sender.take() if self.sent < records else None
        if slot is not None:
            fill(slot, self.comm.rank, self.sent)
            self.sender.send(slot, 0)
            self.sender.release(slot)
            self.sent += 1
        return self.sent == records

    def arrive(self, count, records):
        """Return so many records on rank 0, which goes on to offer its own."""
        got = []
        wait_until(lambda: self.offer(records) and (got.extend(self.receiver.poll()) or len(got) >= count))
        return got

    def end(self):
        wait_until(lambda: self.sender.idle)
        self.sender.say_last([0])
        drain(Ending(((self.receiver, ignore),), (self.sender,)))


class Everyone:
    """One rank's channel with every rank, itself included."""

    def __init__(self, comm, values=10, send_slots=4, receive_slots=3):
        self.comm, self.traffic = comm, Traffic()
        self.ranks = list(range(comm.size))
        self.receiver = Receiver(comm, self.ranks, Tag.ROLLOUT, layout(values), receive_slots)
        self.sender = Sender(comm, Tag.ROLLOUT, layout(values), send_slots, self.traffic)
        self.sent = dict.fromkeys(self.ranks, 0)
        self.received = dict.fromkeys(self.ranks, 0)

    def send(self, dest):
        slot = self.sender.take()
        if slot is None:
            return
        fill(slot, self.comm.rank, self.sent[dest])
        self.sender.send(slot, dest)
        self.sender.release(slot)
        self.sent[dest] += 1

    def receive(self):
        for slot in self.receiver.poll():
            if not slot.record.last[0]:
                check(slot, self.received[slot.source])
                self.received[slot.source] += 1
            self.receiver.release(slot)

    def end(self):
        self.sender.say_last(self.ranks)
        return Ending(((self.receiver, ignore),), (self.sender,))


class Channel:
    COMM = MPI.COMM_NULL

    def test_records_of_one_source_arrive_once_each_and_in_order(self, comm):
        each, everyone = 200, Everyone(comm)
        dice = random.Random(comm.rank)

        def all_there():
            waiting = [rank for rank in everyone.ranks if everyone.sent[rank] < each]
            if waiting:
                everyone.send(dice.choice(waiting))
            if dice.random() < 0.5:
                everyone.receive()
            return not waiting and all(n == each for n in everyone.received.values())

        wait_until(all_there, longest_s=1e-4)
        assert everyone.traffic.messages[Tag.ROLLOUT] == each * comm.size
        assert everyone.traffic.bytes[Tag.ROLLOUT] == each * comm.size * layout().nbytes
        drain(everyone.end())

    def test_large_records_cross_each_other(self, comm):
        each, everyone = 3, Everyone(comm, values=1_000_000, send_slots=1, receive_slots=1)  # 8 MB

        def all_there():
            waiting = [rank for rank in everyone.ranks if everyone.sent[rank] < each]
            if waiting:
                everyone.send(min(waiting, key=lambda rank: everyone.sent[rank]))
            everyone.receive()
            return not waiting and all(n == each for n in everyone.received.values())

        wait_until(all_there, longest_s=1e-3)
        drain(everyone.end())

    @pytest.mark.parametrize(("send_slots", "receive_slots"), [(1, 1), (2, 3), (4, 1)])
    def test_a_sender_never_runs_ahead_of_its_credits(self, comm, send_slots, receive_slots):
        """While its receiver does not look, it fills the posted buffers and its own slots, and not one more."""
        after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        receiver = Receiver(comm, [before], Tag.ROLLOUT, layout(), receive_slots)
        sender = Sender(comm, Tag.ROLLOUT, layout(), send_slots, Traffic())
        comm.Barrier()
        sent = 0

        def offer():
            nonlocal sent
            if (slot := sender.take()) is not None:
                fill(slot, comm.rank, sent)
                sender.send(slot, after)
                sender.release(slot)
                sent += 1

        wait_until(lambda: offer() or sent == send_slots + receive_slots)
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            offer()
        assert sent == send_slots + receive_slots
        assert not sender.idle
        assert sender.busy(after)
        comm.Barrier()  # only now does anybody look

        number = 0

        def take_one():
            nonlocal number
            for slot in receiver.poll():
                if not slot.record.last[0]:
                    check(slot, number)
                    number += 1
                receiver.release(slot)
            return number == sent

        wait_until(take_one)
        wait_until(lambda: sender.idle)
        assert not sender.busy(after)
        sender.say_last([after])
        drain(Ending(((receiver, ignore),), (sender,)))

    def test_who_is_held_back_waits_until_it_is_admitted(self, comm):
        """Rank 0 lets in one of the waiting at a time, the longest held first, and then all."""
        first, channel = comm.rank == 0, Offering(comm, slots=1)
        receiver = channel.receiver
        if first:
            held = channel.arrive(comm.size, records=2)  # the first of each; their second ones wait
            for slot in held:
                check(slot, 0)
                receiver.hold(slot)
        else:
            wait_until(lambda: channel.offer(2))
        comm.Barrier()
        if first:
            time.sleep(0.1)
            assert receiver.poll() == []
            for expected in [slot.source for slot in held]:
                receiver.admit(0)
                receiver.admit(1)
                receiver.admit(1)  # one is coming
                (slot,) = channel.arrive(1, records=2)
                assert slot.source == expected
                check(slot, 1)
                receiver.hold(slot)
        comm.Barrier()
        if first:
            receiver.admit(0)  # nobody waits, so all may send
        comm.Barrier()
        wait_until(lambda: channel.offer(3))
        channel.end()

    def test_as_many_are_admitted_as_are_wanted_where_each_has_two_buffers(self, comm):
        """One record of each waits, whatever is held back of it: two buffers are for two ranks' records."""
        channel, wanted = Offering(comm, slots=2), min(2, comm.size)
        if comm.rank == 0:
            for slot in channel.arrive(2 * comm.size, records=2):
                channel.receiver.hold(slot)
        else:
            wait_until(lambda: channel.offer(2))
        wait_until(lambda: channel.offer(3))
        comm.Barrier()
        if comm.rank == 0:
            wait_until(lambda: all(channel.receiver.waits(source) for source in range(comm.size)))
            channel.receiver.admit(wanted)
            came = channel.arrive(wanted, records=3)
            assert len({slot.source for slot in came}) == len(came) == wanted
            for slot in came:
                channel.receiver.release(slot)
            channel.receiver.admit()
        channel.end()

    def test_a_taken_slot_is_nobody_elses_until_it_is_released(self, comm):
        sender = Sender(comm, Tag.ROLLOUT, layout(), 2, Traffic())
        one, two = sender.take(), sender.take()
        assert one is not None
        assert two is not None
        assert one is not two
        assert sender.take() is None
        sender.release(one)
        assert sender.take() is one
        sender.release(one)
        sender.release(two)
        assert sender.idle

    def test_a_record_sent_to_many_is_one_slot_until_all_have_taken_it(self, comm):
        ranks = range(comm.size)
        receiver = Receiver(comm, ranks, Tag.WEIGHTS, layout(), slots=1)
        sender = Sender(comm, Tag.WEIGHTS, layout(), 1, Traffic())
        slot = sender.take()
        fill(slot, comm.rank, 7)
        for rank in ranks:
            sender.send(slot, rank)
        assert not slot.free  # held
        sender.release(slot)
        got = []
        wait_until(lambda: got.extend(receiver.poll()) or len(got) == comm.size)
        for arrived in got:
            check(arrived, 7)
            receiver.release(arrived)
        wait_until(lambda: slot.free)
        sender.say_last(ranks)
        drain(Ending(((receiver, ignore),), (sender,)))

    def test_the_last_record_closes_a_source_and_no_earlier_one_does(self, comm):
        everyone = Everyone(comm)
        for rank in everyone.ranks:
            wait_until(lambda rank=rank: everyone.receive() or everyone.send(rank) or everyone.sent[rank] == 1)
        wait_until(lambda: everyone.receive() or all(n == 1 for n in everyone.received.values()))
        assert everyone.receiver.open == set(everyone.ranks)
        comm.Barrier()
        drain(everyone.end())
        assert not everyone.receiver.open
        assert everyone.sender.idle

    def test_draining_hands_over_what_is_late_and_leaves_nothing(self, comm):
        """Twice on one communicator: the second channel would get the first one's leavings."""
        for _ in range(2):
            everyone, late = Everyone(comm, send_slots=comm.size * 2 + 1), []

            def note(record, late=late):
                late.append((int(record.last[0]), int(record.number[0])))

            for rank in everyone.ranks:
                everyone.send(rank)
                everyone.send(rank)
            sender, receiver = everyone.sender, everyone.receiver
            sender.say_last(everyone.ranks)
            drain(Ending(((receiver, note),), (sender,)))
            assert sorted(n for last, n in late if not last) == sorted([0, 1] * comm.size)
            assert sum(last for last, _ in late) == comm.size
            comm.Barrier()
            assert not comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG)
            comm.Barrier()

    def test_a_source_that_never_says_its_last_is_named(self, comm):
        receiver = Receiver(comm, range(comm.size), Tag.ROLLOUT, layout(), slots=1)
        sender = Sender(comm, Tag.ROLLOUT, layout(), 1, Traffic())
        if comm.rank != 0:
            sender.say_last(range(comm.size))
        else:
            with pytest.raises(RunError, match=r"ranks \[0\b.* did not come to their end"):
                drain(Ending(((receiver, ignore),)), patience_s=1.0)
            sender.say_last(range(comm.size))
        drain(Ending(((receiver, ignore),), (sender,)))

    def test_channels_with_other_tags_do_not_mix(self, comm):
        ranks = range(comm.size)
        tags = [Tag.STATUS, Tag.ORDER, Tag.PULL]
        receivers = {tag: Receiver(comm, ranks, tag, layout(), slots=1) for tag in tags}
        senders = {tag: Sender(comm, tag, layout(), comm.size + 1, Traffic()) for tag in tags}
        for tag in reversed(tags):
            slot = senders[tag].take()
            fill(slot, comm.rank, int(tag))
            for rank in ranks:
                senders[tag].send(slot, rank)
            senders[tag].release(slot)
        for tag in tags:
            got = []
            wait_until(lambda tag=tag, got=got: got.extend(receivers[tag].poll()) or len(got) == comm.size)
            for slot in got:
                check(slot, int(tag))
                receivers[tag].release(slot)
        for tag in tags:
            senders[tag].say_last(ranks)
        drain(*(Ending(((receivers[tag], ignore),), (senders[tag],)) for tag in tags))


class TestChannelOnSelf(Channel):
    COMM = MPI.COMM_SELF


class TestChannelOnWorld(Channel):
    COMM = MPI.COMM_WORLD
