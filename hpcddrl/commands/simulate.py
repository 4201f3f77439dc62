"""``simulate``: how fast a job will be at sizes that are not at hand, from what a small run took."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from hpcddrl.commands.run import recipe_named
from hpcddrl.commands.tables import console, layout, size, table
from hpcddrl.config import Config, Topology
from hpcddrl.settings import override

if TYPE_CHECKING:
    from hpcddrl.runtime.calibration import Calibration
    from hpcddrl.runtime.plan import Job
    from hpcddrl.simulation.cost import Machine
    from hpcddrl.simulation.model import Outcome

FULL = 0.95  # share of the time from which on a part is what limits a job


def _counts(context: click.Context, parameter: click.Parameter, text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise click.BadParameter(f"{text!r}: not counts of ranks with commas between them, such as 16,256,4096")
    return counts


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--ranks", required=True, callback=_counts, metavar="N,N,…", help="Sizes of the job.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field that differs from the run's.")
@click.option("--latency-us", type=click.FloatRange(min=0), default=2.0, help="Of a message.")
@click.option("--bandwidth-gb", type=click.FloatRange(min=0, min_open=True), default=5.0, help="GB/s of a rank's link.")
@click.option("--test-us", type=click.FloatRange(min=0), default=0.5, help="One look at one posted buffer.")
@click.option("--cores-per-host", type=click.IntRange(min=1), help="That its ranks share [a core for every rank].")
@click.option("--ranks-per-host", type=click.IntRange(min=1), help="With --cores-per-host [all on one].")
@click.option("--seed", type=int, default=0, help="Of the simulation.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for simulation.json and simulation.png.")
def simulate(
    run: Path,
    ranks: list[int],
    settings: tuple[str, ...],
    latency_us: float,
    bandwidth_gb: float,
    test_us: float,
    cores_per_host: int | None,
    ranks_per_host: int | None,
    seed: int,
    out: Path | None,
) -> None:
    """Predict frames/s, lag and who is busy in a job like RUN on so many ranks, from RUN's files. Starts no MPI job.

    \b
    python -m hpcddrl simulate runs/four --ranks 16,256,4096,16384
    python -m hpcddrl simulate runs/four --ranks 256 --set topology.learners_per_group=8 --out simulated
    python -m hpcddrl simulate runs/four --ranks 64 --cores-per-host 16 --bandwidth-gb 3

    A discrete-event model of the same roles and messages. What work takes is RUN's: mean and scatter of each phase of
    each of its ranks. Network, environments and recipe stay RUN's; counts that the recipe leaves open are fitted to
    the ranks, others are RUN's or given with --set. RUN's own layout is simulated first and set beside what it did.
    """  # noqa: D301 (click wants the character itself)
    _require("simpy")
    if out is not None:
        _require("matplotlib")
    if ranks_per_host is not None and cores_per_host is None:
        raise ValueError(f"--ranks-per-host {ranks_per_host}: says nothing without --cores-per-host; give both")
    from hpcddrl.logs.measured import read_measured
    from hpcddrl.logs.run_dir import RunDirectory
    from hpcddrl.runtime.calibration import calibrate
    from hpcddrl.simulation.cost import Machine

    own, measured = RunDirectory(run).config(), read_measured(run)
    known = calibrate(_job(own, len(measured)), measured)
    machine = Machine(
        latency_s=latency_us * 1e-6,
        bandwidth=bandwidth_gb * 1e9,
        test_s=test_us * 1e-6,
        cores=cores_per_host,
        ranks_per_host=ranks_per_host or max(*ranks, len(measured)),
    )
    shown = console()
    _check(shown, run, known, machine, seed)
    opened = override(_open(own), list(settings))
    jobs = [_job(opened, count) for count in ranks]
    found = [_outcome(shown, known, job, machine, seed) for job in jobs]
    _print(shown, found, known)
    for line in notes(known.job, jobs):
        shown.print(line)
    if out is not None:
        _write(out, run, jobs, found, known, machine)
        shown.print(f"open {out / 'simulation.json'}, {out / 'simulation.png'}")


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"simulate needs the package {package}: python -m pip install -e .[simulate]")


def _open(config: Config) -> Config:
    """Return a run's configuration with the counts unset again that its recipe leaves to be fitted."""
    recipe = recipe_named(config.recipe).topology
    fixed = {f.name: getattr(config.topology, f.name) for f in dataclasses.fields(recipe)}
    fixed |= {name: None for name in fixed if getattr(recipe, name) is None}
    return dataclasses.replace(config, topology=Topology(**fixed))


def _job(config: Config, ranks: int) -> Job:
    from hpcddrl.runtime.checks import checked, fitted
    from hpcddrl.runtime.plan import job_of

    config = fitted(config, ranks)
    return job_of(config, checked(config))


