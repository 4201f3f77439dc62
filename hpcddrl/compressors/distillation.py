"""Bringing a student's answers closer to its teacher's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from hpcddrl.config.compression import Distillation
from hpcddrl.networks.make import AnyNetwork
from hpcddrl.networks.q_value import QNetwork
from hpcddrl.rl.distillation import student_loss, student_q_loss
from hpcddrl.rl.policies import Categorical, Policy, policy_for
from hpcddrl.types import EnvSpec, Output, State

ADAM_EPSILON = 1e-5  # so that a student at its teacher, whose gradient is rounding, stays there
JUDGED = 128  # states, at most, that a KL before and after following is of
AT_ONCE = 256  # observations in a forward pass without gradient


class Likeness(Protocol):
    """How far one network's answers are from another's."""

    def loss(self, teacher: Output, student: Output) -> Tensor:
        """Return what a student minimises, a mean over the states."""

    def kl(self, teacher: Output, other: Output) -> Tensor:
        """Return KL(teacher ‖ other) of each state in nats, [N]."""

    def agrees(self, teacher: Output, other: Output) -> Tensor:
        """Say of each state whether both would take the same action when greedy, [N] bool."""


class PolicyLikeness:
    """Between networks of a policy and a value.

    Args:
        policy: the family that their outputs parametrise.
        entropy_coefficient: β of −β H(π_S) in the loss.
    """

    def __init__(self, policy: Policy, entropy_coefficient: float) -> None:
        self._policy, self._entropy_coefficient = policy, entropy_coefficient

    def loss(self, teacher: Output, student: Output) -> Tensor:
        """See `Likeness`."""
        return student_loss(
            policy=self._policy, teacher=teacher, student=student, entropy_coefficient=self._entropy_coefficient
        )

    def kl(self, teacher: Output, other: Output) -> Tensor:
        """See `Likeness`."""
        return self._policy.kl(teacher.policy, other.policy)

    def agrees(self, teacher: Output, other: Output) -> Tensor:
        """See `Likeness`; of Gaussian policies: whether no action differs by more than 1 % of its range."""
        one, two = self._policy.greedy(teacher.policy), self._policy.greedy(other.policy)
        return ((one - two).abs() <= 0.02).all(-1) if one.is_floating_point() else one == two


class ValueLikeness:
    """Between networks of action values.

    Their KL is that of softmax(Q / T), so that it has a meaning where there is no policy (Rusu et al. 2015).

    Args:
        temperature: T, in units of Q.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        self._temperature = temperature

    def loss(self, teacher: Output, student: Output) -> Tensor:
        """See `Likeness`."""
        return student_q_loss(teacher=teacher.policy, student=student.policy)

    def kl(self, teacher: Output, other: Output) -> Tensor:
        """See `Likeness`."""
        softmax = Categorical(teacher.policy.shape[-1])
        return softmax.kl(teacher.policy / self._temperature, other.policy / self._temperature)

    def agrees(self, teacher: Output, other: Output) -> Tensor:
        """See `Likeness`."""
        return teacher.policy.argmax(-1) == other.policy.argmax(-1)


def likeness_of(network: AnyNetwork, spec: EnvSpec, entropy_coefficient: float = 0.0) -> Likeness:
    """Return how networks of this kind are compared."""
    if isinstance(network, QNetwork):
        return ValueLikeness()
    return PolicyLikeness(policy_for(spec.action), entropy_coefficient)


def answers(network: Callable[[Tensor], Output], states: Tensor) -> Output:
    """Return the outputs for many states [N, *observation_shape], without gradient."""
    with torch.no_grad():
        parts = [network(part) for part in torch.split(states, AT_ONCE)]
    return Output(torch.cat([p.policy for p in parts]), torch.cat([p.value for p in parts]))


def mean_kl(likeness: Likeness, teacher: Output, other: Output) -> float:
    """Return the mean KL(teacher ‖ other) in nats, no less than 0 for rounding; NaN unless all answers are finite."""
    if not all(bool(answer.isfinite().all()) for answer in (*teacher, *other)):
        return math.nan
    kl = float(likeness.kl(teacher, other).mean())
    return 0.0 if kl <= 0 else kl


class Distiller:
    """Teaches a network by Adam, whose state it keeps from one time to the next.

    Args:
        student: whose parameters are learned.
        config: how.
        likeness: what is minimised.
        seed: of the draws of minibatches.
    """

    def __init__(self, student: AnyNetwork, config: Distillation, likeness: Likeness, seed: int) -> None:
        self._student, self._config, self._likeness = student, config, likeness
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.Adam(student.parameters(), lr=config.learning_rate, eps=ADAM_EPSILON)

    def follow(self, teacher: AnyNetwork, states: Tensor, constrain: Callable[[], None] = lambda: None) -> int:
        """Take the configured number of steps on minibatches of states [N, *observation_shape]; return that number.

        Args:
            teacher: whose answers are learned.
            states: where.
            constrain: called after each step, to restore what the parameters must keep.

        Raises:
            ValueError: there are no states.
        """
        if not len(states):
            raise ValueError("a student learns from observations, and there are none; collect a batch before")
        c = self._config
        rows = torch.randint(len(states), (c.steps, min(c.batch_size, len(states))), generator=self._generator)
        asked, among = torch.unique(rows, return_inverse=True)  # so that the teacher answers none twice
        wanted = answers(teacher, states[asked])
        for drawn, known in zip(rows, among, strict=True):
            with torch.enable_grad():
                student: Output = self._student(states[drawn])
                loss = self._likeness.loss(Output(wanted.policy[known], wanted.value[known]), student)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            constrain()
        return c.steps

    def kl(self, teacher: AnyNetwork, states: Tensor) -> float:
        """Return the mean KL(teacher ‖ student) over states [N, *observation_shape]; see `mean_kl`."""
        return mean_kl(self._likeness, answers(teacher, states), answers(self._student, states))

    def of_another(self, student: AnyNetwork) -> Distiller:
        """Return what teaches another network in the same way, on draws of its own."""
        seed = int(torch.randint(2**31, (), generator=self._generator))
        return Distiller(student, self._config, self._likeness, seed)

    def state(self) -> State:
        """See `Stateful`: the student too."""
        moments = self._optimizer.state_dict()["state"]
        return {"student": self._student.state_dict(), "moments": moments, "generator": self._generator.get_state()}

    def restore(self, state: State) -> None:
        """See `Stateful`; the learning rate is that of the configuration."""
        self._student.load_state_dict(state["student"])
        moments = copy.deepcopy(state["moments"])  # the optimizer keeps the tensors that it is given
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": moments})
        self._generator.set_state(state["generator"])
