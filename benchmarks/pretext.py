"""What pretext tasks see of Pong's ball and paddles, a few pixels among 7,056, after equal steps.

    make bench-pretext                                         # all tasks, three seeds each; what has a row is not run
    make bench-pretext ARGS="--tasks even,motion --seeds 1"
    make bench-pretext ARGS=--missing                          # what there is no row for

Each task trains the convolutions of A3C's network and its own weights on moments of random play, and is asked about
moments of games that it never saw. Where things are is read from the RAM of an emulator that is stepped with the same
actions. Rows go to pretext.csv as they are measured; rows of the same code (git's tree of hpcddrl/), machine and
setting are skipped. pretext.md is drawn from the rows, pretext.png from what the first seed's networks made last.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.flow import Task, absent, carry_out, committed, parser_for, settled
from benchmarks.pong import THINGS, Seen, seen
from benchmarks.rows import ROOT, Row, add_row, code_key, machine, markdown_table, read_rows
from hpcddrl.config import ActorCritic, Env, Network
from hpcddrl.config.helpers import Autoencoder, ObjectProposals, Pretext, PretextTask, Segmentation
from hpcddrl.envs.make import probe
from hpcddrl.networks.make import make_network
from hpcddrl.pretext.decoding import convolutions
from hpcddrl.pretext.motion import error_inside
from hpcddrl.pretext.pictures import marked, write_png
from hpcddrl.pretext.tasks import Solved, Views, overlap
from hpcddrl.runtime.pretext import task_for

TASKS: dict[str, PretextTask] = {
    "even": Autoencoder(weighting="even"),
    "motion": Autoencoder(weighting="motion"),
    "attention": Autoencoder(weighting="attention"),
    "segmentation": Segmentation(),
    "points": ObjectProposals(),
}
KEY = ("code", "machine", "task", "seed", "steps")
MEASURED = ("error", "error_boxes", *(f"error_{thing.replace(' ', '_')}" for thing in THINGS), "overlap")
MEASURED += (*(f"distance_{thing.replace(' ', '_')}" for thing in THINGS), "distance_elsewhere", "seconds")
COLUMNS = (*KEY, *MEASURED, "load", "date")
TRAINED, ASKED = 3000, 500  # moments
EXPECTED_S = 240.0  # of a task, until one was measured
SHOWN = 8  # moments in the picture
WANTED = 3.0  # times that motion weights are to be better
LEGEND = f"""\
# What pretext tasks see of Pong

