"""``list`` and ``ranks``: what recipes there are and how many ranks they take."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from hpcddrl.comm.placement import fit, place
from hpcddrl.commands.run import recipe_named
from hpcddrl.recipes import DEFAULT, RECIPES
from hpcddrl.settings import override


@click.command("list")
def list_recipes() -> None:
    """Print the recipes and the parts that each is made of."""
    table = Table()
    for name in ("recipe", "acting", "experience", "update", "coupling", "correction"):
        table.add_column(name, overflow="fold")
    for name, recipe in RECIPES.items():
        config = recipe()
        topology = config.topology
        inline = topology.actors_per_group == 0 or config.acting.kind == "central"
        table.add_row(
            f"{name}{' (default)' if name == DEFAULT else ''}",
            config.acting.kind,
            "inline" if inline else "queue",
            config.update.kind,
            config.coupling.kind,
            getattr(config.algorithm, "correction", "-"),
        )
    Console().print(table)


@click.command()
@click.argument("recipe")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field of the configuration.")
@click.option("--most", default=64, show_default=True, help="Look at up to so many ranks.")
def ranks(recipe: str, settings: tuple[str, ...], most: int) -> None:
    """Print the rank counts that RECIPE can be laid out on, and how."""
    config = override(recipe_named(recipe), list(settings))
    table = Table()
    for name in ("ranks", "servers", "groups", "learners a group", "actors a group"):
        table.add_column(name, justify="right")
    for n in range(1, most + 1):
        try:
            fitted = fit(config.topology, n)
        except ValueError:
            continue
        assert len(place(fitted)) == n
        row = (n, fitted.servers, fitted.groups, fitted.learners_per_group, fitted.actors_per_group)
        table.add_row(*map(str, row))
    Console().print(table)
