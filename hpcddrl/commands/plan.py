"""``plan``: what a job will send and hold, before it is submitted."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

import click
from rich.console import Console

from hpcddrl.commands.run import recipe_named
from hpcddrl.commands.tables import console, count, layout, size, table
from hpcddrl.settings import override

if TYPE_CHECKING:
    from hpcddrl.comm.placement import Role
    from hpcddrl.runtime.footprint import Part
    from hpcddrl.runtime.pace import Pace
    from hpcddrl.runtime.plan import Flow, Job


SMALL = 10_000  # bytes; what is less is shown in one row


@click.command(context_settings={"show_default": True})
@click.argument("recipe")
@click.option("--ranks", "ranks", required=True, type=click.IntRange(min=1), help="Of the job.")
@click.option("--env", help="Gymnasium id, built-in (hpcddrl/Catch-v0) or module:Class.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any field of the configuration.")
@click.option(
    "--steps-per-s",
    type=click.FloatRange(min=0, min_open=True),
    help="Env steps per second of each rank that steps environments [measured here, with one rank].",
)
@click.option("--ranks-per-host", type=click.IntRange(min=1), help="Sum up the memory of hosts of so many ranks.")
def plan(
    recipe: str,
    ranks: int,
    env: str | None,
    settings: tuple[str, ...],
    steps_per_s: float | None,
    ranks_per_host: int | None,
) -> None:
    """Print what RECIPE will do on so many ranks: roles, messages and memory. Starts no MPI job.

    \b
    python -m hpcddrl plan group_ensemble --ranks 16
    python -m hpcddrl plan impala --ranks 4096 --ranks-per-host 64 --set topology.learners_per_group=64
    python -m hpcddrl plan impala --ranks 65 --env ALE/Breakout-v5 --steps-per-s 1500

    Rates are those of a job whose learners keep up with the given pace; whether they do is printed too. Without
    --steps-per-s, stepping, acting and learning are timed here for a few seconds, each alone on one thread. With
    it nothing is timed, and the same command prints the same rates anywhere.
    """  # noqa: D301 (click wants the character itself)
    config = override(recipe_named(recipe), [*([f"env.id={env}"] if env else []), *settings])
    from hpcddrl.logs.resident import resident_bytes
    from hpcddrl.runtime.checks import checked, fitted
    from hpcddrl.runtime.footprint import footprint
    from hpcddrl.runtime.pace import measure, natural, one_thread
    from hpcddrl.runtime.plan import flows, job_of
    from hpcddrl.runtime.split import with_split

    base = resident_bytes()
    with one_thread():
        config = fitted(with_split(config, ranks), ranks)
        job = job_of(config, checked(config))
        if len(job.kinds) > 1 and steps_per_s is None:
            raise ValueError("group_settings: groups differ, and so does their pace; give one with --steps-per-s")
        pace = measure(job) if steps_per_s is None else None
        steps_per_s = natural(job, pace) if pace is not None else steps_per_s
        assert steps_per_s is not None
        sent = flows(job, steps_per_s)
        parts = footprint(job, sent)
    out = console()
    _say_what(out, job)
    _say_pace(out, job, steps_per_s, pace)
    _roles(out, job)
    _devices(out, job)
    _messages(out, job, sent, steps_per_s)
    _memory(out, job, parts, base)
    if ranks_per_host is not None:
        _hosts(out, job, parts, base, ranks_per_host)


def _say_what(out: Console, job: Job) -> None:
    from hpcddrl.networks.torsos import blind_spot

    _say(
        out,
        f"{job.config.recipe} on {job.config.env.id}: {count(len(job.places), 'rank')}, "
        f"{layout(job.config.topology)}; "
        + ", ".join(f"a network of {count:,} weights ({size(4 * count)})" for count in dict.fromkeys(job.sizes)),
    )
    if (unseen := blind_spot(job.config.network.torso, job.spec.observation_shape)) is not None:
        _say(out, f"warning: {unseen}")


def _say_pace(out: Console, job: Job, steps_per_s: float, pace: Pace | None) -> None:
    from hpcddrl.runtime.pace import learner
    from hpcddrl.runtime.plan import env_steps_per_s, updates_per_s

    how = "as given" if pace is None else "measured on this machine, with this rank alone on one thread"
    _say(
        out,
        f"pace: {steps_per_s:,.0f} env steps/s of each rank that steps environments ({how}), "
        f"{env_steps_per_s(job, steps_per_s):,.0f}/s in all",
    )
    for number, kind in enumerate(kinds := job.kinds):
        wanted = learner(kind, steps_per_s, pace)
        answers = f" and answer {wanted.answers:,.0f} observations/s" if wanted.answers else ""
        whose = f" of groups like group {number}" if len(kinds) > 1 else ""
        _say(
            out,
            f"each learner{whose} then has to learn from {wanted.samples:,.0f} samples/s{answers}, "
            f"in {updates_per_s(kind, steps_per_s):,.3g} updates/s",
        )
    if pace is None:
        return
    answered = f" and answers {pace.answers:,.0f}/s" if wanted.answers else ""
    if not job.actors:
        verdict = "the pace above is what that leaves it"
    elif wanted.busy <= 1:
        verdict = f"busy {wanted.busy:.0%} of the time, it keeps up"
    else:
        verdict = (
            f"it is the bottleneck by a factor of {wanted.busy:,.3g}, and holds the ranks that step to about "
            f"{steps_per_s / wanted.busy:,.3g} env steps/s each; rates below shrink with the pace (--steps-per-s)"
        )
    _say(out, f"one learner here, alone on one thread, learns from {pace.samples:,.0f} samples/s{answered}: {verdict}")
    if job.actors and len(kinds) == 1:
        _say_threads(out, job, pace)


def _say_threads(out: Console, job: Job, pace: Pace) -> None:
    """Say how this machine's processors would be divided among the roles, if all ranks ran here."""
    from hpcddrl.runtime.processors import costs, crowded, threads

    processors, roles = len(os.sched_getaffinity(0)), [place.role for place in job.places]
    given = threads(roles, processors, costs(job, pace))
    shared = crowded(roles, processors, given)

    def each(role: Role) -> str:
        share = " (one for each share of a batch)" if shared and given[role] > 1 else ""
        return f"{role} {count(given[role], 'thread')}{share}"

    _say(out, f"on the {processors} processors here, by what each role takes: {', '.join(map(each, given))}")


