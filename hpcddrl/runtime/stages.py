"""From a configuration to what tells and helps a run's stages."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ConfigDict, TypeAdapter

from hpcddrl.config import NoDetector
from hpcddrl.config.stages import Detector
from hpcddrl.logs.run_dir import RunDirectory
from hpcddrl.rl.stages import State
from hpcddrl.roles.stages import Watch

_states: TypeAdapter[State] = TypeAdapter(State, config=ConfigDict(ser_json_inf_nan="constants"))


def watch_of(detector: Detector, run: RunDirectory, say: Callable[[str], None]) -> Watch | None:
    """Make what tells stages, going on from what an earlier segment knew, if stages are told."""
    if isinstance(detector, NoDetector):
        return None
    known = run.stages()
    state = State() if known is None else _states.validate_json(known)
    return Watch(detector, state, say, lambda now: run.write_stages(_states.dump_json(now).decode()))
