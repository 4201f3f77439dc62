"""Communicators for checks that run on every rank of a job."""

import pytest
from mpi4py import MPI


@pytest.fixture
def comm(request):
    """A private copy of the class's ``COMM``; afterwards nothing may be left on it, on any rank."""
    comm = request.cls.COMM.Dup()
    comm.Barrier()
    yield comm
    comm.Barrier()
    assert not comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG), "a message that nobody received"
    comm.Free()
