"""Pages made from docstrings, schemas, help texts and measured rows, so that none of it is said twice."""

from __future__ import annotations

import ast
import csv
import importlib
import inspect
import json
import pkgutil
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from hpcddrl import config as config_package
from hpcddrl import rl
from hpcddrl.commands.cli import cli
from hpcddrl.config import Config
from hpcddrl.envs.references import human_normalised
from hpcddrl.logs.schema import COLUMNS
from hpcddrl.recipes import DEFAULT, RECIPES
from hpcddrl.settings import dump

BETTER_THAN_RANDOM = 0.05  # human-normalised: from here on a run counts as having learned something


def write_pages(out: Path, benchmarks: Path) -> None:
    """Write all pages into a folder, anew.

    Args:
        out: the folder; what is in it is lost.
        benchmarks: folder of the measured rows.
    """
    shutil.rmtree(out, ignore_errors=True)
    (out / "recipes").mkdir(parents=True)
    for name, recipe in RECIPES.items():
        (out / "recipes" / f"{name}.md").write_text(recipe_page(name, recipe))
    (out / "commands.md").write_text(commands_page())
    (out / "files.md").write_text(files_page())
    (out / "options.md").write_text(options_page())
    (out / "mathematics.md").write_text(mathematics_page())
    (out / "measured.md").write_text(measured_page(benchmarks))


def recipe_page(name: str, recipe: Callable[[], Config]) -> str:
    """Return a recipe's docstring, and what it sets."""
    other = dump(Config(recipe=name))
    rows = [
        [f"`{field}`", _code(value), _code(_flat(other).get(field, "–"))]
        for field, value in _flat(dump(recipe())).items()
        if _flat(other).get(field) != value
    ]
    default = " (the default)" if name == DEFAULT else ""
    text = [f"# {name}{default}", "", inspect.getdoc(recipe) or "", "", "## What it sets", ""]
    text += ["Every field can be changed with `--set FIELD=VALUE`; see [all options](../options.md).", ""]
    return "\n".join([*text, *_table(["field", "value", "otherwise"], rows)]) + "\n"


def commands_page() -> str:
    """Return the help texts of all commands."""
    lines = ["# Commands", "", *_literal(cli, "python -m hpcddrl")]
    for name in sorted(cli.commands):
        lines += ["", f"## {name}", "", *_literal(cli.commands[name], f"python -m hpcddrl {name}")]
    return "\n".join(lines) + "\n"


def files_page() -> str:
    """Return every table and column of a rank's file, with unit and meaning."""
    tables: dict[str, list[list[str]]] = {}
    for path, (unit, meaning) in COLUMNS.items():
        table, _, column = path.rpartition("/")
        tables.setdefault(table, []).append([f"`{column}`", unit, _cell(meaning)])
    lines = ["# Columns of the files", "", "Every dataset also says this itself, in `unit` and `meaning`."]
    for table, rows in tables.items():
        lines += ["", f"## /{table}", "", *_table(["column", "unit", "meaning"], rows)]
    return "\n".join(lines) + "\n"


def options_page() -> str:
    """Return every class of the configuration with its fields, defaults and meanings."""
    lines = ["# All options", "", "What `--set` changes, and what `config.json` holds."]
    for module in _modules(config_package):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef) and (rows := _fields(node)):
                lines += ["", f"## {node.name}", "", ast.get_docstring(node) or "", ""]
                lines += _table(["field", "type", "default", "meaning"], rows)
    return "\n".join(lines) + "\n"


def mathematics_page() -> str:
    """Return every public function of `hpcddrl.rl` with its signature and docstring."""
    lines = ["# The mathematics", "", "Functions on arrays, without state, files or messages: `hpcddrl.rl`."]
    for module in _modules(rl):
        lines += ["", f"## {module.__name__}", "", inspect.getdoc(module) or ""]
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                text = f"{name}{inspect.signature(function)}\n\n{inspect.getdoc(function)}"
                lines += ["", f"### {name}", "", "```text", *text.splitlines(), "```"]
    return "\n".join(lines) + "\n"


def measured_page(benchmarks: Path) -> str:
    """Return what the benchmarks' rows say did not work, each with where and when it was measured."""
    runs, compressors = (_rows(benchmarks / name) for name in ("frameworks.csv", "compressors.csv"))
    newest = {row["recipe"]: row for row in sorted(runs, key=lambda row: row["date"])}
    flat = [row for row in newest.values() if not _learned(row)]
    slow = [row for row in compressors if row["verdict"] != "real speed"]
    lines = ["### Recipes that had not learned when their time was up", ""]
    lines += [f"Of {len(newest)} recipes, each by its newest row in `benchmarks/frameworks.csv`, {len(flat)} ended"]
    far = f"{BETTER_THAN_RANDOM:.0%} of the way from random play to a human"
    lines += [f"with a mean return of their last 100 episodes less than {far}.", ""]
    columns = ["recipe", "env", "torso", "ranks", "seconds", "frames", "return_mean", "machine", "date", "code"]
    lines += _columns(columns, flat)
    lines += ["", "### Compressors that save no time", ""]
    lines += [f"Of {len(compressors)} rows in `benchmarks/compressors.csv`, {len(slow)} are no real gain in speed.", ""]
    lines += _columns(["compressor", "torso", "batch", "ratio", "verdict", "best_float", "machine", "date"], slow)
    return "\n".join(lines) + "\n"


def _learned(row: dict[str, str]) -> bool:
    """Say whether a run came off random play; where that is not known, it counts as learned."""
    reached = human_normalised(row["env"], float(row["return_mean"] or "nan"))
    return reached is None or reached >= BETTER_THAN_RANDOM


def _rows(path: Path) -> list[dict[str, str]]:
    """Return a benchmark's rows; none where it has not been run."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _columns(names: Sequence[str], rows: Iterable[dict[str, str]]) -> list[str]:
    """Return some columns of rows as a table."""
    return _table([name.replace("_", " ") for name in names], [[_cell(row[name]) for name in names] for row in rows])


def _modules(package: Any) -> list[Any]:
    return [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]


def _fields(node: ast.ClassDef) -> list[list[str]]:
    """Return the fields of a dataclass: name, type, default and the string below it."""
    rows = []
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        said = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        default = "" if statement.value is None else ast.unparse(statement.value)
        factory = default.removeprefix("Field(default_factory=").removesuffix(")") + "()"
        shown = factory if default.startswith("Field(default_factory=") else default
        rows.append([f"`{statement.target.id}`", _code(ast.unparse(statement.annotation)), _code(shown), _cell(said)])
    return rows


def _literal(command: click.Command, name: str) -> list[str]:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    return ["```text", *command.get_help(context).splitlines(), "```"]


def _flat(config: dict[str, Any]) -> dict[str, str]:
    """Return a configuration's fields by their dotted names, values as JSON writes them."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found |= {f"{name}.{inner}": text for inner, text in _flat(value).items()}
        else:
            found[name] = json.dumps(value, ensure_ascii=False)
    return found


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table, or a line that says that there is nothing to show."""
    body = [f"| {' | '.join(row)} |" for row in rows]
    head = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return [*head, *body] if body else ["None."]
