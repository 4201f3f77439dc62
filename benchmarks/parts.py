"""What the parts of a job do alone: stepping, inference and training, in one single-threaded process a core."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import TYPE_CHECKING, Any

from hpcddrl.recipes.impala import impala

if TYPE_CHECKING:
    import torch

PARTS = ("env", "infer", "train")
ACTING_BATCH = impala().env.num_envs
WARM_UP = 3  # calls
PATIENCE_S = 120.0  # for the others


def bound(rates: Mapping[str, float]) -> float:
    """Return the env steps/s of a job whose cores only ever do useful work, each part once an env step."""
    return 1 / sum(1 / rates[part] for part in PARTS)


def on_cores(
    part: str, env: str, torso: str, precision: str, steps: int, cores: int, seconds: float, device: str = "cpu"
) -> float:
    """Return the samples/s of one part on so many cores at the same time, summed; or of their processes on a GPU.

    Batches are as `impala` has them: its environments are acted in, and so many steps of each are learned from at once.
    """
    context = get_context("spawn")
    ready = context.Barrier(cores)
    arguments = (part, env, torso, precision, steps, seconds, device)
    with ProcessPoolExecutor(cores, context, _share, (ready,)) as pool:
        return sum(pool.map(_rate, *([argument] * cores for argument in arguments)))


_ready: list[Barrier] = []  # of this process, which measures


def _share(ready: Barrier) -> None:
    _ready.append(ready)


def _rate(part: str, env: str, torso: str, precision: str, steps: int, seconds: float, device: str) -> float:
    """Measure one part in this process, once the others are ready too."""
    import torch

    from hpcddrl.runtime.process import prepare_process

    prepare_process()
    torch.set_num_threads(1)
    samples, once = _work(part, env, torso, precision, steps, torch.device(device))
    for _ in range(WARM_UP):
        once()
    _ready[0].wait(PATIENCE_S)
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        once()
        calls += 1
    return calls * samples / elapsed


def _work(
    part: str, env: str, torso: str, precision: str, steps: int, device: torch.device
) -> tuple[int, Callable[[], Any]]:
    """Return how many samples a call handles, and what to call."""
    import numpy as np
    import torch

    from hpcddrl.config import Env
    from hpcddrl.envs.make import make, probe
    from hpcddrl.networks.device import answering_on, finished, to_device
    from hpcddrl.networks.encoding import Precision
    from hpcddrl.networks.flat import flatten
    from hpcddrl.networks.held import held
    from hpcddrl.networks.policy_value import PolicyValueNetwork
    from hpcddrl.networks.precision import choose_precision
    from hpcddrl.types import Discrete

    spec = probe(Env(id=env))
    if part == "env":
        envs = make(Env(id=env), ACTING_BATCH, list(range(ACTING_BATCH)), 0.99)
        envs.reset()
        assert isinstance(spec.action, Discrete), "of Atari"
        rng, actions = np.random.default_rng(0), spec.action.num_actions
        return ACTING_BATCH, lambda: envs.step(rng.integers(0, actions, ACTING_BATCH))
    trains = part == "train"
    samples = ACTING_BATCH * (steps if trains else 1)
    network = PolicyValueNetwork(spec, torso, 1.0, 0, Precision()).to(device)
    network.precision, _ = choose_precision(network, spec, precision, samples, trains)
    observation = torch.randint(0, 255, (samples, *spec.observation_shape), dtype=torch.uint8)
    if not trains:
        answers = answering_on(held(network, network.precision), device)
        return samples, torch.no_grad()(lambda: answers(observation).policy.cpu())
    flat = flatten(network)
    parameter = torch.nn.Parameter(flat.values)
    parameter.grad = flat.gradient
    optimizer = torch.optim.RMSprop([parameter])

    def step() -> None:
        flat.gradient.zero_()
        output = network(to_device(observation, device))
        (output.policy.square().mean() + output.value.square().mean()).backward()
        optimizer.step()

    return samples, finished(step, device)
