"""Scalars in the files that TensorBoard shows."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboardX import SummaryWriter

from hpcddrl.commands.live.scalars import Scalars

EVENTS = "events.out.tfevents.*"


class Board:
    """Writes a run's scalars into a folder, each once: by step (frames) and by time (seconds of running).

    Args:
        folder: made if it is not there; files of an earlier export in it are replaced.
        started: seconds since 1970 at which the run began.

    Raises:
        ValueError: the folder holds something else, or cannot be written.
    """

    def __init__(self, folder: Path, started: float) -> None:
        earlier = list(folder.glob(EVENTS))
        if folder.exists() and (not folder.is_dir() or len(earlier) < len(list(folder.iterdir()))):
            raise ValueError(f"{folder}: holds other files than TensorBoard's; choose another folder with --out")
        try:
            for file in earlier:
                file.unlink()
            self._writer = SummaryWriter(str(folder))
        except OSError as error:
            raise ValueError(f"{folder}: cannot be written: {error.strerror}; choose another with --out") from error
        self._started, self._until = started, 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, scalars: Scalars) -> int:
        """Write what is newer than what was written before; return how many scalars that were."""
        written = 0
        new = [i for i, seconds in enumerate(scalars.seconds) if seconds > self._until]
        for name, values in scalars.curves.items():
            for i in new:
                if math.isfinite(values[i]):
                    when = self._started + float(scalars.seconds[i])
                    self._writer.add_scalar(name, float(values[i]), int(scalars.frames[i]), when)
                    written += 1
        self._until = max([self._until, *(float(scalars.seconds[i]) for i in new)])
        self._writer.flush()
        return written