def _say(out: Console, line: str) -> None:
    """Print a line, broken between words, its continuation set in."""
    width = out.width
    out.print("\n".join(textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False)))


def _roles(out: Console, job: Job) -> None:
    from hpcddrl.runtime.plan import crews

    shown = table("Roles", {"role": "left", "ranks": "right", "a group": "right", "which": "left", "does": "left"})
    for crew in crews(job):
        of_group = "-" if job.places[crew.ranks[0]].group is None else str(crew.a_group)
        shown.add_row(str(crew.role), str(len(crew.ranks)), of_group, crew.spans, _does(job, crew.role))
    out.print(shown)


def _devices(out: Console, job: Job) -> None:
    """Say what each role will compute on, as far as that can be told where the job does not run."""
    from hpcddrl.networks.device import gpus
    from hpcddrl.runtime.devices import wishes

    means = {"cuda": "a GPU of its node", "auto": "a GPU if its node has one, else cores", "cpu": "cores"}
    kinds = job.kinds
    for number, kind in enumerate(kinds):
        learner, inference = wishes(kind.config, kind.spec)
        whose = f" of groups like group {number}" if len(kinds) > 1 else ""
        acts = inference != learner and (not job.actors or kind.config.acting.kind == "central")
        _say(
            out,
            f"devices: each learner{whose} computes on {means[learner]}"
            + (f", and chooses actions on {means[inference]}" if acts else "")
            + "; all other roles on cores",
        )
    if any(wishes(kind.config, kind.spec) != ("cpu", "cpu") for kind in kinds):
        _say(out, f"this machine's GPUs: {', '.join(gpus()) or 'none'}; the pace is that of cores")


def _does(job: Job, role: Role) -> str:
    config = job.config
    central, replays = config.acting.kind == "central", config.topology.replays_per_group
    envs = count(config.env.num_envs, "environment")
    if len(config.env.ids) > 1:
        envs += f" of one of {len(config.env.ids)} games"
    match str(role):
        case "actor":
            return f"steps {envs}" + ("" if central else ", with weights of its own")
        case "server":
            keeps = getattr(config.stages.middle, "held_by", None) == "server"
            return f"holds {job.shard:,} weights and their optimizer" + ", keeps its workers' rollouts" * keeps
        case "replay":
            return "keeps transitions, draws samples"
    if not job.actors:
        return f"steps {envs}, learns" + (" from its replay" if config.experience.kind == "replay" else "")
    if replays:
        return "learns from samples of the replays"
    acts = "acts for its actors" + ("" if config.compression.kind == "uncompressed" else " with a compressed network")
    return (f"{acts}, " if central else "") + (
        "learns from its replay" if config.experience.kind == "replay" else "learns from their rollouts"
    )


