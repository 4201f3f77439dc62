"""What is run: the systems' configurations that are tried, and their command lines."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.installs import PEERS, RUNNERS

OURS = "hpcddrl"
COUNTED = {  # what a trained env step is, for each system
    OURS: "samples in learners' batches, from the interval of the first updates to the last but one",
    "sample-factory": "env steps of the learner (samples of the batches it trained on) from the first update to the "
    "last; num_epochs=1",
    "stable-baselines3": "num_timesteps after each update (A2C and PPO with n_epochs=1 take all of them once) from "
    "the first update to the last",
}


class Setting(NamedTuple):
    """What all rows of a table have in common, as the CSV file has it."""

    machine: str
    env: str
    cores: str
    seconds: str
    seed: str

    def __str__(self) -> str:
        return f"{self.env}, Nature network, {self.cores} cores, {self.seconds} s, seed {self.seed}"


class Configuration(NamedTuple):
    """One system as it is set up."""

    system: str
    name: str  # in the table
    options: tuple[str, ...]


class Turn(NamedTuple):
    """One run: a configuration's first, second, … in the order of the benchmark."""

    configuration: Configuration
    number: int


def ours() -> list[Configuration]:
    """Return our configurations: the recipe's small batches, and larger ones as the peers take them."""
    return [
        Configuration(
            OURS,
            f"impala, {precision}, 16 envs × {steps} steps a learner",
            ("--set", f"precision={precision}", "--set", f"algorithm.unroll_length={steps}"),
        )
        for steps in (5, 20)
        for precision in ("auto", "fp32")
    ]


def sample_factory(cores: int) -> list[Configuration]:
    """Return Sample Factory's: workers, environments, batches, learner threads; asynchronous, in lockstep, serial."""

    def appo(how: str, workers: int, envs: int, batch: int, rollout: int, threads: int | None) -> Configuration:
        batch = min(batch, workers * envs * rollout)  # in lockstep there are no more samples than these
        lifted = "1 learner thread (as it comes)" if threads is None else f"{threads} learner threads"
        options = [
            f"--async_rl={how == 'async'}",
            f"--serial_mode={how == 'serial'}",
            f"--num_workers={workers}",
            f"--num_envs_per_worker={envs}",
            f"--worker_num_splits={1 if how == 'serial' else 2}",  # two: double-buffered sampling
            f"--batch_size={batch}",
            f"--rollout={rollout}",
        ]
        options += [f"--learner_threads={threads}"] if threads else []
        name = f"APPO {how}, {workers} × {envs} envs, batch {batch}, rollout {rollout}, {lifted}"
        return Configuration("sample-factory", name, tuple(options))

    tried = [
        appo("async", cores, 8, 1024, 32, None),
        appo("async", cores, 8, 1024, 32, cores),
        appo("async", cores, 16, 2048, 32, cores),
        appo("async", cores, 16, 1024, 32, max(1, cores // 2)),
        appo("async", 2 * cores, 8, 1024, 32, cores),
        appo("async", cores, 8, 256, 32, cores),
        appo("async", cores, 8, 1024, 128, cores),
        appo("sync", cores, 8, 1024, 32, cores),
        appo("sync", cores, 16, 2048, 32, cores),
        appo("serial", 1, 32, 1024, 32, cores),
    ]
    return list(dict.fromkeys(tried))  # on few cores some are the same


def stable_baselines3(cores: int) -> list[Configuration]:
    """Return Stable-Baselines3's: A2C and PPO with one epoch, on each kind of vector environment."""

    def setup(algorithm: str, vector: str, envs: int, steps: int, batch: int | None = None) -> Configuration:
        options = [f"--algorithm={algorithm}", f"--vector={vector}", f"--envs={envs}", f"--steps={steps}"]
        options += [f"--threads={cores}", *([f"--batch={batch}"] if batch else [])]
        kind = {"dummy": "DummyVecEnv", "subproc": "SubprocVecEnv", "ale": "ale-py's vector environment"}[vector]
        name = f"{algorithm.upper()}, {kind}, {envs} envs × {steps} steps" + (f", batch {batch}" if batch else "")
        return Configuration("stable-baselines3", name, tuple(options))

    a2c = [setup("a2c", vector, envs, 5) for vector in ("dummy", "subproc", "ale") for envs in (16, 32, 64)]
    large = [setup("a2c", "ale", 64, 20)]
    ppo = [setup("ppo", vector, envs, 128, 256) for vector, envs in (("subproc", 32), ("ale", 32), ("ale", 64))]
    return [*a2c, *large, *ppo, setup("ppo", "ale", 64, 128, 1024)]


def turns(peers: Sequence[str], cores: int) -> list[Turn]:
    """Return the runs in their order: one of ours before each of a peer's, the peers in turn, ours in turn."""
    of = {"sample-factory": sample_factory, "stable-baselines3": stable_baselines3}
    own, order, made = ours(), [], Counter[Configuration]()
    dealt = [c for several in zip_longest(*(of[name](cores) for name in peers)) for c in several if c is not None]
    for position, configuration in enumerate(dealt):
        mine = own[position // len(peers) % len(own)]  # so that each of ours meets every peer
        made[mine] += 1
        order += [Turn(mine, made[mine]), Turn(configuration, 1)]
    return order


def command(what: Configuration, setting: Setting, out: Path) -> list[str]:
    """Return the command line of a run that writes to ``out``: a run's directory (ours), a JSON file (a peer's)."""
    if what.system == OURS:
        line = ["mpirun", "-n", setting.cores, sys.executable, "-m", "hpcddrl", "run", "impala", "--env", setting.env]
        line += ["--seconds", setting.seconds, "--seed", setting.seed, "--out", str(out)]
        same = ["network.torso=nature", "env.fire_reset=false"]  # the peers press no FIRE either
        fast = ["topology.split=auto", "update.overlap=true", "update.backend=mpi"]
        return [*line, *(word for setting in (*same, *fast) for word in ("--set", setting)), *what.options]
    peer = PEERS[what.system]
    game = "--game" if what.system == "sample-factory" else "--env"  # Sample Factory has an --env of its own
    line = [str(peer.python), str(RUNNERS / peer.runner), game, setting.env]
    return [*line, "--seconds", setting.seconds, "--seed", setting.seed, "--report", str(out), *what.options]
