"""The names in a rank's HDF5 file, each with its unit and meaning. Readers may rely on them."""

from __future__ import annotations

from hpcddrl.logs.timing import Phase

SCHEMA = 1

_PHASES = {
    Phase.ENV: "stepping environments",
    Phase.ACT: "evaluating the policy to act",
    Phase.COLLECT: "writing rollouts",
    Phase.SEND: "starting to send rollouts, frames or actions",
    Phase.WAIT: "waiting for data, weights or a free buffer",
    Phase.BATCH: "making a batch of rollouts",
    Phase.GRADIENT: "forward and backward passes of learning, the peers' included",
    Phase.REDUCE: "averaging gradients, or sending them to a server and taking its weights",
    Phase.UPDATE: "the optimizer's step",
    Phase.PUBLISH: "answering actors with weights",
    Phase.REFRESH: "taking published weights",
    Phase.EXCHANGE: "exchanging weights between groups",
    Phase.COMPRESS: "compressing published weights",
    Phase.CHECKPOINT: "writing checkpoints",
    Phase.LOG: "writing this file and reporting progress",
    Phase.OTHER: "anything else",
}

COLUMNS: dict[str, tuple[str, str]] = {
    **{f"timing/{phase}": ("s", f"time in this interval: {meaning}") for phase, meaning in _PHASES.items()},
    "timing/wall": ("s", "wall time of this interval; the phases sum to it"),
    "timing/cpu": ("s", "processor time of this interval, all threads"),
    "waiting/cpu": ("s", "processor time of this interval spent in phase wait"),
    "progress/time": ("s", "since the start of this segment"),
    "progress/frames": (
        "frames",
        "environment frames, cumulative over segments: stepped here, or trained on here",
    ),
    "progress/env_steps": ("env steps", "steps of this rank's environments, cumulative"),
    "progress/predictions": ("observations", "observations answered by the policy on this rank, cumulative"),
    "progress/trained": ("samples", "samples in this rank's batches, each as often as it was in one, cumulative"),
    "progress/produced": ("samples", "samples that this rank's environments gave to learning, cumulative"),
    "progress/used": ("samples", "of those produced, learned from at least once, cumulative"),
    "progress/dropped": ("samples", "of those produced, never learned from and gone, cumulative"),
    "progress/pending": ("samples", "of those produced, not learned from yet"),
    "progress/updates": ("updates", "optimizer steps, cumulative over segments"),
    "progress/episodes": ("episodes", "episodes finished on this rank, cumulative"),
    "progress/rss": ("bytes", "resident memory of the process"),
    "episodes/frames": ("frames", "this rank's environment frames when the episode ended"),
    "episodes/return": ("reward", "sum of the environment's own rewards, unclipped"),
    "episodes/length": ("env steps", "length of the episode"),
    "learning/loss": ("1", "mean over the interval's updates"),
    "learning/policy_loss": ("1", "mean over the interval's updates"),
    "learning/value_loss": ("1", "mean over the interval's updates"),
    "learning/entropy": ("nat", "of the policy, mean over the interval's updates"),
    "learning/grad_norm": ("1", "norm of the gradient before clipping, mean over the interval's updates"),
    "learning/learning_rate": ("1", "at the last update"),
    "learning/lag_mean": ("updates", "learner's version minus a rollout's, mean over the interval"),
    "learning/lag_min": ("updates", "least lag in the interval"),
    "learning/lag_max": ("updates", "greatest lag in the interval"),
    "learning/staleness_mean": ("updates", "server's version minus a gradient's, mean over the interval"),
    "learning/staleness_max": ("updates", "greatest staleness in the interval"),
    "learning/td_error": ("1", "mean |δ| of Q-learning"),
    "learning/weight_mean": ("1", "mean importance weight of replayed transitions"),
    "learning/refused_stale": ("gradients", "refused by the server for their age, cumulative"),
    "learning/refused_loss": ("gradients", "refused by the server for their loss, cumulative"),
    "staleness/staleness": ("updates", "one bin of the histogram of applied gradients: server's version minus theirs"),
    "staleness/time": ("s", "since the start of this segment, at the end of the interval"),
    "staleness/count": ("gradients", "in this bin, in this interval"),
    "learning/rho_clipped": ("share", "steps whose importance ratio was clipped"),
    "learning/rho_mean": ("1", "mean importance ratio π/μ before clipping"),
    "learning/kl": ("nat", "KL(ensemble or teacher ‖ own policy), mean over the interval's updates"),
    "learning/beta": ("1", "weight of that divergence in the loss"),
    "learning/value_mean": ("1", "mean predicted value"),
    "exchange/version": ("updates", "this group's version when it looked at its peers"),
    "exchange/peers": ("groups", "peers whose weights were in the ensemble"),
    "exchange/age": ("updates", "this group's version minus the peers', mean"),
    "exchange/skipped": (
        "messages",
        "sends passed over because a peer had not taken the one before, cumulative",
    ),
    "compression/version": ("updates", "the learner's version that what is published followed to"),
    "compression/updates": ("updates", "since it followed before"),
    "compression/kl_before": ("nat", "mean KL(learner ‖ published) on the newest observations, before following"),
    "compression/kl_after": ("nat", "the same after following"),
    "compression/steps": ("steps", "of the student's optimizer"),
    "compression/seconds": ("s", "that following took, packing and looking at the KL included"),
    "compression/bytes": ("bytes", "published"),
    "learning/weight_own": ("1", "mean mixture weight c of this group itself"),
    "learning/disagreement": (
        "share",
        "states on which the greedy actions of own policy and ensemble (or teacher) differ",
    ),
}
_TAGS = "rollout pull weights gradient frames actions exchange status stop sample errors"
for _tag in _TAGS.split():
    COLUMNS[f"traffic/{_tag}/messages"] = ("messages", "sent by this rank, cumulative")
    COLUMNS[f"traffic/{_tag}/bytes"] = ("bytes", "sent by this rank, cumulative")
