"""One rank's HDF5 file: rows are gathered in memory and appended once an interval.

The file is never written in place: rows go to a copy, which then takes the file's name. So it opens after a SIGKILL at
any moment, while the run goes on, and from another machine, with nothing lost but the rows since the last interval.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from hpcddrl.logs.schema import COLUMNS, TEXT

CHUNK_ROWS = 256


class RankLog:
    """Appends rows to the tables of one rank's file.

    Args:
        path: of the file; made at once, with its attributes.
        attributes: of the file (see the README for the names).

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, attributes: Mapping[str, object]) -> None:
        self.path = path
        self._rows: dict[str, list[Mapping[str, float | str]]] = defaultdict(list)
        self._new = path.with_suffix(".h5.new")
        with h5py.File(self._new, "w") as file:
            file.attrs.update(attributes)
        os.replace(self._new, path)

    def append(self, table: str, row: Mapping[str, float | str]) -> None:
        """Add a row to a table; a column that a row lacks is NaN (of texts: empty) there, also one that came later."""
        self._rows[table].append(row)

    def flush(self) -> None:
        """Write what was appended."""
        shutil.copyfile(self.path, self._new)
        with h5py.File(self._new, "r+") as file:
            for table, rows in self._rows.items():
                _append(file, table, rows)
        os.replace(self._new, self.path)
        self._rows.clear()


def _append(file: h5py.File, table: str, rows: list[Mapping[str, float | str]]) -> None:
    group = file.require_group(table)
    columns = sorted({name for row in rows for name in row} | set(group))
    before = len(group[next(iter(group))]) if len(group) else 0
    for name in columns:
        unit, meaning = COLUMNS[f"{table}/{name}"]
        nothing: float | str = "" if unit == TEXT else np.nan
        if name not in group:
            kind = h5py.string_dtype() if unit == TEXT else "f8"
            dataset = group.create_dataset(
                name, shape=(before,), maxshape=(None,), dtype=kind, chunks=(CHUNK_ROWS,), fillvalue=nothing
            )
            dataset.attrs.update({"unit": unit, "meaning": meaning})
        dataset = group[name]
        dataset.resize((before + len(rows),))
        dataset[before:] = [row.get(name, nothing) for row in rows]
