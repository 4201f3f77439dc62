"""The late stage of learners that share a server's weights: each goes on with its own, and tells the server of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpcddrl.comm.channel import Ending
from hpcddrl.config import LateEnsemble
from hpcddrl.roles.control import Control
from hpcddrl.roles.late import OneModel, Spell
from hpcddrl.roles.shards import ServerUpdate
from hpcddrl.roles.updates import LocalUpdate, OptimizerStep
from hpcddrl.types import Metrics, Stage, State, Tuning, Weights

HELPER = "late_ensemble"


@dataclass(frozen=True, kw_only=True)
class Alone:
    """What a learner goes on alone with."""

    step: OptimizerStep
    local: LocalUpdate
    one: OneModel
    leads: Callable[[], bool]  # it makes the one model and hands it over; one of those who are there does
    tuning: Tuning
    entropy: float  # factor on its entropy coefficient meanwhile
    workers: int


class Apart:
    """Gradients go to the server until the late stage; in it, to an optimizer of this learner's own.

    Each round of `LateEnsemble` ends with a word to the server: the frames that were played, from the learner that
    leads the one model too, and an answer that says whether the stage and the run go on. The server lets the stage end
    when the one who leads speaks, so that all go on from the newest one model (or from where they parted, if the stage
    ends before there is one).

    Args:
        config: of the rounds.
        server: how gradients become weights together.
        alone: what each goes on with apart.
        spell: written here.
        control: of this rank.
    """

    def __init__(
        self, config: LateEnsemble, server: ServerUpdate, alone: Alone, spell: Spell, control: Control
    ) -> None:
        self._config, self._server, self._alone, self._spell, self._control = config, server, alone, spell, control
        self._untold = 0.0  # frames that the server does not know of

    @property
    def metrics(self) -> Metrics:
        """See `Update`."""
        return self._server.metrics if self._spell.updates is None else self._alone.local.metrics

    @property
    def refused(self) -> bool:
        """See `Update`: nobody refuses what is applied here."""
        return self._spell.updates is None and self._server.refused

    def state(self) -> State:
        """See `Stateful`."""
        spell = {"number": self._spell.number, "updates": self._spell.updates, "since": self._spell.since}
        if self._spell.updates is None:
            return {"spell": spell}
        return {"spell": spell, "step": self._alone.step.state(), "one": self._alone.one.state()}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        spell, saved = self._spell, state["spell"]
        spell.number, spell.updates, spell.since = saved["number"], saved["updates"], saved["since"]
        if self._spell.updates is not None:
            self._alone.step.restore(state["step"])
            self._alone.one.restore(state["one"])
            self._alone.tuning.entropy = self._alone.entropy

    def first(self, weights: Weights) -> Weights:
        """See `Update`: those of the server, or this learner's own where the late stage goes on."""
        return self._together_or_not(weights, self._server.first)

    def __call__(
        self, weights: Weights, gradient: Tensor, frames: int, samples: int, loss: float, stop: bool
    ) -> Weights:
        """See `Update`. The server decides about the end."""
        spell, alone = self._spell, self._alone
        if spell.updates is None:
            weights = self._server(weights, gradient, frames, samples, loss, stop)
            if weights.stage is Stage.LATE and not weights.last:
                self._part(weights)
            return weights
        self._untold += frames
        weights = alone.local(weights, gradient, frames * alone.workers, samples, loss, stop=False)  # others play too
        spell.updates += 1
        told = stop or self._config.hands_over(spell.updates)
        return self._together_or_not(weights, self._tell) if told else weights

    def optimizer_state(self) -> None:
        """See `Update`: what the server holds is what is saved."""

    def end(self) -> Ending:
        """See `Update`."""
        return self._server.end()

    def close(self) -> None:
        """See `Update`."""
        self._server.close()

    def _tell(self, weights: Weights) -> Weights:
        frames, self._untold = self._untold, 0.0
        alone = self._alone
        successor = alone.one.values if alone.one.learned and alone.leads() else None
        return self._server.report(weights, frames, successor)

    def _together_or_not(self, weights: Weights, ask: Callable[[Weights], Weights]) -> Weights:
        """Ask the server, whose answer takes the place of the weights; take back one's own while the stage goes on."""
        own = weights.flat.clone()
        answer, spell = ask(weights), self._spell
        late = answer.stage is Stage.LATE
        if spell.updates is not None and late and answer.since == spell.since:
            with torch.no_grad():
                answer.flat.copy_(own)
            return answer._replace(version=weights.version)
        if spell.updates is not None:
            self._join(answer)
        if late and not answer.last:
            self._part(answer)
        return answer

    def _part(self, weights: Weights) -> None:
        """Begin with the server's weights and an optimizer that knows nothing yet."""
        alone, spell = self._alone, self._spell
        spell.number, spell.updates, spell.since, self._untold = spell.number + 1, 0, weights.since, 0.0
        alone.step.restart()
        alone.step.frames = weights.frames
        alone.one.begin(weights)
        alone.tuning.entropy = alone.entropy
        self._control.helper(HELPER, True, "late stage: on with weights and optimizer of its own", weights.version)

    def _join(self, weights: Weights) -> None:
        """Go on from the server's weights again."""
        self._spell.updates, self._alone.tuning.entropy = None, 1.0
        reason = f"{weights.stage.name.lower()} stage: on with the server's weights"
        self._control.helper(HELPER, False, reason, weights.version)
