"""Passes over a batch in several shares, each on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from hpcddrl.networks.make import AnyNetwork
from hpcddrl.types import Answer, Output


def in_shares(network: AnyNetwork, shares: int) -> Answer:
    """Return what answers as a network does, and learns as it does, a batch in so many shares at the same time.

    Shares are for cores: a GPU has a batch whole.
    """
    on_cores = next(network.parameters()).is_cpu
    return InShares(network, shares) if on_cores and shares > 1 else network


class AnswersInShares:
    """Answers a batch in equal shares, one a thread, without gradient.

    The threads meet once a pass. Those that torch divides an operation over meet after each one, so where other ranks
    keep the processors busy too, all of them wait for the slowest some fifty times a pass: there, two threads of that
    kind were seen to learn from 0.6 times what one did.

    Each share runs on one thread of torch's only if `torch.set_num_threads` says so.

    Args:
        answer: of [N, *observation_shape]; called by several threads at the same time.
        shares: at most; no fewer than 2.
    """

    def __init__(self, answer: Answer, shares: int) -> None:
        self._answer, self._shares = answer, shares
        self._pool = ThreadPoolExecutor(shares, "share")

    def __call__(self, observation: Tensor) -> Output:
        """Return the answer to the whole batch."""
        return _joined(self.each(torch.no_grad()(self._answer), observation.chunk(self._shares)))

    def each(self, call: Callable[..., Any], *arguments: Iterable[Any]) -> list[Any]:
        """Return what a function makes of each share's arguments, when all have been through."""
        return list(self._pool.map(call, *arguments))


class InShares(AnswersInShares):
    """Answers as a network does, and computes the gradient of the whole in the same shares.

    The gradient is the same but for the order in which it is summed, which does not depend on the clock.

    Args:
        network: answers [N, *observation_shape].
        shares: at most; no fewer than 2.
    """

    def __init__(self, network: AnyNetwork, shares: int) -> None:
        super().__init__(network, shares)
        self._network = network

    def __call__(self, observation: Tensor) -> Output:
        """Return the network's answer."""
        if torch.is_grad_enabled():
            return Output(*_Learned.apply(self, observation, *self._network.parameters()))  # type: ignore[no-untyped-call]
        return super().__call__(observation)

    def answers(self, observation: Tensor) -> list[Output]:
        """Return the answers to the shares of some observations, with what their gradients need."""
        return self.each(torch.enable_grad()(self._network), observation.chunk(self._shares))

    def gradients(self, answers: Sequence[Output], wanted: Output) -> list[Tensor]:
        """Return the gradients of all parameters, from the shares' answers and the gradient of the joined ones."""
        parameters = list(self._network.parameters())
        sizes = [len(answer.value) for answer in answers]

        def of_share(answer: Output, *gradients: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(answer, parameters, gradients)

        first, *others = self.each(of_share, answers, *(torch.split(gradient, sizes) for gradient in wanted))
        for other in others:
            torch._foreach_add_(first, other)
        return list(first)


class _Learned(torch.autograd.Function):
    """One step of the graph that holds the graphs of all shares."""

    @staticmethod
    def forward(ctx: Any, shares: InShares, observation: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.shares, ctx.answers = shares, shares.answers(observation)
        return tuple(_joined(ctx.answers))

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.shares.gradients(ctx.answers, Output(*wanted))


def _joined(answers: Sequence[Output]) -> Output:
    return Output(*(torch.cat(column).detach() for column in zip(*answers, strict=True)))
