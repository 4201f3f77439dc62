"""What the benchmarks share: which machine, which code, rows in a CSV file and tables in Markdown."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANGED = "+"  # ends the code key of files that differ from the commit
Row = dict[str, str]


def machine() -> str:
    """Describe the processor, shortly: rows of the same one can be compared."""
    model, flags = _processor()
    bf16 = " AMX-bf16" if "amx_bf16" in flags else " AVX512-bf16" if "avx512_bf16" in flags else ""
    return f"{len(os.sched_getaffinity(0))} × {model or platform.processor()}{bf16}"


def about_machine() -> str:
    """Describe the rest: vector units, memory, operating system and versions."""
    _, flags = _processor()
    units = " ".join(sorted(f for f in flags if f.startswith(("avx512", "amx")))) or "neither AVX512 nor AMX"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return f"{memory:.0f} GiB memory; {system}, kernel {platform.release()}; {_versions()}; {units}"


def _processor() -> tuple[str, set[str]]:
    """Return the processor's name and flags."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []

    def first(name: str) -> str:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")

    return first("model name"), set(first("flags").split())


def _versions() -> str:
    try:
        mpi = subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout.split("\n")[0].strip()
    except FileNotFoundError:
        mpi = ""
    named = [f"python {platform.python_version()}"]
    for package in ("torch", "mpi4py", "horovod"):
        try:
            named.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            named.append(f"no {package}")
    return ", ".join([*named, mpi or "no mpirun"])


def code_key() -> str:
    """Return the git tree of hpcddrl/, shortly, with a + if files there differ from it.

    Of the folder, not of the commit: a change of documents or tests leaves the rows valid.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(
                f"the rows are kept by git's tree of hpcddrl/, and git {arguments[0]} failed: {done.stderr.strip()}"
            )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=all", "--", "hpcddrl")
    return git("rev-parse", "HEAD:hpcddrl")[:10] + (CHANGED if changed else "")


def read_rows(path: Path) -> list[Row]:
    """Return the rows so far."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def add_row(path: Path, columns: Sequence[str], row: Row) -> list[Row]:
    """Add a row to those in the file by now, and return them all; the file is replaced whole."""
    rows = [*read_rows(path), row]
    new = path.with_suffix(".csv.new")
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    new.replace(path)
    return rows


def has_row(rows: Iterable[Row], key: Row) -> bool:
    """Tell whether a row has this key; what ran with changed files is nobody's key."""
    return not key["code"].endswith(CHANGED) and any(all(row.get(k) == v for k, v in key.items()) for row in rows)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; an empty cell is a dash."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") or "–" for cell in row) + " |" for row in rows]
