"""A device of its own, for machines without a GPU: its tensors stand in host memory, but as a GPU's do, nothing that
the host has mixes with them unless it is copied, and numpy cannot read them.

What is computed there is computed by the same kernels, so a run whose learners compute there must come to the same
weights as one on cores, bit for bit. Run as a program, this tries it.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
ELSEWHERE = torch.device("elsewhere", 0)
MAY_MIX = ("copy_", "_to_copy")
BY_INDEX = ("index", "index_put", "index_put_", "_index_put_impl_")  # a GPU takes indices of the host's, too


class Elsewhere(torch.Tensor):
    """A tensor there; ``inner`` has its values."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=ELSEWHERE,
        )

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func == torch.Tensor.data.__set__:
            args[0].inner = args[1].inner
        if func == torch.Tensor.numpy:
            raise TypeError("can't convert elsewhere:0 device type tensor to numpy; use .cpu() first")
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class Reachable(TorchDispatchMode):
    """While it is on, tensors can be made on the device and copied there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute what torch was asked for, and say where it then is; raise if it mixes devices."""
    given, shape = tree.tree_flatten((args, kwargs))
    name = func._schema.name.partition("::")[2]
    there = any(isinstance(x, Elsewhere) for x in given)
    if there and name not in MAY_MIX:
        first = args[0]
        of_one = [first, args[2] if len(args) > 2 else first] if name in BY_INDEX else given
        for x in of_one:
            if isinstance(x, torch.Tensor) and x.dim() and not isinstance(x, Elsewhere):
                raise RuntimeError(f"{name}: expected all tensors to be on the same device")
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == ELSEWHERE.type
    elif name == "copy_":
        there = isinstance(args[0], Elsewhere)
    host = [
        x.inner if isinstance(x, Elsewhere) else torch.device("cpu") if isinstance(x, torch.device) else x
        for x in given
    ]
    plain_args, plain_kwargs = tree.tree_unflatten(host, shape)
    made = func(*plain_args, **plain_kwargs)
    if func._schema.is_mutable and name.endswith("_"):
        return args[0]
    return tree.tree_map(lambda x: Elsewhere(x) if isinstance(x, torch.Tensor) else x, made) if there else made


def _plain(x: Any) -> Any:
    """Return what the host computes with instead."""
    if isinstance(x, Elsewhere):
        return x.inner
    return torch.device("cpu") if isinstance(x, torch.device) else x


def main(folder: Path, lines: list[str]) -> None:
    """Run recipes with learners on cores and elsewhere; say of each whether both came to the same weights.

    Args:
        folder: for the runs.
        lines: a recipe and settings each.
    """
    from mpi4py import MPI

    from hpcddrl.comm.placement import Role
    from hpcddrl.config import Uncompressed
    from hpcddrl.logs import checkpoint
    from hpcddrl.recipes import RECIPES
    from hpcddrl.runtime import devices, job
    from hpcddrl.settings import override

    def devices_of(config, spec, places, seen):
        compressed = not isinstance(config.compression, Uncompressed)
        learns = devices.CPU if config.device.learner == "cpu" else ELSEWHERE
        acts = devices.CPU if compressed or config.device.inference == "cpu" else ELSEWHERE
        there, here = devices.Devices(learns, acts), devices.Devices()
        return [there if place.role is Role.LEARNER else here for place in places]

    on_cores = job.devices_of
    devices.Devices.use = lambda self: []  # the rest is of GPUs
    devices.Devices.name = property(lambda self: f"{self.learner}, {self.inference}")
    for number, line in enumerate(lines):
        recipe, *settings = line.split()
        found = []
        for where, what in (("cores", on_cores), ("elsewhere", devices_of)):
            job.devices_of = what
            out = folder / f"{number}-{recipe}-{where}"
            with Reachable() if what is devices_of else contextlib.nullcontext():
                assert job.run_job(override(RECIPES[recipe](), settings), out, resume=False) == 0
            if MPI.COMM_WORLD.rank == 0:
                owners = checkpoint.newest_of_all(out / "checkpoints")
                found.append({name: (state.version, checkpoint.vector(state)) for name, state in owners.items()})
        if not found:
            continue
        same = [
            found[1][name][0] == version > 0 and torch.equal(found[1][name][1], values)
            for name, (version, values) in found[0].items()
        ]
        print(f"{line}: {'the same' if same and all(same) else f'differs, {found}'}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
