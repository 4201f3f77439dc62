"""Which runs of a comparison are seeds of the same setting, and what else differs between them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hpcddrl.logs.read import Runs

REPEATS = ("seed", "budget.", "logging.", "evaluation.", "schema", "env.id")  # differing in these alone: another seed
ABSENT = "–"
NAMED = 3  # differing fields in a label, at most


def flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration's fields by their dotted names, values as JSON writes them."""
    fields: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            fields |= {f"{name}.{inner}": text for inner, text in flat(value).items()}
        else:
            fields[name] = value if isinstance(value, str) else json.dumps(value)
    return fields


def differences(configs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the fields whose values differ between runs: a row a field, a column a run (`ABSENT`: it has none)."""
    table = pd.DataFrame({run: flat(config) for run, config in configs.items()}).fillna(ABSENT)
    return table[table.nunique(axis=1) > 1].sort_index()


def settings(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the setting of each run: its recipe, and where one recipe has several, the fields in which they differ.

    Environments are told apart too, but by the tables' column of games.
    """
    own = {run: {k: v for k, v in flat(config).items() if not k.startswith(REPEATS)} for run, config in configs.items()}
    recipes: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for fields in own.values():
        if fields not in recipes[fields["recipe"]]:
            recipes[fields["recipe"]].append(fields)
    return {run: _label(fields, recipes[fields["recipe"]]) for run, fields in own.items()}


def labelled(runs: Runs) -> Runs:
    """Return runs with a column ``setting`` in every table, and in that of the runs."""
    labels = settings(runs.configs)
    tables = {name: table.assign(setting=table["run"].map(labels)) for name, table in runs.tables.items()}
    return runs._replace(tables=tables, runs=runs.runs.assign(setting=runs.runs["run"].map(labels)))


def _label(fields: Mapping[str, str], alike: list[dict[str, str]]) -> str:
    """Write a setting shortly; with too many differences, number it."""
    differ = sorted(name for name in {n for other in alike for n in other} if _tells(name, alike))
    if not differ:
        return fields["recipe"]
    if len(differ) > NAMED:
        return f"{fields['recipe']} ({alike.index(dict(fields)) + 1})"
    shown = [f"{name.removesuffix('.kind')} = {fields.get(name, ABSENT)}" for name in differ if _has(fields, name)]
    return ", ".join([fields["recipe"], *shown])


def _tells(name: str, alike: list[dict[str, str]]) -> bool:
    """Say whether a field tells settings apart, and does not only come with an answer that does so already."""
    found = {other.get(name) for other in alike}
    return len(found) > 1 and not (len(found) == 2 and None in found and _by_kind(name, alike))


def _by_kind(name: str, alike: list[dict[str, str]]) -> bool:
    """Say whether settings differ in the kind of an axis that a field belongs to, so that some may lack the field."""
    parts = name.split(".")
    axes = [".".join(parts[:count]) for count in range(1, len(parts))]
    return any(len({other.get(f"{axis}.kind") for other in alike}) > 1 for axis in axes if f"{axis}.kind" != name)


def _has(fields: Mapping[str, str], name: str) -> bool:
    """Say whether a setting has a field, or lacks it where its axis should have it."""
    axis = name.rpartition(".")[0]
    return name in fields or f"{axis}.kind" not in fields
