"""Networks of their own that learn a teacher's answers, and the teacher itself."""

from __future__ import annotations

from torch import Tensor

from hpcddrl.compressors.distillation import Distiller
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import State


class Whole:
    """The teacher itself.

    Args:
        network: as large; only until there is a teacher.
    """

    def __init__(self, network: AnyNetwork) -> None:
        self.network = network

    def follow(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Shape`."""
        self.network = teacher
        return 0

    def state(self) -> State:
        """See `Shape`: there is nothing but the teacher."""
        return {}

    def restore(self, state: State) -> None:
        """See `Shape`."""


class Student:
    """A network with weights of its own.

    Args:
        network: to be distilled.
        distiller: of it.
    """

    def __init__(self, network: AnyNetwork, distiller: Distiller) -> None:
        self.network, self._distiller = network, distiller

    def follow(self, teacher: AnyNetwork, states: Tensor) -> int:
        """See `Shape`."""
        return self._distiller.follow(teacher, states)

    def state(self) -> State:
        """See `Shape`."""
        return self._distiller.state()

    def restore(self, state: State) -> None:
        """See `Shape`."""
        self._distiller.restore(state)
