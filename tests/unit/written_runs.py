"""Small runs whose every number is known, written through the project's own log classes."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hpcddrl.comm.placement import Role, fit, place
from hpcddrl.config import Config, Env
from hpcddrl.logs.rank_log import RankLog
from hpcddrl.logs.run_dir import RunDirectory, rank_attributes
from hpcddrl.logs.timing import Phase
from hpcddrl.recipes import RECIPES

CATCH = "hpcddrl/Catch-v0"
SHARES = {  # of each role's seconds
    Role.SERVER: {Phase.UPDATE: 0.3, Phase.WAIT: 0.7},
    Role.LEARNER: {Phase.GRADIENT: 0.6, Phase.WAIT: 0.4},
    Role.REPLAY: {Phase.BATCH: 0.95, Phase.WAIT: 0.05},
    Role.ACTOR: {Phase.ENV: 0.5, Phase.ACT: 0.3, Phase.WAIT: 0.2},
}
STEPS = 100  # env steps that an actor makes a second; the frames of Catch are its steps
_attributes = {}  # asking git takes a while


def config_of(recipe="impala", ranks=3, env=CATCH, **changes) -> Config:
    """Return a recipe fitted to so many ranks."""
    config = replace(RECIPES[recipe](), env=Env(id=env, num_envs=4), **changes)
    return replace(config, topology=fit(config.topology, ranks))


def write_run(
    path, config=None, rows=10, frames_before=0.0, returns=float, end=True, stages=(), evaluated=None, **attributes
):
    """Write a segment of so many rows, one a second; the episode that ends in second t has the return returns(t).

    Games that began then beside the training have the mean return evaluated(t), give or take 1.
    All ranks enter the ``stages``; rank 0 has the reason.
    """
    config = config or config_of()
    run, places = RunDirectory(path), place(config.topology)
    if not path.exists():
        run.create(config)
    segment = run.start_segment(len(places))
    for rank, where in enumerate(places):
        log = RankLog(
            run.rank_file(segment, rank),
            attributes_of(config)
            | {"role": str(where.role), "group": -1 if where.group is None else where.group, "world_rank": rank}
            | {"world_size": len(places), "env": config.env.id if where.role is Role.ACTOR else ""}
            | {"frames_before": frames_before, "started": datetime.now(UTC).isoformat(), "git_dirty": False}
            | attributes,
        )
        for t in range(1, rows + 1):
            _row(log, where, t, returns)
            if where.role is Role.LEARNER and config.compression.kind != "uncompressed":
                log.append("compression", {"version": 5 * t, "kl_before": 0.2, "kl_after": 0.1, "bytes": 5000})
            if where.role is Role.LEARNER and evaluated is not None:
                mean, of = evaluated(t), {"time": t, "version": 5 * t, "frames": STEPS * t, "episodes": 10}
                log.append(
                    "evaluation", of | {"return": mean, "low": mean - 1, "high": mean + 1, "seconds": 2, "cpu": 1}
                )
        for stage in stages:
            log.append("stages", {name: x for name, x in stage.items() if name != "reason" or rank == 0})
        log.flush()
    if end:
        ended = datetime.now(UTC) + timedelta(seconds=2)
        run.write_summary({"ended": f"{ended:%Y-%m-%dT%H:%M:%SZ}", "exit_reason": "seconds"})
    return path


def attributes_of(config):
    """Return a rank's attributes but for its place, asking git once."""
    if not _attributes:
        _attributes.update(rank_attributes(config))
    return _attributes | {"recipe": config.recipe, "config": json.dumps(_dumped(config))}


def _dumped(config):
    from hpcddrl.settings import dump

    return dump(config)


def _row(log, where, t, returns):
    shares, acts, learns = SHARES[where.role], where.role is Role.ACTOR, where.role is Role.LEARNER
    log.append("timing", {str(p): shares.get(p, 0.0) for p in Phase} | {"wall": 1.0, "cpu": 1.0 - shares[Phase.WAIT]})
    log.append("waiting", {"cpu": 0.0})
    counts = dict.fromkeys(("predictions", "trained", "produced", "used", "dropped", "pending", "updates"), 0.0)
    counts |= {"produced": STEPS * t, "used": STEPS * t, "predictions": STEPS * t} if acts else {}
    counts |= {"trained": 50 * t, "updates": 5 * t} if learns else {}
    counts |= {"updates": 10 * t} if where.role is Role.SERVER else {}
    steps = STEPS * t if acts else 0.0
    log.append(
        "progress", counts | {"time": t, "frames": steps, "env_steps": steps, "episodes": t * acts, "rss": 1e8 + t}
    )
    if acts and returns is not None:
        log.append("episodes", {"frames": steps, "return": returns(t), "length": 10})
    if acts:
        log.append("traffic/rollout", {"messages": 2 * t, "bytes": 2000 * t})
    if learns:
        row = {"time": t, "loss": 1 / t, "entropy": 1.0, "lag_min": 0, "lag_mean": 2, "lag_max": 4, "rho_clipped": 0.1}
        log.append("learning", row)
        log.append("traffic/weights", {"messages": t, "bytes": 4000 * t})
        met = {"divergence": 0.5 / t, "disagreement": 0.2, "kl": 0.1 / t}
        log.append("exchange", {"version": 5 * t, "peers": 1, "age": 3.0, "skipped": 0} | met)
        for member, weight in ((where.group, 0.25), (where.group + 1, 0.75)):
            log.append("peers", {"version": 5 * t, "group": member, "weight": weight})
    if where.role is Role.SERVER:
        log.append("learning", {"time": t, "refused_stale": 0, "refused_loss": 0})
        for age, count in ((0, 1), (2, 3)):
            log.append("staleness", {"staleness": age, "count": count, "time": t})