def _outcome(shown: Console, known: Calibration, job: Job, machine: Machine, seed: int) -> Outcome:
    from hpcddrl.runtime.calibration import scenario
    from hpcddrl.simulation.model import simulate as simulated

    start = time.perf_counter()
    outcome = simulated(scenario(known, job, machine), seed)
    took_s = time.perf_counter() - start
    what = f"{outcome.ranks:,} ranks, {layout(job.config.topology)}"
    shown.print(f"{what}: {outcome.simulated_s:,.3g} s of the job in {took_s:.1f} s")
    return outcome


def _check(shown: Console, run: Path, known: Calibration, machine: Machine, seed: int) -> None:
    """Say how well the model tells what the run itself did."""
    predicted = _outcome(shown, known, known.job, machine, seed)
    frames = predicted.steps_per_s * known.frames_a_step
    shown.print(
        f"{run} itself: {known.frames_per_s:,.4g} frames/s measured, {frames:,.4g} simulated "
        f"({frames / known.frames_per_s - 1:+.1%}); lag {_number(known.lag)} and {_number(predicted.lag)}"
    )


def _print(shown: Console, found: list[Outcome], known: Calibration) -> None:
    from hpcddrl.comm.placement import Role

    roles = [role for role in Role if role in found[0].load]
    right = ["frames/s", "efficiency", "updates/s", "lag", *(f"{role} busy" for role in roles), "sent/s"]
    columns = {"ranks": "right", **dict.fromkeys(right, "right"), "limited by": "left"}
    made = table("Simulated", columns)
    first = found[0].steps_per_s / _stepping(found[0])
    for outcome in found:
        age = outcome.staleness if math.isnan(outcome.lag) or outcome.load.get(Role.SERVER) else outcome.lag
        made.add_row(
            f"{outcome.ranks:,}",
            f"{outcome.steps_per_s * known.frames_a_step:,.0f}",
            f"{outcome.steps_per_s / _stepping(outcome) / first:.0%}",
            f"{outcome.updates_per_s:,.1f}",
            _number(age),
            *(f"{outcome.load[role].most:.0%}" for role in roles),
            size(sum(outcome.bytes_per_s.values())),
            limit(outcome),
        )
    shown.print(made)
    shown.print("efficiency: frames/s of each rank that steps environments, beside the first row's. lag: mean age of")
    shown.print("data in updates, of gradients where servers apply them. busy: of the busiest rank of a role. limited")
    shown.print("by: what has no time left; the ranks that step environments, if nothing else.")


def notes(own: Job, jobs: list[Job]) -> list[str]:
    """Return what the run could not tell of some jobs, and what is taken instead."""
    found = []
    if own.learners == 1 and any(job.learners > 1 and job.config.update.kind == "allreduce" for job in jobs):
        found.append(
            "allreduce: the run had one learner a group, so it takes what its ring takes on the links, no more."
        )
    if any(job.peers != own.peers for job in jobs):
        found.append("peers: another number than in the run; a forward pass is taken as a third of a gradient.")
    return found


def _stepping(outcome: Outcome) -> int:
    """Return how many ranks step environments."""
    from hpcddrl.comm.placement import Role

    return outcome.load[Role.ACTOR if Role.ACTOR in outcome.load else Role.LEARNER].ranks


def limit(outcome: Outcome) -> str:
    """Return what keeps a job from being faster."""
    from hpcddrl.comm.placement import Role

    stepping = Role.ACTOR if Role.ACTOR in outcome.load else Role.LEARNER
    loads = {f"{role}": load.most for role, load in outcome.load.items() if role is not stepping}
    loads |= {f"link of a {role}": load.wire for role, load in outcome.load.items()}
    busiest = max(loads, key=lambda name: loads[name])
    return busiest if loads[busiest] >= FULL else f"{stepping}s"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.1f}"


def _write(out: Path, run: Path, jobs: list[Job], found: list[Outcome], known: Calibration, machine: Machine) -> None:
    """Write the numbers and the picture."""
    from hpcddrl.simulation.picture import draw

    frames = [outcome.steps_per_s * known.frames_a_step for outcome in found]
    rows = [
        _plain({"topology": dataclasses.asdict(job.config.topology), "frames_per_s": rate, **outcome._asdict()})
        for job, outcome, rate in zip(jobs, found, frames, strict=True)
    ]
    data = {"run": str(run), "machine": machine._asdict(), "measured_frames_per_s": known.frames_per_s, "jobs": rows}
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "simulation.json").write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
        draw(out / "simulation.png", f"{known.job.config.recipe}, simulated from {run}", found, frames)
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be written: {error.strerror}; choose another") from error


def _plain(value: Any) -> Any:
    """Return data as JSON has them: names as text, no NaN."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    return None if isinstance(value, float) and math.isnan(value) else value
