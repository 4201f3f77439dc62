"""Configurations from and to data, and from the command line, with complaints in one line.

On the command line ``--set coupling=ensemble --set coupling.beta=0.1`` replaces an answer and then one of its fields,
and ``--set group_settings.1.network.width=0.5`` has every second group differ from the others.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hpcddrl.config import SCHEMA, UNFINISHED, Config

_adapter: TypeAdapter[Config] = TypeAdapter(Config)
_OF_A_GROUP = re.compile(r"group_settings\.(\d+)\.(.+)")
MAY_DIFFER = ("acting", "algorithm", "compression", "experience", "network", "optimization", "precision", "seed")
"""Between groups; all else is of the whole job."""


def dump(config: Config) -> dict[str, Any]:
    """Return the configuration as JSON-able data; `load` is the inverse."""
    data: dict[str, Any] = _adapter.dump_python(config, mode="json")
    return data


def load(data: Any) -> Config:
    """Build a configuration from `dump`'s data.

    Raises:
        ValueError: in one line, with the field, its value and the rule.
    """
    config = _validated(data, None)
    for number in range(len(config.group_settings)):
        group_config(config, number)
    return config


def group_config(config: Config, group: int) -> Config:
    """Return the configuration of one group: the run's, with what that group differs in.

    Raises:
        ValueError: its settings are not valid, or of something that groups share.
    """
    if not config.group_settings:
        return config
    number = group % len(config.group_settings)
    own = list(config.group_settings[number])
    shared = [setting for setting in own if re.split(r"[.=]", setting, maxsplit=1)[0].strip() not in MAY_DIFFER]
    if shared:
        raise ValueError(
            f"group_settings.{number} = {shared[0]!r}: groups cannot differ in that, only in {', '.join(MAY_DIFFER)}"
        )
    try:
        return override(replace(config, group_settings=()), own)
    except ValueError as error:
        raise ValueError(f"group_settings.{number}: {error}") from None


def _validated(data: Any, context: str | None) -> Config:
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ValueError(f"schema = {schema}: newer than this program's {SCHEMA}; update hpcddrl")
    try:
        return _adapter.validate_python(data, context=context)
    except ValidationError as error:
        raise ValueError(_one_line(error, data)) from None


def override(config: Config, settings: list[str]) -> Config:
    """Return the configuration with each ``dotted.field=value`` applied, in order; the axes must agree at the end.

    Values are JSON where they parse as such, else text. Giving a name to an axis with several answers
    (``coupling=ensemble``) takes that answer with its defaults.

    Raises:
        ValueError: an unknown field (with the nearest valid ones) or a value that breaks a rule.
    """
    data = dump(config)
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"--set {setting}: not of the form field=value, for example env.num_envs=8")
        of_a_group = _OF_A_GROUP.fullmatch(path.strip())
        if of_a_group:
            _extend(data["group_settings"], int(of_a_group[1]), f"{of_a_group[2]}={text.strip()}")
        else:
            _assign(data, path.strip(), text.strip())
        data = dump(_validated(data, UNFINISHED))  # an axis that was named has its fields now
    return load(data)


def _assign(data: dict[str, Any], path: str, text: str) -> None:
    *parents, name = path.split(".")
    node = data
    for depth, parent in enumerate(parents):
        _check_field(node, parent, ".".join(parents[:depth]))
        node = node[parent]
        if not isinstance(node, dict):
            raise ValueError(f"--set {path}: {'.'.join(parents[: depth + 1])} is a single value and has no fields")
    if path != f"env.options.{name}":  # the environment's own arguments are its business
        _check_field(node, name, ".".join(parents))
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = {"true": True, "false": False}.get(text.lower(), text)
    has_kinds = isinstance(node.get(name), dict) and "kind" in node[name]
    if text.lower() == "none" and not has_kinds and not isinstance(node.get(name), str):
        value = None  # elsewhere it is one of the answers, as in algorithm.correction=none
    node[name] = {"kind": value} if has_kinds and not isinstance(value, dict) else value


def _extend(groups: list[list[str]], number: int, setting: str) -> None:
    """Add a setting to those of one group."""
    groups += [[] for _ in range(number + 1 - len(groups))]
    groups[number] = [*groups[number], setting]


def _check_field(node: dict[str, Any], name: str, where: str) -> None:
    if name not in node:
        near = difflib.get_close_matches(name, node, n=3, cutoff=0.4) or sorted(node)
        prefix = f"{where}." if where else ""
        nearest = ", ".join(prefix + n for n in near) or "none"
        raise ValueError(f"--set {prefix}{name}: no such option; nearest: {nearest}")


def _one_line(error: ValidationError, data: Any) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    names = _names(first["loc"], data)
    if first["type"] == "missing" and names[-1] != first["loc"][-1]:
        names.append(str(first["loc"][-1]))
    field = ".".join(names) or "config"
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        return f"{field} = {context['tag']!r}: must be {context['expected_tags'].replace(', ', ' or ')}"
    value = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
    return f"{field}{value}: {first['msg'].replace('Input should be', 'must be')}"


def _names(location: tuple[int | str, ...], node: Any) -> list[str]:
    """Return the fields on the way to an error, without the names of the union's members between them."""
    names = []
    for part in location:
        if isinstance(node, dict) and part in node:
            names.append(str(part))
            node = node[part]
    return names or [str(part) for part in location[-1:]]