`make bench-pretext` wrote this from pretext.csv. Autoencoders make the newest frame again with their errors weighed
evenly, by what moves, or by a learned mask; `error` is the mean squared error of pixels in [0, 1] over whole frames,
the others inside the boxes that the emulator's RAM gives, over {ASKED} moments of unseen games. `overlap` is the
intersection over union of the segments with the boxes of all three things. Distances are in pixels of 84 from a thing's
middle to the nearest of the points that were found, `elsewhere` from all things to points found in other moments.
Numbers are means over seeds, with the least and the greatest."""


class Trained(NamedTuple):
    """A task after its steps, asked about moments it never saw."""

    solved: Solved
    boxes: Tensor  # [N, THINGS, H, W] bool, of the frame that it was asked for


@cache
def moments(count: int, seed: int) -> Seen:
    """Return moments of Pong; tasks share them. They are of several games."""
    games = [seen(250, 1000 * seed + game) for game in range(-(-count // 250))]
    return Seen(*(torch.cat(parts)[:count] for parts in zip(*games, strict=True)))


def train(config: PretextTask, seed: int, steps: int) -> Trained:
    """Train a task beside nothing else; the steps of all tasks see the same moments."""
    pretext, spec = Pretext(), probe(Env(frame_stack=4))
    torch.manual_seed(seed)
    network = make_network(Network(torso="nips"), ActorCritic(), spec, seed)
    body, task = convolutions(network.torso), task_for(config, network, spec)
    optimizer = torch.optim.Adam([*body.parameters(), *task.parameters()], lr=pretext.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    data = moments(TRAINED, 1)
    for _ in range(steps):
        rows = torch.randint(len(data.action), (pretext.observations,), generator=generator)
        optimizer.zero_grad()
        task(body, Views(data.observation[rows], data.action[rows], data.later[rows])).loss.backward()
        optimizer.step()
    return ask(task, body, config, moments(ASKED, 2))


@torch.no_grad()
def ask(task: nn.Module, body: nn.Module, config: PretextTask, data: Seen) -> Trained:
    """Return what a task makes of moments."""
    solved = task(body, Views(data.observation, data.action, data.later))
    return Trained(solved, data.later_boxes if config.kind == "object_proposals" else data.boxes)


def measures(config: PretextTask, trained: Trained) -> dict[str, float]:
    """Return what a task's answers are worth."""
    solved, boxes = trained
    anything = boxes.any(dim=1, keepdim=True)
    found: dict[str, float] = {}
    if isinstance(config, Autoencoder):
        made, frame = solved.pictures["made"], solved.pictures["frame"]
        found["error"] = float(((made - frame) ** 2).mean())
        found["error_boxes"] = float(error_inside(made, frame, anything))
        for number, thing in enumerate(THINGS):
            inside = error_inside(made, frame, boxes[:, number : number + 1])
            found[f"error_{thing.replace(' ', '_')}"] = float(inside)
    elif isinstance(config, Segmentation):
        found["overlap"] = overlap(figure(solved), anything)
    elif solved.points is not None:
        for number, thing in enumerate(THINGS):
            found[f"distance_{thing.replace(' ', '_')}"] = distance(solved.points, boxes[:, number])
        others = solved.points.roll(len(boxes) // 2, dims=0)
        found["distance_elsewhere"] = float(np.mean([distance(others, boxes[:, i]) for i in range(len(THINGS))]))
    return found


def figure(solved: Solved) -> Tensor:
    """Return the pixels [N, 1, H, W] that are figure more likely than not, without the balance of the loss."""
    share, balanced = solved.pictures["moved"].mean().clamp(1e-6, 1 - 1e-6), solved.pictures["figure"]
    return balanced / (1 - balanced) > (1 - share) / share


def distance(points: Tensor, box: Tensor) -> float:
    """Return the mean distance in pixels from boxes' [N, H, W] middles to the nearest of the points [N, P, 2]."""
    nearest = [
        float((found - pixels.nonzero().float().mean(0)).norm(dim=1).min())
        for found, pixels in zip(points, box, strict=True)
        if pixels.any()
    ]
    return float(np.mean(nearest))


def strip(config: PretextTask, trained: Trained) -> Tensor:
    """Return what a task made of some moments, to look at, [SHOWN, 3, H, W]."""
    pictures = trained.solved.pictures
    if isinstance(config, Autoencoder):
        return pictures["made"][:SHOWN].expand(-1, 3, -1, -1)
    if isinstance(config, Segmentation):
        return figure(trained.solved)[:SHOWN].float().expand(-1, 3, -1, -1)
    assert trained.solved.points is not None
    return marked(pictures["frame"][:SHOWN], trained.solved.points[:SHOWN])


def measured(path: Path, name: str, seed: int, steps: int) -> str:
    """Train a task, write its row, the table and the picture; return what came out."""
    load, began = os.getloadavg()[0], time.perf_counter()
    config = TASKS[name]
    trained = train(config, seed, steps)
    found = measures(config, trained)
    row = dict.fromkeys(COLUMNS, "") | key_of(name, seed, steps, code_key())
    row |= {what: f"{value:.5g}" for what, value in found.items()}
    row |= {"seconds": f"{time.perf_counter() - began:.0f}", "load": f"{load:.1f}", "date": time.strftime("%Y-%m-%d")}
    rows = add_row(path, COLUMNS, row)
    draw(path, name, trained, first=seed == 1)
    path.with_suffix(".md").write_text(document(rows, path))
    return ", ".join(f"{what} {value:.4g}" for what, value in found.items())


def draw(path: Path, name: str, trained: Trained, first: bool) -> None:
    """Keep what the first seed's task made, and draw all of that which is there, a row a task."""
    folder = ROOT / "runs" / "bench-pretext"
    folder.mkdir(parents=True, exist_ok=True)
    if first:
        torch.save(strip(TASKS[name], trained), folder / f"{name}.pt")
    rows = {"frame": moments(ASKED, 2).observation[:SHOWN, -1:].float() / 255}
    rows |= {task: torch.load(folder / f"{task}.pt") for task in TASKS if (folder / f"{task}.pt").exists()}
    write_png(path.with_suffix(".png"), list(rows.values()), list(rows))


def document(rows: Iterable[Row], path: Path) -> str:
    """Return the whole Markdown text: a section a machine and number of steps, each task's newest rows."""
    newest = {tuple(row[k] for k in KEY if k != "code"): row for row in rows}
    lines = LEGEND.splitlines()
    for host, steps in dict.fromkeys((row["machine"], row["steps"]) for row in newest.values()):
        section = [row for row in newest.values() if (row["machine"], row["steps"]) == (host, steps)]
        lines += ["", f"## {steps} steps, {host}", "", *table(section), "", *verdict(section)]
    if path.with_suffix(".png").exists():
        shown = ["the newest frame (points: four steps later)", *TASKS]
        lines += [
            "",
            f"![What the tasks made]({path.with_suffix('.png').name})",
            "",
            f"From above: {', '.join(shown)}.",
        ]
    return "\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """Return a table with a line a task."""
    names = [what for what in MEASURED if any(row[what] for row in rows)]
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        lines.append([task, str(len(own)), *(_spread([float(r[what]) for r in own if r[what]]) for what in names)])
    return markdown_table(["task", "seeds", *(name.replace("_", " ") for name in names)], lines)


def verdict(rows: Sequence[Row]) -> list[str]:
    """Return how many times better motion weights see the things than even ones, seed by seed."""
    by_task = {task: {row["seed"]: row for row in rows if row["task"] == task} for task in ("even", "motion")}
    lines = []
    for seed in sorted(by_task["even"].keys() & by_task["motion"].keys(), key=int):
        even, motion = by_task["even"][seed], by_task["motion"][seed]
        ratios = [
            float(even[f"error_{what}"]) / float(motion[f"error_{what}"])
            for what in ("boxes", *(thing.replace(" ", "_") for thing in THINGS))
        ]
        told = ", ".join(f"{what} {r:.1f}" for what, r in zip(("all", *THINGS), ratios, strict=True))
        holds = f"{WANTED:g} times or more" if ratios[0] >= WANTED else f"less than {WANTED:g} times"
        lines.append(f"- seed {seed}: motion weights see {holds} better ({told})")
    return lines


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{np.mean(values):.3g}" + (f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else "")


def key_of(name: str, seed: int, steps: int, code: str) -> Row:
    """Return what tells a row from others."""
    return dict(zip(KEY, (code, machine(), name, str(seed), str(steps)), strict=True))


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for("pretext", __doc__)
    parser.add_argument("--tasks", default=",".join(TASKS), metavar="A,B", help=f"default: {','.join(TASKS)}")
    parser.add_argument("--seeds", default="1,2,3", metavar="1,2", help="default: 1,2,3")
    parser.add_argument("--steps", type=int, default=2000, help="of each task (default: 2000)")
    given = parser.parse_args(arguments)
    given.tasks = [name for name in given.tasks.split(",") if name]
    if unknown := [name for name in given.tasks if name not in TASKS]:
        parser.error(f"--tasks: no {', '.join(unknown)}; there are {', '.join(TASKS)}")
    try:
        given.seeds = [int(seed) for seed in given.seeds.split(",") if seed]
    except ValueError as wrong:
        parser.error(f"--seeds: {wrong}")
    if given.steps < 1:
        parser.error("--steps: 1 or more")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write it down."""
    given = options(arguments)
    path, code = given.into / "pretext.csv", committed()
    wanted = [(name, seed) for seed in given.seeds for name in given.tasks]
    rows = read_rows(path)
    missing = absent(rows, {(n, s): key_of(n, s, given.steps, code) for n, s in wanted}, given.dirty)
    took = [float(row["seconds"]) / float(row["steps"]) for row in rows]
    expected = float(np.median(took)) * given.steps if took else EXPECTED_S
    tasks = [Task(f"{n}, seed {s}", expected, partial(measured, path, n, s, given.steps)) for n, s in missing]
    if (exit_code := settled(given, len(wanted), [task.name for task in tasks], tasks)) is not None:
        return exit_code
    return carry_out(tasks, given.dirty)


if __name__ == "__main__":
    sys.exit(main())
