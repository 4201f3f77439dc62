"""The rules behind the findings: each looks at one run and says what is wrong or wasteful, why, and what to change.

Shares are of wall time, all ranks of a role together.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hpcddrl.commands.reporting.evidence import Evidence, Finding
from hpcddrl.figures.ages import mean_staleness

IDLE = 0.30  # share of waiting from which a role is starved
SATURATED = 0.10  # … below which a role that others depend on is never idle
CONTENDED = 0.75  # processor seconds that a computing rank gets a second, from which cores are short
BUSY_WAITING = 0.30  # processor seconds a second of waiting
COMPUTING = ("env", "act", "collect", "batch", "gradient", "update")  # phases that need a processor all the time
LOGGING, CHECKPOINTS = 0.03, 0.05  # shares of wall time
DROPPED = 0.05  # of the samples produced
REFUSED = 0.10  # of the gradients
SKIPPED = 0.20  # of the exchanges
LAG = 10.0  # updates, from which a correction has much to correct
SLOW = 0.7  # of the median rank of its role
TINY = 1e-3  # nat, of entropy


def _reading(e: Evidence) -> Iterator[Finding]:
    """What could not be read, and runs that did not end."""
    problems = [problem.text for problem in e.run.problems]
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        yield Finding(
            "problem",
            f"{len(problems)} part{'s' if len(problems) > 1 else ''} of the run could not be read",
            "; ".join(problems[:5]) + more,
            "sums over ranks lack these ranks. A file that is cut off was copied incompletely or is on a full disk: "
            "copy it again",
        )
    state = e.run.runs["state"].iloc[0]
    if state == "cut off":
        yield Finding(
            "warning",
            "the run was cut off",
            "there is no summary of its last segment, and its files are silent",
            f"go on from its newest checkpoint: run --resume {e.run.runs['path'].iloc[0]}",
        )
    if state == "running":
        yield Finding("note", "the run is still going on", "its files are being written", "make the report again later")


def _learning(e: Evidence) -> Iterator[Finding]:
    """Whether there is anything to learn from, and whether numbers went wrong."""
    learning = e.table("learning", "learner")
    if not len(e.table("episodes")):
        yield Finding(
            "problem",
            "no episode has finished",
            f"{e.final('env_steps'):,.0f} env steps of {e.final('episodes'):.0f} episodes: there is no return to show",
            "run longer, or limit the length of episodes (env.options)",
        )
    if not e.final("updates"):
        yield Finding(
            "problem",
            "no update was made",
            f"{e.final('trained'):,.0f} samples were learned from",
            "run longer; with a replay, set experience.learning_starts lower",
        )
    losses = learning["loss"]  # each row is of an interval with updates
    if not np.isfinite(losses).all():
        yield Finding(
            "problem",
            "the loss is not finite",
            f"in {np.count_nonzero(~np.isfinite(losses))} of {len(losses)} intervals",
            "set optimization.learning_rate lower, or optimization.max_gradient_norm",
        )
    entropy = learning["entropy"].dropna()
    if len(entropy) and entropy.iloc[-1] < TINY:
        yield Finding(
            "warning",
            "the policy hardly explores any more",
            f"its entropy fell from {entropy.iloc[0]:.3g} to {entropy.iloc[-1]:.2g} nat",
            "if the return is low still, set algorithm.entropy_coefficient higher",
        )


def _waiting(e: Evidence) -> Iterator[Finding]:
    """Who waits for whom."""
    learner, actor = e.wait("learner"), e.wait("actor")
    numbers = ", ".join(f"{role}s wait {e.wait(role):.0%} of the time" for role in e.shares.index)
    actors = e.field("topology.actors_per_group", 0)
    if learner > IDLE and actor > IDLE:
        yield Finding(
            "warning",
            "learners and actors wait for each other",
            numbers,
            "neither is the bottleneck: messages, lockstep or short cores are. Set env.num_envs higher (now "
            f"{e.field('env.num_envs')}) so that there is more to do between two messages, and see below for cores",
        )
    elif learner > IDLE and actors:
        yield Finding(
            "warning",
            "the learner is starved",
            numbers,
            f"give each learner more actors (topology.actors_per_group, now {actors}) or more environments "
            f"(env.num_envs, now {e.field('env.num_envs')})",
        )
    elif learner > IDLE and "server" in e.shares.index:
        yield Finding(
            "warning",
            "learners wait for the servers",
            numbers,
            f"add shards (topology.servers, now {e.field('topology.servers')}), use fewer learners, or learn from "
            "longer rollouts so that gradients come less often",
        )
    elif actor > IDLE:
        yield Finding(
            "warning",
            "actors wait for the learner",
            numbers,
            f"use fewer actors (topology.actors_per_group, now {actors}) and more groups, more learners a group "
            "(topology.learners_per_group with update=allreduce), a smaller network, or precision=bf16",
        )


def _saturated(e: Evidence) -> Iterator[Finding]:
    """Replays and servers that are never idle, so that everybody else is held up."""
    for role, remedy in {
        "replay": "add replay ranks (topology.replays_per_group)",
        "server": "add shards (topology.servers), or learn from larger batches so that gradients come less often",
    }.items():
        if e.wait(role) < SATURATED:
            others = ", ".join(f"{other}s {e.wait(other):.0%}" for other in e.shares.index if other != role)
            title = f"the {role} rank{'s are' if e.table('timing', role)['rank'].nunique() > 1 else ' is'} saturated"
            yield Finding("warning", title, f"waits only {e.wait(role):.0%} of the time; {others}", remedy)


def _cores(e: Evidence) -> Iterator[Finding]:
    """Ranks that were ready to compute and had no core, and waiting that burns one."""
    ranks = e.run.ranks[["segment", "rank", "host"]]
    timing = e.table("timing").merge(ranks, on=["segment", "rank"])
    waits = e.table("waiting").groupby(["segment", "rank"])["cpu"].sum().rename("cpu_waiting")
    sums = timing.groupby(["host", "segment", "rank"])[[*COMPUTING, "cpu", "wait"]].sum().join(waits)
    for host, own in sums.groupby("host"):
        wanted, got = own[list(COMPUTING)].to_numpy().sum(), (own["cpu"] - own["cpu_waiting"]).sum()
        if wanted > 0 and got < CONTENDED * wanted:
            yield Finding(
                "warning",
                f"cores are short on host {host}",
                f"{own.index.get_level_values('rank').nunique()} ranks computed for {wanted:,.0f} s and got "
                f"{got:,.0f} s of processor time ({got / wanted:.0%})",
                "start fewer ranks on a host than it has cores, look for other programs there, or for ranks bound to "
                "the same core (mpirun --report-bindings)",
            )
    idle, burnt = sums["wait"].sum(), sums["cpu_waiting"].sum()
    if idle > 0 and burnt > BUSY_WAITING * idle:
        yield Finding(
            "note",
            "waiting burns processor time",
            f"{burnt:,.0f} s in {idle:,.0f} s of waiting ({burnt / idle:.0%})",
            "others on the same cores lose that time; look whether the MPI library spins (Open MPI: "
            "mpi_yield_when_idle=1)",
        )


def _ages(e: Evidence) -> Iterator[Finding]:
    """Data or gradients older than what is done about it can bear."""
    lags = e.table("learning", "learner")["lag_mean"].dropna()
    correction, clipped = e.field("algorithm.correction"), e.table("learning", "learner")["rho_clipped"].mean()
    if len(lags) and correction == "none" and lags.mean() > 0.5:
        yield Finding(
            "problem",
            "data are older than the weights, and nothing corrects for it",
            f"lag {lags.mean():.2g} updates in the mean, algorithm.correction = none",
            "set algorithm.correction=vtrace, or act in lockstep (acting=central, acting.minimum=all)",
        )
    elif len(lags) and correction is not None and lags.mean() > LAG:
        share = f"; {clipped:.0%} of the importance ratios were clipped" if np.isfinite(clipped) else ""
        yield Finding(
            "warning",
            f"lag over {LAG:g} updates",
            f"{lags.mean():.3g} in the mean, {e.table('learning', 'learner')['lag_max'].max():.0f} at most{share}",
            "use fewer actors a learner, larger batches (algorithm.rollouts_per_batch) or a shorter "
            "algorithm.unroll_length",
        )
    staleness = mean_staleness(e.table("staleness"))
    learners = e.table("progress", "learner")["rank"].nunique()
    if staleness > learners:
        yield Finding(
            "warning",
            "gradients are staler than there are learners",
            f"{staleness:.3g} updates in the mean, {learners} learners",
            "some learner is far slower than the others; compensate (update.compensation) or bound it "
            "(update.max_staleness)",
        )


def _lost(e: Evidence) -> Iterator[Finding]:
    """Samples, gradients and exchanges that came to nothing."""
    produced, dropped = e.final("produced"), e.final("dropped")
    if produced and dropped > DROPPED * produced:
        replay = e.field("experience.kind") == "replay"
        yield Finding(
            "warning",
            f"{dropped / produced:.0%} of the samples were never learned from",
            f"{dropped:,.0f} of {produced:,.0f} produced",
            "set experience.replay_ratio or experience.capacity higher, or use fewer actors"
            if replay
            else "the run was short for its batches, or there are more actors than the learner needs",
        )
    servers = e.table("learning", "server")
    refused = servers.groupby(["segment", "rank"])[["refused_stale", "refused_loss"]].max().sum()
    applied, gone = float(e.table("staleness")["count"].sum()), float(refused.sum())
    if gone > REFUSED * (applied + gone):
        yield Finding(
            "warning",
            f"servers refused {gone / (applied + gone):.0%} of the gradients",
            f"{refused['refused_stale']:,.0f} for their age, {refused['refused_loss']:,.0f} for their loss, and "
            f"applied {applied:,.0f}",
            "set update.max_staleness or update.max_loss_deviations higher, or use fewer learners",
        )
    exchange = e.table("exchange")
    leaders = exchange[exchange["rank"] == exchange.groupby(["segment", "group"])["rank"].transform("min")]
    skipped = float(leaders.groupby(["segment", "rank"])["skipped"].max().sum())
    sent = len(leaders) * max(0, int(e.field("topology.groups", 1)) - 1)
    if sent and skipped > SKIPPED * sent:
        often = "stages.late.apart_updates" if e.field("coupling.exchange_every") is None else "coupling.exchange_every"
        yield Finding(
            "warning",
            f"{skipped / sent:.0%} of the exchanges between groups were passed over",
            f"{skipped:,.0f} of {sent:,.0f}: a group had not taken the one before",
            f"set {often} higher (now {e.field(often)})",
        )


def _writing(e: Evidence) -> Iterator[Finding]:
    """Time that went into files."""
    for phase, most, remedy in (
        ("log", LOGGING, f"set logging.interval_s higher (now {e.field('logging.interval_s')} s)"),
        ("checkpoint", CHECKPOINTS, "set logging.checkpoint_interval_s higher"),
    ):
        heavy = e.shares[phase][e.shares[phase] > most]
        if len(heavy):
            numbers = ", ".join(f"{role}s {share:.1%}" for role, share in heavy.items())
            yield Finding("warning", f"much time goes into phase {phase}", numbers, remedy)


def _stragglers(e: Evidence) -> Iterator[Finding]:
    """A rank that steps or learns far slower than others of its role."""
    newest = e.table("progress")[e.table("progress")["segment"] == e.run.ranks["segment"].max()]
    for role, count in (("actor", "env_steps"), ("learner", "trained")):
        own = newest[newest["role"] == role].groupby("rank")[count].max()
        if len(own) > 2 and own.median() > 0 and own.min() < SLOW * own.median():
            rank = own.idxmin()
            host = e.run.ranks.loc[e.run.ranks["rank"] == rank, "host"].iloc[-1]
            yield Finding(
                "warning",
                f"{role} rank {rank} lags behind the others",
                f"{own.min():,.0f} {count.replace('_', ' ')}, the median {role} {own.median():,.0f}; it is on {host}",
                "look at what else runs on that host, and at the ranks bound to its core",
            )


def _origin(e: Evidence) -> Iterator[Finding]:
    """Whether one can tell which program this was."""
    if e.run.ranks["git_dirty"].astype(bool).any():
        commit = e.run.ranks["git_commit"].iloc[-1][:10]
        yield Finding(
            "note", "the program was changed and not committed", f"commit {commit} with changes", "commit before runs"
        )


RULES = (_reading, _learning, _waiting, _saturated, _cores, _ages, _lost, _writing, _stragglers, _origin)
