"""A pretext task beside what is learned from rewards: its gradient on the shared torso, for as long as it helps."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from hpcddrl.config import AtFrames, AtPlateau, WithStage
from hpcddrl.config import Pretext as PretextConfig
from hpcddrl.logs.timing import Phase
from hpcddrl.pretext.pictures import marked, write_png
from hpcddrl.pretext.tasks import Solved, Views
from hpcddrl.rl.ensemble import plateaued
from hpcddrl.roles.control import Control
from hpcddrl.types import Batch, Metrics, Stage, State, Transitions, Weights

SHOWN = 8  # images in a row of the picture
FIRST_PICTURE_S = 10.0  # since the start; from then on whenever that has doubled


class Pretext(Protocol):
    """What a learner's torso learns beside rewards."""

    def learn(self, batch: Batch | Transitions, weights: Weights) -> Metrics:
        """Add to the gradient that has just been made of a batch; ``weights`` are those that it is of."""

    def end(self) -> None:
        """Show what has come of it."""


class NoPretext:
    """Nothing."""

    def learn(self, batch: Batch | Transitions, weights: Weights) -> Metrics:
        """See `Pretext`."""
        return {}

    def end(self) -> None:
        """See `Pretext`."""


class OwnEnd:
    """Tells when a task is at an end of its own, whatever the stage.

    Args:
        ends: how that is told.
    """

    def __init__(self, ends: WithStage | AtPlateau | AtFrames) -> None:
        self._ends = ends
        self._means: list[float] = []
        self._sum, self._updates = 0.0, 0
        self.reason = ""  # to be at it

    def state(self) -> State:
        """See `Stateful`."""
        return {"means": self._means, "sum": self._sum, "updates": self._updates, "reason": self.reason}

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._means, self._sum = list(state["means"]), float(state["sum"])
        self._updates, self.reason = int(state["updates"]), str(state["reason"])

    def see(self, loss: float, frames: float) -> None:
        """Count an update with this loss, of weights that were trained on so many frames."""
        match self._ends:
            case AtFrames(frames=most) if frames >= most:
                self.reason = f"{most:g} frames, as given"
            case AtPlateau(window_updates=window, patience=patience, gain=gain):
                self._sum, self._updates = self._sum + loss, self._updates + 1
                if self._updates == window:
                    self._means.append(self._sum / window)
                    self._sum, self._updates = 0.0, 0
                    if plateaued([-mean for mean in self._means], patience, gain):
                        self.reason = f"its loss stays at {self._means[-1]:.3g} for {patience * window} updates"


class PretextTraining:
    """A task and its own weights, which stay on this rank; what it asks of the torso goes where all gradients go.

    It runs in the early stage until its own end, and begins again where the stage comes again and only the stage had
    ended it.

    Args:
        config: of the task.
        task: a `pretext.tasks.Task` with weights of its own.
        body: the torso's convolutions, whose gradients are views of the learner's.
        gradient: [P] that vector.
        seed: of the choice of observations.
        picture: file that shows what the task makes of some; None: not on this rank.
        control: of this rank.
    """

    def __init__(
        self,
        config: PretextConfig,
        task: nn.Module,
        body: nn.Sequential,
        gradient: Tensor,
        seed: int,
        picture: Path | None,
        control: Control,
    ) -> None:
        self._config, self._task, self._body, self._gradient = config, task, body, gradient
        self._optimizer = torch.optim.Adam(task.parameters(), lr=config.learning_rate)
        self._generator = torch.Generator().manual_seed(seed)
        self._end, self._running = OwnEnd(config.ends), False
        self._picture, self._control = picture, control
        self._solved: Solved | None = None  # last
        self._started, self._next_picture_s = time.monotonic(), FIRST_PICTURE_S

    def state(self) -> State:
        """See `Stateful`."""
        return {
            "task": self._task.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "end": self._end.state(),
        }

    def restore(self, state: State) -> None:
        """See `Stateful`."""
        self._task.load_state_dict(state["task"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it keeps the tensors that it is given
        self._generator.set_state(state["generator"].clone())
        self._end.restore(state["end"])

    def learn(self, batch: Batch | Transitions, weights: Weights) -> Metrics:
        """See `Pretext`."""
        over = self._end.reason or ("" if weights.stage is Stage.EARLY else f"{weights.stage.name.lower()} stage")
        if self._running != (not over):
            self._switch(weights, over)
        if over:
            return {}
        with self._control.timing(Phase.PRETEXT):
            views = drawn(batch, self._config.observations, _ahead(self._config), self._generator)
            if not len(views.action):
                return {}
            solved = self._step(views, alone=weights.frames < self._config.alone_frames)
            loss = float(solved.loss.detach())
            self._end.see(loss, weights.frames)
            self._show_when_due()
        return {"pretext_loss": loss} | {f"pretext_{name}": value for name, value in solved.metrics.items()}

    def end(self) -> None:
        """See `Pretext`."""
        if self._running:
            self._show()

    def _step(self, views: Views, alone: bool) -> Solved:
        """Add the torso's gradient to the others (or put it in their place), and step the task's own weights."""
        if alone:
            self._gradient.zero_()
        self._optimizer.zero_grad()
        solved: Solved = self._task(self._body, views)
        (self._config.weight * solved.loss).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._solved = solved
        return solved

    def _switch(self, weights: Weights, over: str) -> None:
        if self._running:
            self._show()
        self._running = not over
        kind = self._config.task.kind
        self._control.helper(kind, self._running, over or f"{weights.stage.name.lower()} stage", weights.version)

    def _show_when_due(self) -> None:
        if time.monotonic() - self._started >= self._next_picture_s:
            self._next_picture_s *= 2
            self._show()

    def _show(self) -> None:
        """Write what the task made last as an image, a row a kind."""
        if self._picture is None or self._solved is None:
            return
        rows = {name: _visible(images[:SHOWN]).cpu() for name, images in self._solved.pictures.items()}
        if self._solved.points is not None:
            rows["points found"] = marked(rows["frame"], self._solved.points[:SHOWN].cpu())
        self._picture.parent.mkdir(exist_ok=True)
        write_png(self._picture, list(rows.values()), list(rows))


def drawn(batch: Batch | Transitions, count: int, ahead: int, generator: torch.Generator) -> Views:
    """Return some observations of a batch, so many at most, each with its action and the observation after it.

    Args:
        batch: of rollouts, from which no pair is drawn that has a reset in between; or of transitions.
        count: observations.
        ahead: env steps to the observation after, at most a rollout's.
        generator: of the choice.
    """
    if isinstance(batch, Transitions):
        rows = torch.randperm(len(batch.action), generator=generator)[:count]
        return Views(batch.observation[rows], batch.action[rows], batch.next_observation[rows])
    ahead, envs = min(ahead, len(batch.valid)), batch.observation.shape[2]
    whole = batch.valid.unfold(0, ahead, 1).amin(-1) > 0  # [T - ahead + 1, N]
    t, n = whole.nonzero(as_tuple=True)
    rows = torch.randperm(len(t), generator=generator)[:count]
    t, n = t[rows], n[rows]
    rollout, env = n // envs, n % envs
    return Views(batch.observation[rollout, t, env], batch.action[t, n], batch.observation[rollout, t + ahead, env])


def _visible(images: Tensor) -> Tensor:
    """Return images [N, 1 or 3, H, W]; of any other number of channels, the brightest."""
    return images if images.shape[1] in (1, 3) else images.amax(1, keepdim=True)


def _ahead(config: PretextConfig) -> int:
    return config.task.ahead if config.task.kind == "object_proposals" else 1
