"""``list`` and ``ranks``: what recipes there are and how many ranks they take."""

from __future__ import annotations

from collections.abc import Callable

import click

from hpcddrl.comm.placement import fit
from hpcddrl.commands.run import recipe_named
from hpcddrl.commands.tables import console, count, layout, table
from hpcddrl.config import (
    ActorCritic,
    Averaging,
    CentralActing,
    ClippedSurrogate,
    Config,
    Ensemble,
    LateEnsemble,
    LocalActing,
    Population,
    QLearning,
    Replay,
    Topology,
    Uncompressed,
    Uniform,
)
from hpcddrl.recipes import DEFAULT, RECIPES
from hpcddrl.settings import group_config, override


@click.command("list")
def list_recipes() -> None:
    """Print the recipes, and what each answers to the questions that a framework is made of.

    Each answer is a field of the configuration (run RECIPE --show-config prints them all), so each can be changed:
    --set update=server. What depends on the number of ranks is shown as "inline or queue": with no rank left for
    actors, the learner steps environments itself.
    """
    columns = ("recipe", "acting", "experience", "update", "coupling", "algorithm", "correction")
    shown = table("", dict.fromkeys(columns, "left"))
    for name, recipe in RECIPES.items():
        config = recipe()
        shown.add_row(
            f"{name}{' (default)' if name == DEFAULT else ''}",
            _acting(config) + _by(config),
            _experience(config),
            _update(config),
            _coupling(config),
            _of_all_groups(config, _algorithm),
            _of_all_groups(config, _correction),
        )
    for column in shown.columns:  # fold cells, and between words only
        words = [word for cell in [column.header, *column.cells] for word in str(cell).split()]
        column.width = max(map(len, words))
    console().print(shown)


def _of_all_groups(config: Config, say: Callable[[Config], str]) -> str:
    """Say something of every kind of group that a configuration has, the same only once."""
    kinds = [group_config(config, group) for group in range(max(1, len(config.group_settings)))]
    return " / ".join(dict.fromkeys(map(say, kinds)))


def _correction(config: Config) -> str:
    return config.algorithm.correction if isinstance(config.algorithm, ActorCritic) else "-"


def _acting(config: Config) -> str:
    match config.acting:
        case LocalActing():
            return "local"
        case CentralActing(minimum="all"):
            return "central: lockstep"
        case CentralActing(minimum=1):
            return "central: when ready"
        case CentralActing(minimum=minimum):
            return f"central: min {minimum}"


def _by(config: Config) -> str:
    """Say what acts where it is not the learner's own network."""
    return "" if isinstance(config.compression, Uncompressed) else f", {config.compression.kind}"


def _experience(config: Config) -> str:
    topology = config.topology
    if isinstance(config.experience, Replay):
        where = "central" if topology.replays_per_group else "local"
        how = "" if isinstance(config.experience.priorities, Uniform) else ", prioritised"
        return f"{where} replay{how}"
    if topology.actors_per_group == 0 or isinstance(config.acting, CentralActing):
        return "inline"
    perhaps_none = topology.actors_per_group is None and topology.groups is not None
    return "inline or queue" if perhaps_none else "queue"


def _update(config: Config) -> str:
    servers = config.topology.servers
    return config.update.kind + (f", K={servers}" if servers else "")


def _coupling(config: Config) -> str:
    late = config.stages.late
    if isinstance(late, LateEnsemble):
        return f"late: ensemble, every {late.ensemble.exchange_every}"
    match config.coupling:
        case Ensemble(exchange_every=every):
            return f"ensemble, every {every}"
        case (Averaging() | Population()) as rival:
            return f"{rival.kind}, every {rival.exchange_every}"
        case coupling:
            return "-" if coupling.kind == "uncoupled" else coupling.kind


def _algorithm(config: Config) -> str:
    match config.algorithm:
        case QLearning(double=double, dueling=dueling, n_step=n):
            marks = [("double", double), ("dueling", dueling), (f"{n}-step", n > 1)]
            return ", ".join(["q_learning", *(mark for mark, on in marks if on)])
        case ActorCritic(surrogate=ClippedSurrogate()):
            return "actor_critic, clipped"
        case algorithm:
            return algorithm.kind


@click.command()
@click.argument("recipe")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field of the configuration.")
@click.option("--most", default=64, show_default=True, type=click.IntRange(min=1), help="Look at up to so many ranks.")
@click.option("--check", type=click.IntRange(min=1), help="Say instead how so many ranks are laid out; exit 2 if not.")
def ranks(recipe: str, settings: tuple[str, ...], most: int, check: int | None) -> None:
    """Print the rank counts that RECIPE can be laid out on, the smallest first, and how.

    \b
    python -m hpcddrl ranks impala
    python -m hpcddrl ranks impala --set topology.learners_per_group=2 --most 8
    python -m hpcddrl ranks group_ensemble --check "$SLURM_NTASKS" || exit     in a job script, before the job starts
    """  # noqa: D301 (click wants the character itself)
    config = override(recipe_named(recipe), list(settings))
    if check is not None:
        from hpcddrl.runtime.checks import fitted

        console().print(f"{config.recipe} on {count(check, 'rank')}: {layout(fitted(config, check).topology)}")
        return
    layouts = {n: found for n in range(1, most + 1) if (found := _fitted(config.topology, n)) is not None}
    if not layouts:
        raise ValueError(f"{config.recipe}: no count up to {most} can be laid out; look further with --most {4 * most}")
    least = min(layouts)
    console().print(f"{config.recipe}: at least {count(least, 'rank')} ({layout(layouts[least])}); up to {most}:")
    replays = bool(config.topology.replays_per_group)
    names = ["ranks", "servers", "groups", "learners a group", "actors a group", *["replays a group"] * replays]
    shown = table("", dict.fromkeys(names, "right"))
    for n, t in layouts.items():
        row = [n, t.servers, t.groups, t.learners_per_group, t.actors_per_group, *[t.replays_per_group] * replays]
        shown.add_row(*map(str, row))
    console().print(shown)


def _fitted(topology: Topology, ranks: int) -> Topology | None:
    try:
        return fit(topology, ranks)
    except ValueError:
        return None
