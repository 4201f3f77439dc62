"""TensorBoard's scalars of a run while it goes on: another process reads its files and writes them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

NEEDED = ("tensorboardX", "pandas")
PATIENCE_S = 60.0  # for all scalars once more, when the run has ended


def require() -> None:
    """Make sure that scalars can be written here.

    Raises:
        ValueError: a package is missing; names it and the way out.
    """
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"logging.tensorboard: the package {package!r} is missing; python -m pip install 'hpcddrl[tensorboard]'"
            )


class Board:
    """Has `tensorboard RUN --follow` run beside a run, and all scalars written once more when that has ended.

    Args:
        run: its directory; at least one rank has made its file.
    """

    def __init__(self, run: Path) -> None:
        self._line = [sys.executable, "-m", "hpcddrl", "tensorboard", str(run)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen([*self._line, "--follow"], stdin=quiet, stdout=quiet, stderr=quiet)

    def finish(self) -> str:
        """Write what is known now, for good; return a line that says so, or why it could not be done."""
        self._process.kill()
        self._process.wait()
        try:
            done = subprocess.run(
                self._line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S
            )
        except subprocess.TimeoutExpired:
            return f"TensorBoard's scalars are not complete after {PATIENCE_S:.0f} s; {' '.join(self._line[1:])}"
        return f"TensorBoard: {(done.stdout if done.returncode == 0 else done.stderr).strip()}"