def _messages(out: Console, job: Job, sent: list[Flow], steps_per_s: float) -> None:
    from hpcddrl.runtime.plan import busiest, env_steps_per_s

    right = dict.fromkeys(("bytes each", "messages/s", "bytes/s", "a step", "busiest rank/s"), "right")
    shown = table("Messages at that pace, expected", {"message": "left", "from → to": "left", **right})
    steps = env_steps_per_s(job, steps_per_s)
    for flow in sent:
        ends = f"{job.places[flow.senders[0]].role} → {job.places[flow.receivers[0]].role}"
        ends = "any → rank 0" if flow.kind == "status" else ends
        rates = f"{flow.messages_per_s:,.3g}" if flow.messages_per_s < 1000 else f"{flow.messages_per_s:,.0f}"
        a_step, (_, load) = flow.bytes_per_s / steps, busiest(job, [flow])
        shown.add_row(
            *(flow.kind, ends, size(flow.nbytes), rates, size(flow.bytes_per_s), size(a_step), size(load)),
        )
    if not sent:
        out.print("one rank: no messages")
        return
    rank, load = busiest(job, sent)
    total = sum(flow.bytes_per_s for flow in sent)
    shown.add_section()
    shown.add_row("all", "", "", "", size(total), size(total / steps), f"{size(load)} (rank {rank})")
    out.print(shown)
    _say(out, "busiest rank: bytes it sends and receives. Weights: at most once a rollout, fewer if none are newer.")
    if any(flow.kind in ("allreduce", "broadcast") for flow in sent):
        _say(out, "allreduce (as a ring) and broadcast are collectives: they stand in no rank's /traffic.")


def _memory(out: Console, job: Job, parts: dict[Role, list[Part]], base: int) -> None:
    right = dict.fromkeys(("each", "count", "bytes", "at most"), "right")
    shown = table("Memory of a rank (of its role, that with the most)", {"role": "left", "part": "left", **right})
    for role, mine in parts.items():
        for part in (part for part in mine if part.at_most >= SMALL):
            most = size(part.at_most) if part.at_most > part.total else ""
            shown.add_row(str(role), part.what, size(part.nbytes), f"{part.number:,}", size(part.total), most)
        small = sum(part.total for part in mine if part.at_most < SMALL)
        if small:
            shown.add_row(str(role), "small buffers", "", "", size(small), "")
        shown.add_row(str(role), "interpreter and libraries", "", "", rough(base), "")
        total, at_most = (base + sum(numbers) for numbers in zip(*((p.total, p.at_most) for p in mine), strict=True))
        more = rough(at_most) if rough(at_most) != rough(total) else ""
        shown.add_row(str(role), "all", "", "", rough(total), more, style="bold")
        shown.add_section()
    out.print(shown)
    _say(
        out,
        "The interpreter's share is this process's resident memory after its imports. MPI, environments and the "
        "libraries' work space come on top: 70 to 130 MB a rank when tried on Pong. Buffers to send from are made "
        "when needed: at most so many.",
    )


def _hosts(out: Console, job: Job, parts: dict[Role, list[Part]], base: int, ranks_per_host: int) -> None:
    from hpcddrl.runtime.footprint import hosts

    shown = table(f"Hosts of {ranks_per_host} ranks", {"hosts": "right", "ranks": "left", "bytes": "right"})
    for host in hosts(job, parts, base, ranks_per_host):
        ranks = ", ".join(count(n, str(role)) for role, n in host.ranks.items())
        shown.add_row(str(host.hosts), ranks, rough(host.nbytes))
    out.print(shown)


def rough(nbytes: float) -> str:
    """Write bytes with two digits: what is measured is no better known."""
    digits = 10 ** max(0, len(str(round(nbytes))) - 2)
    return size(round(nbytes / digits) * digits)
