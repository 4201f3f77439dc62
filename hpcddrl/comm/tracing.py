"""A communicator that tells of its messages: when each is sent, and when it is found to have come."""

from __future__ import annotations

from typing import Any, Protocol, Self

from mpi4py import MPI

from hpcddrl.comm.placement import Place
from hpcddrl.comm.world import World


class Observer(Protocol):
    """Who is told of a rank's messages."""

    def sent(self, peer: int, tag: int, nbytes: int) -> None:
        """Take note of a message to ``peer`` that is about to be sent."""

    def received(self, peer: int, tag: int) -> None:
        """Take note of a message from ``peer`` that has just been found to be there."""


class TracedComm(MPI.Intracomm):
    """The communicator that it is made of, whose point-to-point messages an observer is told of.

    Only the calls by which `comm.channel` and `comm.exchange` send and receive are observed; collectives are not.
    """

    _observer: Observer

    def __new__(cls, comm: MPI.Comm, observer: Observer) -> Self:
        """Take the communicator's handle; there is no other than this to be freed."""
        traced = super().__new__(cls, comm)
        traced._observer = observer
        return traced

    def Issend(self, buf: Any, dest: int, tag: int = 0) -> MPI.Request:  # noqa: N802 (mpi4py's name)
        """See `MPI.Comm.Issend`; ``buf`` is [array, MPI.BYTE]."""
        self._observer.sent(dest, tag, buf[0].nbytes)
        return super().Issend(buf, dest, tag)

    def Irecv(  # noqa: N802
        self, buf: Any, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG
    ) -> MPI.Request:
        """See `MPI.Comm.Irecv`; source and tag must be said."""
        return TracedRequest(super().Irecv(buf, source, tag), source, tag, self._observer)

    def Improbe(  # noqa: N802
        self, source: int = MPI.ANY_SOURCE, tag: int = MPI.ANY_TAG, status: MPI.Status | None = None
    ) -> MPI.Message | None:
        """See `MPI.Comm.Improbe`."""
        status = MPI.Status() if status is None else status
        message = super().Improbe(source, tag, status)
        if message is None:
            return None
        return TracedMessage(message, status.Get_source(), status.Get_tag(), self._observer)


class TracedWorld(TracedComm, World):
    """All ranks, observed."""

    def __new__(cls, comm: MPI.Intracomm, places: tuple[Place, ...], exact: bool, observer: Observer) -> Self:
        """Take over the communicator's handle."""
        return super().__new__(cls, comm, observer)

    def __init__(self, comm: MPI.Intracomm, places: tuple[Place, ...], exact: bool, observer: Observer) -> None:
        World.__init__(self, comm, places, exact)


class TracedMessage(MPI.Message):
    """An announced message whose arrival an observer is told of."""

    _about: tuple[int, int, Observer]

    def __new__(cls, message: MPI.Message, source: int, tag: int, observer: Observer) -> Self:
        """Take the message's handle."""
        traced = super().__new__(cls, message)
        traced._about = (source, tag, observer)
        return traced

    def Irecv(self, buf: Any) -> MPI.Request:  # noqa: N802
        """See `MPI.Message.Irecv`."""
        return TracedRequest(super().Irecv(buf), *self._about)


class TracedRequest(MPI.Request):
    """A receive that tells an observer when `Test` first finds it complete."""

    _about: tuple[int, int, Observer] | None

    def __new__(cls, request: MPI.Request, source: int, tag: int, observer: Observer) -> Self:
        """Take the request's handle and its buffer."""
        traced = super().__new__(cls, request)
        traced._about = (source, tag, observer)
        return traced

    def Test(self, status: MPI.Status | None = None) -> bool:  # noqa: N802
        """See `MPI.Request.Test`."""
        complete = super().Test(status)
        if complete and self._about is not None:
            source, tag, observer = self._about
            self._about = None
            observer.received(source, tag)
        return complete
