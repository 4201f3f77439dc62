"""Recipes: each function is a framework as one value of `Config`; the docstring is its page."""

from __future__ import annotations

from collections.abc import Callable

from hpcddrl.config import Config
from hpcddrl.recipes.a3c import a3c
from hpcddrl.recipes.dqn import dqn
from hpcddrl.recipes.group_ensemble import group_ensemble
from hpcddrl.recipes.impala import impala
from hpcddrl.recipes.paac import paac

RECIPES: dict[str, Callable[[], Config]] = {r.__name__: r for r in (group_ensemble, impala, a3c, paac, dqn)}
DEFAULT = "group_ensemble"
