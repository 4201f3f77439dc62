"""``export``: what comes out of a run, in a file that stands by itself."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--what",
    required=True,
    type=click.Choice(["ensemble", "distilled", "best"]),
    help="All groups as one network; one network that has learned from that; or the group that plays best.",
)
@click.option("--out", type=click.Path(path_type=Path), help="File to write [RUN/exports/<what>.pt2].")
@click.option("--onnx", is_flag=True, help="Write ONNX beside it (needs hpcddrl[export]).")
@click.option("--episodes", default=30, type=click.IntRange(min=1), help="Full games by which networks are scored.")
@click.option("--updates", default=500, type=click.IntRange(min=1), help="Of the distilled network.")
@click.option("--seed", default=2_000_000_000, type=int, help="First seed of the environments.")
def export(run: Path, what: str, out: Path | None, onnx: bool, episodes: int, updates: int, seed: int) -> None:
    """Write a network of RUN that plain torch and `evaluate` can load, and print its score and size beside the groups'.

    \b
    python -m hpcddrl export runs/… --what ensemble
    python -m hpcddrl evaluate runs/…/exports/ensemble.pt2
    python -c 'import torch; policy, value = torch.export.load("ensemble.pt2").module()(observations)'

    Observations are as the environment shows them, stacked; `policy` holds logits, or means and log deviations.
    """  # noqa: D301 (click wants the character itself)
    from hpcddrl.logs.run_dir import RunDirectory
    from hpcddrl.runtime.outcome import outcome, write_outcome

    path = out or run / "exports" / f"{what}.pt2"
    if path.exists():
        raise ValueError(f"--out {path}: exists; choose another")
    found = outcome(RunDirectory(run), what, episodes, updates, seed)
    for line in (*found.others, found.chosen):
        click.echo(f"{line.name}: return {line.mean:.2f} [{line.low:.2f}, {line.high:.2f}], {line.weights:,} weights")
    for written in write_outcome(found, what, path, onnx):
        click.echo(f"written to {written}, {written.stat().st_size:,} bytes")
