"""How fast a job runs on this machine, beside how fast its parts could be.

    make bench                                      # all cores, Pong, the nips and the nature network
    make bench ARGS="--seconds 120 --torso nips"

Three rates are measured alone, each with one single-threaded process a core: stepping environments, inference, and
training (forward, backward, optimizer). If every core only ever did useful work, a job that does all three once for
each env step would reach 1 / (1/env + 1/infer + 1/train): the bound. Then `impala` runs on all cores and is set beside
it. A row is written to throughput.csv as each run ends; rows of the same code (git's tree of hpcddrl/), machine and
configuration are skipped, so a table can grow over several days. throughput.md is drawn from the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

from benchmarks.rows import add_row, code_key, has_row, machine, markdown_table, read_rows

HERE = Path(__file__).parent
ROWS, TABLE = HERE / "throughput.csv", HERE / "throughput.md"
KEY = ("code", "machine", "torso", "precision", "ranks", "seconds")
COLUMNS = (*KEY, "env", "infer", "train", "bound", "achieved", "share", "learner_wait", "actor_wait", "lag", "date")
ACTING_BATCH, TRAINING_BATCH = 16, 176  # observations, as the recipe uses them


def rate_of(part: str, torso: str, precision: str, seconds: float) -> float:
    """Measure one part's samples per second on one core."""
    import numpy as np
    import torch

    from hpcddrl.config import Env
    from hpcddrl.envs.make import make, probe
    from hpcddrl.networks.encoding import Precision
    from hpcddrl.networks.flat import flatten
    from hpcddrl.networks.policy_value import PolicyValueNetwork
    from hpcddrl.networks.precision import choose_precision

    torch.set_num_threads(1)
    spec = probe(Env())
    once: Callable[[], object]
    if part == "env":
        samples, envs = ACTING_BATCH, make(Env(), ACTING_BATCH, list(range(ACTING_BATCH)), 0.99)
        envs.reset()
        actions = np.random.default_rng(0).integers(0, 6, (64, ACTING_BATCH))
        turn = iter(range(10**9))
        once = lambda: envs.step(actions[next(turn) % 64])  # noqa: E731
    else:
        samples = ACTING_BATCH if part == "infer" else TRAINING_BATCH
        network = PolicyValueNetwork(spec, torso, 1.0, 0, Precision())
        network.precision, _ = choose_precision(network, spec, precision, samples, part == "train")
        flat = flatten(network)
        optimizer = torch.optim.RMSprop([torch.nn.Parameter(flat.values)])
        observation = torch.randint(0, 255, (samples, *spec.observation_shape), dtype=torch.uint8)

        def once() -> None:
            with torch.set_grad_enabled(part == "train"):
                output = network(observation)
                if part == "train":
                    flat.gradient.zero_()
                    (output.policy.square().mean() + output.value.square().mean()).backward()
                    optimizer.param_groups[0]["params"][0].grad = flat.gradient
                    optimizer.step()

    for _ in range(3):
        once()
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        once()
        calls += 1
    return calls * samples / elapsed


def rate_on_all_cores(part: str, torso: str, precision: str, cores: int) -> float:
    """Measure one part on every core at once; return the sum."""
    with get_context("spawn").Pool(cores) as pool:
        return sum(pool.starmap(rate_of, [(part, torso, precision, 5.0)] * cores))


def run_impala(ranks: int, torso: str, precision: str, seconds: int) -> dict[str, object]:
    """Run the recipe and return its summary."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = ["mpirun", "-n", str(ranks), sys.executable, "-m", "hpcddrl", "run", "impala"]
        command += ["--seconds", str(seconds), "--out", str(out)]
        command += ["--set", f"network.torso={torso}", "--set", f"precision={precision}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=seconds + 120)
        return dict(json.loads((out / "summary.json").read_text()))


def write_table(rows: list[dict[str, str]]) -> None:
    """Draw the Markdown table of all rows."""
    lines = [
        "# Throughput on one machine",
        "",
        "`make bench` wrote this from throughput.csv. Rates are trained env steps per second on Pong (frames are four",
        "times that); env, infer and train are the parts alone on all cores, bound is 1 / (1/env + 1/infer + 1/train).",
        "",
        *markdown_table(COLUMNS, ([row[column] for column in COLUMNS] for row in rows)),
    ]
    TABLE.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Measure what is missing and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torso", nargs="*", default=["nips", "nature"], help="networks (default: nips nature)")
    parser.add_argument("--precision", nargs="*", default=["auto"], help="auto, fp32 or bf16 (default: auto)")
    parser.add_argument("--seconds", type=int, default=60, help="of each run (default: 60)")
    parser.add_argument("--ranks", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    options = parser.parse_args()
    if options.ranks < 2:
        parser.error(f"--ranks {options.ranks}: the table is of a learner and its actors; start 2 or more")
    wanted = [
        dict(zip(KEY, (code_key(), machine(), torso, precision, str(options.ranks), str(options.seconds)), strict=True))
        for torso in options.torso
        for precision in options.precision
    ]
    rows = read_rows(ROWS)
    missing = [key for key in wanted if not has_row(rows, key)]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} rows are there; missing: {[m['torso'] for m in missing]}")
    for key in missing:
        parts = {
            p: rate_on_all_cores(p, key["torso"], key["precision"], options.ranks) for p in ("env", "infer", "train")
        }
        bound = 1 / sum(1 / rate for rate in parts.values())
        summary = run_impala(options.ranks, key["torso"], key["precision"], options.seconds)
        achieved = float(summary["trained_samples_per_s"])  # type: ignore[arg-type]
        shares = summary["phase_share"]
        row = key | {name: f"{rate:.0f}" for name, rate in parts.items()}
        row |= {"bound": f"{bound:.0f}", "achieved": f"{achieved:.0f}", "share": f"{achieved / bound:.2f}"}
        row |= {f"{role}_wait": f"{shares[role]['wait']:.2f}" for role in ("learner", "actor")}  # type: ignore[index]
        row |= {"lag": f"{summary['lag_mean']:.1f}", "date": time.strftime("%Y-%m-%d")}
        rows = add_row(ROWS, COLUMNS, row)
        write_table(rows)
        print(f"{key['torso']} {key['precision']}: {achieved:.0f} of {bound:.0f} env steps/s ({achieved / bound:.0%})")


if __name__ == "__main__":
    main()
