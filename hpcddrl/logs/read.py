"""Runs as tidy tables: every row of every rank's file with the run, segment and rank that it comes from.

What cannot be read is named and the rest read: a rank's file may be missing, cut off or damaged, and a run may still be
going on or have been killed. Files are opened without a lock and replaced whole by their writers, so that reading
disturbs nobody.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd

from hpcddrl.logs.axes import timed, with_axes
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.logs.schema import COLUMNS, SCHEMA
from hpcddrl.types import Array

ORIGIN = ("run", "segment", "rank", "role", "group", "game")  # columns that begin every table
PLACE = {"role": "role", "group": "group", "game": "env"}  # and the attributes they come from; timing has an env too
AXES = {  # columns that reading adds to every table
    "time": ("s", "since the start of the segment"),
    "seconds": ("s", "since the start of the run, its segments put end to end"),
    "job_frames": ("frames", "environment frames of the whole job by then, over segments"),
    "superseded": ("bool", "a later segment went on from fewer frames, so that this was done anew"),
}
RENAMED = {  # since every table has a column of that name that says who wrote the row, and when
    ("peers", "group"): "member",
    ("failures", "rank"): "whom",
    ("exchange", "seconds"): "took",
    ("compression", "seconds"): "took",
    ("checkpoint", "seconds"): "took",
    ("evaluation", "seconds"): "took",
}
NEEDED = ("role", "group", "world_size", "started", "config")  # attributes of a rank's file
SILENT_INTERVALS = 6  # without a row, after which a run without a summary counts as cut off
BROKEN = (OSError, RuntimeError, KeyError, ValueError)  # what h5py raises on damaged files
Column = tuple[str, str]  # unit, meaning


class Problem(NamedTuple):
    """Something of a run that could not be read, in one line."""

    run: str
    text: str


class Runs(NamedTuple):
    """Some runs as tables. A column that the schema has and no file wrote is there, all NaN."""

    runs: pd.DataFrame  # a row a run: run, path, recipe, env, seed, ranks, segments, state, reason
    ranks: pd.DataFrame  # a row a rank of a segment: ORIGIN, and host, started, git_commit, git_dirty, job, versions
    tables: Mapping[str, pd.DataFrame]  # by name, as in the files; those below a tag have a column "tag"
    columns: Mapping[str, Column]  # of "table/column"
    configs: Mapping[str, Mapping[str, Any]]  # by run, as in config.json
    problems: tuple[Problem, ...]


def only(runs: Runs, name: str) -> Runs:
    """Return one run of several."""
    return Runs(
        runs=runs.runs[runs.runs["run"] == name],
        ranks=runs.ranks[runs.ranks["run"] == name],
        tables={key: table[table["run"] == name] for key, table in runs.tables.items()},
        columns=runs.columns,
        configs={name: runs.configs[name]},
        problems=tuple(problem for problem in runs.problems if problem.run == name),
    )


class _File(NamedTuple):
    """What one rank's file holds, as far as it could be read."""

    attributes: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    columns: dict[str, Column]
    problems: list[str]


def read_runs(paths: Sequence[Path]) -> Runs:
    """Read runs, each path being one's directory or a folder of some.

    Raises:
        ValueError: there is no run, or none that can be read.
    """
    found = list(dict.fromkeys(run for path in paths for run in find(path)))
    read, problems = [], []
    for path, name in zip(found, _names(found), strict=True):
        try:
            read.append(_read_run(path, name))
        except ValueError as error:
            if len(found) == 1:
                raise
            problems.append(Problem(name, f"left out: {error}"))
    if not read:
        raise ValueError(f"none of {len(found)} runs can be read; the first: {problems[0].text}")
    return _together(read, problems)


def find(path: Path) -> list[Path]:
    """Return the runs in a directory: itself, or those below it, by name.

    Raises:
        ValueError: there is none.
    """
    if (path / "segments").is_dir():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: no such directory; give a run's, or a folder of runs")
    runs = sorted(found.parent for found in path.rglob("segments") if found.is_dir())
    if not runs:
        began = (path / "config.json").exists()
        why = "has begun, but no rank has written yet; wait a little" if began else "give a run's, or a folder of runs"
        raise ValueError(f"{path}: {'this run' if began else 'no run in this directory;'} {why}")
    return runs


