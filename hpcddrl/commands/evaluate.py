"""``evaluate``: play a run's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hpcddrl.runtime.evaluation import Player, Protocol, Score

EMULATOR_HZ = 60  # frames a second of an Atari
OTHER_HZ = 10  # steps a second of what has no pace of its own


@click.command(context_settings={"show_default": True})
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--episodes", default=30, type=click.IntRange(min=1), help="Full games to play for each checkpoint.")
@click.option("--sampled", is_flag=True, help="Draw actions from the policy instead of taking the likeliest.")
@click.option("--seed", default=2_000_000_000, type=int, help="First seed of the environments; far from training's.")
@click.option(
    "--sticky-actions", type=click.FloatRange(0, 1), help="Chance that an Atari action is ignored [as in the run]."
)
@click.option("--noop-max", type=click.IntRange(min=0), help="Most no-ops at an Atari game's start [as in the run].")
@click.option("--video", type=click.Path(path_type=Path), help="Folder for GIFs of each one's best and worst game.")
def evaluate(
    run: Path,
    episodes: int,
    sampled: bool,
    seed: int,
    sticky_actions: float | None,
    noop_max: int | None,
    video: Path | None,
) -> None:
    """Play the newest checkpoint of every group of RUN, without learning; print mean returns with 95 % intervals.

    \b
    python -m hpcddrl evaluate runs/one --episodes 100 --sticky-actions 0.25
    python -m hpcddrl evaluate runs/one --sampled --video films
    mpirun -n 8 python -m hpcddrl evaluate runs/one --episodes 200

    The same arguments give the same scores, on any number of ranks. RUN may also be a file that `export` has written.
    Of a run on several environments the first is played. Intervals are bootstrapped over episodes. On Atari, 0 % is
    random play and 100 % a human, after Wang et al. 2016; a GIF shows what the policy sees.
    """  # noqa: D301 (click wants the character itself)
    import torch

    from hpcddrl.runtime.evaluation import Protocol, scores_of

    torch.set_num_threads(1)  # ranks share the cores, and how sums are split would show in their last digit
    protocol = Protocol(episodes, not sampled, seed, sticky_actions, noop_max)
    players = _players(run)
    game = protocol.applied(players[0].config).env
    if video is not None:
        _check_video(players[0])
    scores = scores_of(players, protocol)
    if scores is None:  # a rank that has only helped
        return
    for name, score in scores.items():
        click.echo(_line(name, score, game.id))
    click.echo(_about(protocol, players[0]))
    if run.is_dir():
        path = run / "evaluation.json"
        kept = {name: _kept(score, game.id, protocol) for name, score in scores.items()}
        path.write_text(json.dumps(kept, indent=2) + "\n")
        click.echo(f"written to {path}")
    if video is not None:
        for player in players:
            _film(video, player, scores[player.name], protocol)


def _players(run: Path) -> list[Player]:
    """Return who is to play: each group of a run, or what a file holds."""
    from hpcddrl.runtime.evaluation import Player, players_of

    if run.is_file():
        from hpcddrl.runtime.export import policy_of, read

        config, network = read(run)
        return [Player(run.name, 0, 0, config, network, policy_of(config))]
    from hpcddrl.logs.run_dir import RunDirectory

    return players_of(RunDirectory(run))


def _line(name: str, score: Score, env: str) -> str:
    """Write a score in a line."""
    from hpcddrl.envs.references import human_normalised

    which = f" version {score.version} ({score.frames:,} frames)" if score.version else ""
    low, high = score.interval
    text = f"{name}{which}: return {score.mean:.2f} [{low:.2f}, {high:.2f}]"
    parts = [human_normalised(env, value) for value in (score.mean, low, high)]
    return text + "".join(f", {m:.1%} of human [{a:.1%}, {b:.1%}]" for m, a, b in (parts,) if m is not None)


def _about(protocol: Protocol, player: Player) -> str:
    """Write how it was played, and what a human's score is from."""
    from hpcddrl.envs.references import SOURCE, human_normalised

    env = protocol.applied(player.config).env
    atari = env.id.startswith("ALE/")
    starts = f", at most {env.noop_max} no-ops, sticky actions {env.sticky_actions:g}" if atari else ""
    human = f"; human: {SOURCE}, without sticky actions" if human_normalised(env.id, 0.0) is not None else ""
    acting = "greedy" if protocol.greedy else "sampled"
    return f"over {protocol.episodes} episodes of {env.id}, {acting}, seeds from {protocol.seed}{starts}{human}"


def _kept(score: Score, env: str, protocol: Protocol) -> dict[str, Any]:
    """Return what evaluation.json says of one network."""
    from hpcddrl.envs.references import human_normalised

    low, high = score.interval
    return {
        **score._asdict(),
        "mean": score.mean,
        "interval": [low, high],
        "human_normalised": human_normalised(env, score.mean),
        "env": env,
        "protocol": protocol._asdict(),
    }


def _check_video(player: Player) -> None:
    """Complain before anything is played.

    Raises:
        ValueError: there is nothing to film, or no package to do it with.
    """
    from hpcddrl.envs.make import probe

    try:
        from hpcddrl.runtime.film import check_filmable
    except ModuleNotFoundError as error:
        raise ValueError(f"--video: {error}; python -m pip install 'hpcddrl[video]'") from error
    check_filmable(probe(player.config.env), player.config.env.id)


def _film(folder: Path, player: Player, score: Score, protocol: Protocol) -> None:
    """Write a player's best and worst game."""
    from hpcddrl.envs.make import probe
    from hpcddrl.runtime.evaluation import episode_of
    from hpcddrl.runtime.film import write_gif

    spec = probe(player.config.env)
    pace = EMULATOR_HZ / spec.frame_skip if player.config.env.id.startswith("ALE/") else OTHER_HZ
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, best in (("best", max), ("worst", min)):
            index = best(range(len(score.returns)), key=score.returns.__getitem__)
            path = folder / f"{player.name}-{name}.gif"
            steps = write_gif(path, episode_of(player, index, protocol), spec, pace)
            click.echo(f"written to {path}: return {score.returns[index]:g}, {steps:,} steps")
    except OSError as error:
        raise ValueError(f"--video {folder}: cannot be written: {error.strerror}; choose another") from error
