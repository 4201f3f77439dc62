"""Print the processor time of ranks that wait while rank 0 computes: waiting.py SECONDS.

Odd ranks wait for a message, even ones for all to arrive. Then the last two ranks make a Horovod world and idle in
it, to show what its background thread takes by itself. Rank 0 prints one line of JSON.
"""

import json
import sys
import time

import numpy as np
from mpi4py import MPI

from hpcddrl.comm.channel import Ending, Receiver, Sender, Tag, Traffic, drain, ignore
from hpcddrl.comm.circle import Circle
from hpcddrl.comm.control_messages import order_layout
from hpcddrl.comm.wait import wait_until

world, seconds = MPI.COMM_WORLD.Dup(), float(sys.argv[1])
traffic = Traffic()
hearing = range(1, world.size, 2)
sender = Sender(world, Tag.ORDER, order_layout(), 1, traffic)
receiver = Receiver(world, [0], Tag.ORDER, order_layout(), 1) if world.rank in hearing else None


def compute():
    """Keep one core busy."""
    begin, data = time.monotonic(), np.random.default_rng(0).normal(size=(64, 64))
    while time.monotonic() - begin < seconds:
        data = np.tanh(data @ data)


world.Barrier()
time.sleep(0.2)
cpu, begin = time.process_time(), time.monotonic()
if world.rank == 0:
    compute()
    sender.say_last(hearing)
if receiver is not None:
    wait_until(lambda: bool(receiver.poll()) or not receiver.open)
arrived = world.Ibarrier()
wait_until(arrived.Test)
used, elapsed = time.process_time() - cpu, time.monotonic() - begin
receivers = ((receiver, ignore),) if receiver is not None else ()
drain(Ending(receivers, (sender,)))

idle = None
pair = world.Split(0 if world.rank >= world.size - 2 else MPI.UNDEFINED, world.rank)
if pair != MPI.COMM_NULL:
    from hpcddrl.comm.allreduce import HorovodAveraging

    mean = HorovodAveraging(Circle(pair))
    cpu = time.process_time()
    time.sleep(seconds)
    idle = (time.process_time() - cpu) / seconds
    arrived = pair.Ibarrier()
    wait_until(arrived.Test)
    mean.close()
arrived = world.Ibarrier()
wait_until(arrived.Test)
shares = world.gather((used / elapsed, idle))
if world.rank == 0:
    waiting = [share for share, _ in shares[1:]]
    horovod = [share for _, share in shares if share is not None]
    print(json.dumps({"computing": shares[0][0], "waiting": waiting, "horovod": horovod}), flush=True)