def _names(paths: Sequence[Path]) -> list[str]:
    """Name runs by as many of the last parts of their paths as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(map(str, paths))


def _read_run(path: Path, name: str) -> Runs:
    """Read one run.

    Raises:
        ValueError: no rank's file can be read, or its schema is not known here.
    """
    run, files, problems = RunDirectory(path), dict[tuple[int, int], _File](), list[str]()
    for segment in run.segments:
        there = _read_segment(run, segment, problems)
        files |= {(segment, rank): file for rank, file in there.items()}
    if not files:
        raise ValueError(f"{path}: no rank's file can be read: {'; '.join(problems) or 'there is none'}")
    config = _config(path, files, problems)
    starts = _starts(files)
    problems += [
        f"segment {segment} does not say with how many frames it began: taken as going on from all those before it"
        for segment, start in starts.items()
        if start is None
    ]
    tables = with_axes(_tables(name, files), starts)
    newest = max(segment for segment, _ in files)
    state, reason = _state(run, newest, [file.attributes for (segment, _), file in files.items() if segment == newest])
    columns = {column: about for file in files.values() for column, about in file.columns.items()}
    about = {
        "run": name,
        "path": str(path),
        "recipe": config["recipe"],
        "env": config.get("env", {}).get("id", ""),
        "seed": config.get("seed", -1),
        "ranks": max(file.attributes["world_size"] for (segment, _), file in files.items() if segment == newest),
        "segments": len({segment for segment, _ in files}),
        "state": state,
        "reason": reason,
    }
    named = tuple(Problem(name, text) for text in problems)
    return Runs(pd.DataFrame([about]), _ranks(name, files), tables, columns, {name: config}, named)


def _read_segment(run: RunDirectory, segment: int, problems: list[str]) -> dict[int, _File]:
    """Read the files of a segment's ranks; complain of those that are missing or broken."""
    folder = run.rank_file(segment, 0).parent
    known = {int(p.stem.removeprefix("rank-")) for p in folder.glob("rank-*.h5")}
    files: dict[int, _File] = {}
    columns: dict[str, Column] = {}  # of one program, and so the same in all its files: each is looked at once
    if not known:
        problems.append(f"segment {segment}: no rank has written a file")
    for rank in sorted(known):
        path = run.rank_file(segment, rank)
        try:
            files[rank] = _read_file(path, columns)
            columns |= files[rank].columns
        except BROKEN as error:
            problems.append(f"segment {segment}, rank {rank}: {path.name} cannot be read and is left out: {error}")
            continue
        _check_origin(path, files[rank].attributes)
        problems += [f"segment {segment}, rank {rank}: {text}" for text in files[rank].problems]
    size = max((file.attributes["world_size"] for file in files.values()), default=0)
    problems += [
        f"segment {segment}, rank {rank}: {run.rank_file(segment, rank).name} is missing"
        for rank in sorted(set(range(size)) - known)
    ]
    return files


def _check_origin(path: Path, attributes: Mapping[str, Any]) -> None:
    """Complain of a file that is another program's, or of another version of this one."""
    schema, missing = attributes.get("schema"), [name for name in NEEDED if name not in attributes]
    if schema != SCHEMA:
        way_out = "update hpcddrl" if isinstance(schema, int) and schema > SCHEMA else "it is no file of hpcddrl's"
        raise ValueError(f"{path}: schema {schema} of the files, and this program reads {SCHEMA}; {way_out}")
    if missing:
        raise ValueError(f"{path}: has no attribute {missing[0]}; it is no file of hpcddrl's")


def _read_file(path: Path, known: Mapping[str, Column]) -> _File:
    """Read one rank's file; a table that is broken is named and left out.

    Units and meanings are read of columns that are not ``known``: that takes as long as their numbers.
    """
    tables: dict[str, pd.DataFrame] = {}
    columns: dict[str, Column] = {}
    problems: list[str] = []
    with h5py.File(path, "r", locking=False) as file:
        attributes = {
            key: value.item() if isinstance(value, np.generic) else value for key, value in file.attrs.items()
        }
        if attributes.get("schema") != SCHEMA:
            return _File(attributes, {}, {}, [])  # nothing is known of its tables
        for name in file:
            try:
                tables[name] = _table(file[name])
                if any(f"{name}/{column}" not in known for column in tables[name] if column != "tag"):
                    file[name].visititems(lambda _, item: columns.update(_about(item)))
            except BROKEN as error:
                problems.append(f"its table {name} is broken and left out: {error}")
    return _File(attributes, timed(tables), columns, problems)


def _table(group: h5py.Group) -> pd.DataFrame:
    """Return a group's columns, or those of the groups in it with their names as ``tag``."""
    tagged = {name: item for name, item in group.items() if isinstance(item, h5py.Group)}
    if not tagged:
        table = group.name.strip("/")
        return pd.DataFrame({RENAMED.get((table, name), name): _values(column) for name, column in group.items()})
    if len(tagged) < len(group):
        raise ValueError("it has both columns and tables")
    return pd.concat([_table(item).assign(tag=name) for name, item in tagged.items()], ignore_index=True)


def _values(column: h5py.Dataset) -> Array:
    """Return a column's numbers or texts."""
    texts = h5py.check_string_dtype(column.dtype) is not None
    return np.asarray(column.asstr()[:] if texts else column[:])


