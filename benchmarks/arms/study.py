"""What a study is: arms that are compared on games over seeds, and the runs that this takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.rows import Row

SEEDS = (1, 2, 3, 4, 5)


class Arm(NamedTuple):
    """One of the things that are compared."""

    name: str
    recipe: str
    ranks: int
    settings: tuple[str, ...] = ()  # as of --set
    against: str = ""  # the arm that it is compared with; none: nothing


class Game(NamedTuple):
    """What all arms play, and for how long."""

    name: str
    env: str
    seconds: float  # at most, where the settings have a budget.frames
    targets: tuple[float, ...]  # returns; how long it takes to reach them is told
    scale: tuple[float, float]  # returns of random play and of good play: games are put together as shares of this
    seeds: tuple[int, ...] = SEEDS
    settings: tuple[str, ...] = ()  # of all arms
    arms: tuple[str, ...] = ()  # by name; none: all of them
    episodes: int = 30  # by which networks are scored after a run
    needs: str = ""  # a package of the extra `bench`


class Play(NamedTuple):
    """A command that plays networks of a run after it."""

    name: str  # of its log
    arguments: tuple[str, ...]  # of `python -m hpcddrl`, but for RUN and the number of games
    owner: str = ""  # of the one network that counts, whose score has the command's name; none: each has its own

    def command(self, run: Path, game: Game) -> list[str]:
        """Return its command line."""
        return [sys.executable, "-m", "hpcddrl", *self.arguments, str(run), "--episodes", str(game.episodes)]


class Scoring(NamedTuple):
    """Which networks are scored after a run, and how that is told."""

    text: str = "Scores are of greedy games after the run, as\n`python -m hpcddrl export` plays them."  # in the legend
    plays: tuple[Play, ...] = ()  # one after the other
    table: Callable[..., list[str]] = lambda study, section: []  # to lines of Markdown


class Study(NamedTuple):
    """A question, the arms that answer it, and the games they do it on."""

    name: str  # of its files
    title: str
    text: str
    arms: tuple[Arm, ...]
    games: tuple[Game, ...]
    helpers: tuple[str, ...]  # phases whose seconds an arm costs
    scoring: Scoring = Scoring()
    tables: tuple[Callable[..., list[str]], ...] = ()  # of its own: from (study, section) to lines of Markdown
    appendix: Callable[[Path], list[str]] = lambda folder: []  # what else the page says, from the tables' folder

    def against(self, arm: Arm) -> Arm | None:
        """Return the arm that another is compared with, None if it is compared with none."""
        return next((other for other in self.arms if other.name == arm.against), None)

    @property
    def compared(self) -> list[tuple[Arm, Arm]]:
        """Return the arms that are compared, each with what it is compared with."""
        return [(arm, other) for arm in self.arms if (other := self.against(arm)) is not None]


class Circumstances(NamedTuple):
    """What a run's numbers depend on beside its configuration."""

    machine: str
    side_by_side: str  # runs at the same time, each on its share of the processors


class Run(NamedTuple):
    """One arm on one game with one seed."""

    arm: Arm
    game: Game
    seed: int

    @property
    def name(self) -> str:
        """Return what it is called in a line."""
        return f"{self.arm.name} on {self.game.name} seed {self.seed}"

    @property
    def settings(self) -> tuple[str, ...]:
        """Return its settings, an arm's own after the game's."""
        return (*self.game.settings, *self.arm.settings)

    def command(self, out: Path) -> list[str]:
        """Return its command line."""
        line = ["mpirun", "-n", str(self.arm.ranks), sys.executable, "-m", "hpcddrl", "run", self.arm.recipe]
        line += ["--env", self.game.env, "--seconds", f"{self.game.seconds:g}", "--seed", str(self.seed)]
        return [*line, "--out", str(out), *(part for setting in self.settings for part in ("--set", setting))]

    def key(self, around: Circumstances, code: str) -> Row:
        """Return what tells its row from others."""
        named = {"arm": self.arm.name, "game": self.game.name, "seed": str(self.seed)}
        what = {"recipe": self.arm.recipe, "ranks": str(self.arm.ranks), "env": self.game.env}
        how = {"settings": " ".join(self.settings), "seconds": f"{self.game.seconds:g}"}
        return {**named, **what, **how, **around._asdict(), "code": code}


def runs_of(study: Study, games: Iterable[Game], arms: Sequence[str]) -> list[Run]:
    """Return the runs of some arms on some games: all arms in turn, so that they meet the machine in like states."""
    wanted = [
        Run(arm, game, seed)
        for game in games
        for seed in game.seeds
        for arm in study.arms
        if arm.name in arms and arm.name in (game.arms or arms)
    ]
    return sorted(wanted, key=lambda run: run.game.seeds.index(run.seed))  # games in turn too


def waves_of(runs: Sequence[Run], size: int) -> list[list[Run]]:
    """Return the runs in order, at most ``size`` together, and only such as take the same time."""
    waves: list[list[Run]] = []
    for run in runs:
        if not waves or len(waves[-1]) == size or waves[-1][0].game != run.game:
            waves.append([])
        waves[-1].append(run)
    return waves


def shares_of(cores: Sequence[int], count: int) -> list[list[int]]:
    """Deal processors to so many runs, the same number each.

    Raises:
        ValueError: there are too few.
    """
    each = len(cores) // count
    if not each:
        raise ValueError(f"--side-by-side {count}: there are {len(cores)} processors; take so many at most")
    return [list(cores[i * each : (i + 1) * each]) for i in range(count)]
