"""The peers' own environments: which packages, where, which versions are there."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from benchmarks.rows import ROOT

RUNNERS = Path(__file__).parent / "runners"
READY = "ready"  # in the environment's folder: what it was made with


class Peer(NamedTuple):
    """A system to compare with: its packages and the program that trains it."""

    name: str
    packages: tuple[str, ...]  # pinned, the first is the system itself
    runner: str

    @property
    def folder(self) -> Path:
        """Return the folder of its environment."""
        return ROOT / f".venv-peers-{self.name}"

    @property
    def python(self) -> Path:
        """Return its Python."""
        return self.folder / "bin" / "python"

    @property
    def version(self) -> str:
        """Return the version that its rows are of."""
        return self.packages[0].partition("==")[2]


# Two environments: Sample Factory wants Gymnasium < 1 (and so an ale-py that still knows it) and NumPy < 2.
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "sample-factory",
            ("sample-factory==2.1.1", "ale-py==0.10.1", "gymnasium==0.29.1", "opencv-python==4.11.0.86"),
            "run_sample_factory.py",
        ),
        Peer(
            "stable-baselines3",
            ("stable-baselines3==2.9.2", "ale-py==0.12.1", "gymnasium==1.4.0", "opencv-python-headless==5.0.0.93"),
            "run_stable_baselines3.py",
        ),
    )
}
SHOWN = ("torch", "numpy", "gymnasium", "ale-py")


def torch_here() -> str:
    """Return the requirement for the torch that this program's environment has, build and all."""
    return f"torch=={metadata.version('torch')}"


def install_commands(peer: Peer, torch: str, index: str) -> list[list[str]]:
    """Return the commands that make a peer's environment; torch first, so that no other build comes with the rest."""
    extra = ["--extra-index-url", index] if index else []
    pip = [str(peer.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *extra]
    make = [sys.executable, "-m", "venv", "--clear", str(peer.folder)]
    return [make, [*pip, torch], [*pip, torch, *peer.packages]]


def is_ready(peer: Peer, torch: str) -> bool:
    """Tell whether the environment is complete and of these packages."""
    stamp = peer.folder / READY
    return stamp.exists() and stamp.read_text() == _made_with(peer, torch)


def install(peer: Peer, torch: str, index: str) -> None:
    """Make a peer's environment, unless it is there.

    Raises:
        subprocess.CalledProcessError: pip or venv failed, having said why.
    """
    if is_ready(peer, torch):
        return
    print(f"installing {peer.packages[0]} in {peer.folder.name} (minutes)", flush=True)
    for command in install_commands(peer, torch, index):
        subprocess.run(command, check=True)
    (peer.folder / READY).write_text(_made_with(peer, torch))


def versions(site_packages: list[str] | None, first: tuple[str, ...] = ()) -> str:
    """Return the versions of what matters, as installed in these folders (None: this program's environment)."""
    found = metadata.distributions() if site_packages is None else metadata.distributions(path=site_packages)
    have = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in found}
    return ", ".join(f"{name} {have[name]}" for name in (*first, *SHOWN) if name in have)


def versions_of(peer: Peer) -> str:
    """Return the versions installed in a peer's environment."""
    return versions([str(path) for path in peer.folder.glob("lib/python*/site-packages")], (peer.name,))


def _made_with(peer: Peer, torch: str) -> str:
    return "\n".join((torch, *peer.packages)) + "\n"
