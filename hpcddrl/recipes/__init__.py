"""Recipes: each function is a framework as one value of `Config`; the docstring is its page."""

from __future__ import annotations

from collections.abc import Callable

from hpcddrl.config import Config
from hpcddrl.recipes.a3c import a3c
from hpcddrl.recipes.apex import apex
from hpcddrl.recipes.ddql import ddql
from hpcddrl.recipes.dqn import dqn
from hpcddrl.recipes.elf import elf
from hpcddrl.recipes.ensemble_hetero import ensemble_hetero
from hpcddrl.recipes.ga3c import ga3c, ga3c_faithful
from hpcddrl.recipes.gorila import gorila
from hpcddrl.recipes.group_ensemble import group_ensemble
from hpcddrl.recipes.impala import impala
from hpcddrl.recipes.kickstart import kickstart
from hpcddrl.recipes.nnc_apex import nnc_apex
from hpcddrl.recipes.nnc_ga3c import nnc_ga3c
from hpcddrl.recipes.nnc_impala import nnc_impala
from hpcddrl.recipes.paac import paac
from hpcddrl.recipes.ppo import ppo
from hpcddrl.recipes.staged import staged

DEFAULT = "group_ensemble"
RECIPES: dict[str, Callable[[], Config]] = {
    recipe.__name__: recipe
    for recipe in (
        group_ensemble,
        dqn,
        gorila,
        ddql,
        a3c,
        ga3c,
        ga3c_faithful,
        paac,
        elf,
        impala,
        apex,
        ppo,
        kickstart,
        ensemble_hetero,
        nnc_ga3c,
        nnc_impala,
        nnc_apex,
        staged,
    )
}
