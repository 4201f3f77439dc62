"""A Python that has torch and most of the package loaded: from it, a rank starts in a fraction of the time.

Most of what a small job costs is its ranks loading libraries. ``serve`` loads them once and forks whenever it is asked
to; ``run`` stands where mpirun would start Python: it hands over its arguments, environment, processors and standard
streams, and ends as the forked process ends. That one is a fresh rank, in which nothing of MPI or of threads has begun;
but mpirun does not know its process id, so a test that signals or measures ranks has Python itself started.

    python warm.py serve SOCKET
    mpirun -n 4 python warm.py run SOCKET -m hpcddrl list
"""

from __future__ import annotations

import os
import signal
import socket
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
LONGEST = 1 << 20  # bytes of what is handed over
PACKAGES = ("algorithms", "commands", "compressors", "envs", "logs", "networks", "pretext", "replay", "rl")


def serve(path: str) -> None:
    """Fork a rank for everyone who connects, until standard input is closed."""
    import select

    load()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(256)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    print("listening", flush=True)
    while sys.stdin not in (ready := select.select([listener, sys.stdin], [], [])[0]):
        connection, _ = ready[0].accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            keep(connection)
        connection.close()


def load() -> None:
    """Import what ranks import, except MPI, which begins as it is imported."""
    import importlib
    import pkgutil

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as hpcddrl.__main__ does
    import hpcddrl

    for module in pkgutil.walk_packages(hpcddrl.__path__, "hpcddrl."):
        if module.name.split(".")[1] in PACKAGES:
            importlib.import_module(module.name)
    import torch._dynamo  # optimizers import it when one is made

    assert "mpi4py.MPI" not in sys.modules
    del torch


def keep(connection: socket.socket) -> None:
    """Fork the rank, say who it is and how it ended; kill it if whoever asked has gone. Doesn't return."""
    import json
    import select

    request, streams, _, _ = socket.recv_fds(connection, LONGEST, 3)
    rank = os.fork()
    if rank == 0:
        connection.close()
        become(streams, **json.loads(request))
    for stream in streams:
        os.close(stream)
    connection.send(b"%d" % rank)
    ended = os.pidfd_open(rank)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(rank, signal.SIGKILL)
    status = os.waitpid(rank, 0)[1]
    try:
        connection.send(b"%d" % os.waitstatus_to_exitcode(status))
    finally:
        os._exit(0)


def become(
    streams: list[int], arguments: list[str], environment: dict[str, str], folder: str, processors: list[int]
) -> None:
    """Be the Python that was asked for. Doesn't return.

    It leaves when its exit functions have run: to take apart what was inherited would copy most of it, seconds long.
    """
    import atexit
    import runpy

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.sched_setaffinity(0, processors)
    sys.path[0] = folder if arguments[0] == "-m" else os.path.dirname(arguments[0])
    code: int | str | None = 1
    atexit.register(lambda: leave(code))  # the first one in is the last one out
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code
        raise
    sys.exit()


def leave(code: int | str | None) -> None:
    """End at once, as Python ends when it is asked to exit so; MPI too, which mpi4py would do later than this."""
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def run(path: str, *arguments: str) -> None:
    """Have a rank forked, pass signals on to it, and end as it ends."""
    import json

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    asked = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "processors": sorted(os.sched_getaffinity(0)),
    }
    socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
    rank = int(connection.recv(LONGEST))
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(rank, number))
    code = int(connection.recv(LONGEST) or -signal.SIGKILL)
    if code < 0:
        if -code in PASSED_ON:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    {"serve": serve, "run": run}[sys.argv[1]](*sys.argv[2:])
