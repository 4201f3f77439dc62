"""``python -m hpcddrl`` that also notes every channel its ranks make: ``channels.py NOTES ARGUMENTS…``."""

import json
import sys
from pathlib import Path

from mpi4py import MPI

from hpcddrl.comm import channel

rank, notes = MPI.COMM_WORLD.rank, []


def noting(cls, note):
    make = cls.__init__

    def init(self, *arguments, **named):
        make(self, *arguments, **named)
        note(self)

    cls.__init__ = init


def receiver(made):
    for source, slots in made._posted.items():
        nbytes = slots[0].buffer.nbytes
        notes.append(["received", made._tag.name.lower(), nbytes, source, rank, len(slots)])


def sender(made):
    notes.append(["sent", made._tag.name.lower(), made._layout.nbytes, rank, None, made._limit])


noting(channel.Receiver, receiver)
noting(channel.Sender, sender)
folder, sys.argv = Path(sys.argv[1]), ["hpcddrl", *sys.argv[2:]]
from hpcddrl.__main__ import main  # noqa: E402

try:
    main()
finally:
    (folder / f"{rank}.json").write_text(json.dumps(notes))