def _about(item: h5py.Group | h5py.Dataset) -> dict[str, Column]:
    if not isinstance(item, h5py.Dataset):
        return {}
    table, *_, column = item.name.strip("/").split("/")
    column = RENAMED.get((table, column), column)
    return {f"{table}/{column}": (str(item.attrs["unit"]), str(item.attrs["meaning"]))}


def _tables(name: str, files: Mapping[tuple[int, int], _File]) -> dict[str, pd.DataFrame]:
    """Put the ranks' tables together, each with all the columns that the schema has."""
    wanted = dict.fromkeys(column.split("/")[0] for column in COLUMNS)
    tables = {}
    for table in [*wanted, *sorted({t for file in files.values() for t in file.tables} - set(wanted))]:
        parts = [
            file.tables[table].assign(**_origin(name, segment, rank, file.attributes))
            for (segment, rank), file in files.items()
            if table in file.tables
        ]
        names = [column.split("/")[-1] for column in COLUMNS if column.split("/")[0] == table]
        own = dict.fromkeys(RENAMED.get((table, name), name) for name in names)
        tag = ["tag"] if table == "traffic" else []
        whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
        order = dict.fromkeys([*ORIGIN, *tag, "time", *own, *whole.columns])
        tables[table] = whole.reindex(columns=list(order))
    return tables


def _origin(name: str, segment: int, rank: int, attributes: Mapping[str, Any]) -> dict[str, Any]:
    place = {column: attributes.get(key, "") for column, key in PLACE.items()}
    return {"run": name, "segment": segment, "rank": rank, **place}


def _starts(files: Mapping[tuple[int, int], _File]) -> dict[int, float | None]:
    """Return the frames that each segment began with; None where its files do not say."""
    starts: dict[int, float | None] = {}
    for (segment, _), file in files.items():
        before = starts.get(segment, 0.0 if segment == 1 else None)
        starts[segment] = file.attributes.get("frames_before", before)
    return starts


def _ranks(name: str, files: Mapping[tuple[int, int], _File]) -> pd.DataFrame:
    rows = []
    for (segment, rank), file in files.items():
        own = {key: file.attributes.get(key, "") for key in ("host", "started", "git_commit", "git_dirty")}
        job, versions = file.attributes.get("slurm_job_id", ""), file.attributes.get("versions", "{}")
        rows.append(_origin(name, segment, rank, file.attributes) | own | {"job": job, "versions": versions})
    return pd.DataFrame(rows)


def _config(path: Path, files: Mapping[tuple[int, int], _File], problems: list[str]) -> dict[str, Any]:
    """Return the configuration, from the ranks' files where config.json is lost."""
    try:
        config = json.loads((path / "config.json").read_text())
        return {"recipe": config["recipe"], **config}
    except (OSError, ValueError, KeyError, TypeError) as error:
        problems.append(f"config.json cannot be read, its copy in a rank's file was taken: {error}")
        return dict(json.loads(next(iter(files.values())).attributes["config"]))


def _state(run: RunDirectory, segment: int, attributes: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Say whether a run has "ended" and why, is "running", or was "cut off" without a summary of its last segment."""
    started = min(datetime.fromisoformat(a["started"]) for a in attributes)
    try:
        summary = json.loads((run.path / "summary.json").read_text())
        if datetime.fromisoformat(summary["ended"]).timestamp() >= int(started.timestamp()):
            return "ended", str(summary["exit_reason"])
    except (OSError, ValueError, KeyError):
        pass  # none yet, or none that can be read: the files' age tells
    interval = json.loads(attributes[0]["config"])["logging"]["interval_s"]
    newest = max(os.stat(file).st_mtime for file in run.rank_file(segment, 0).parent.glob("rank-*.h5"))
    silent = time.time() - newest
    return ("running", "") if silent < SILENT_INTERVALS * max(interval, 5.0) else ("cut off", "")


def _together(read: Sequence[Runs], problems: Sequence[Problem]) -> Runs:
    """Join the tables of several runs."""
    names = dict.fromkeys(name for run in read for name in run.tables)

    def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
        filled = [part for part in parts if len(part)] or parts[:1]  # an empty part would only blur the dtypes
        return pd.concat(filled, ignore_index=True)

    return Runs(
        runs=joined([run.runs for run in read]),
        ranks=joined([run.ranks for run in read]),
        tables={name: joined([run.tables[name] for run in read if name in run.tables]) for name in names},
        columns={
            **{f"{name}/{axis}": about for name in names for axis, about in AXES.items()},
            **{column: about for run in read for column, about in run.columns.items()},
        },
        configs={name: config for run in read for name, config in run.configs.items()},
        problems=(*problems, *(problem for run in read for problem in run.problems)),
    )
