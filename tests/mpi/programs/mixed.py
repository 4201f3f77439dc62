"""Run a job and note what the ensemble was at one update: mixed.py OUT UPDATE OPTION...

OPTIONs are those of ``hpcddrl run`` after the recipe. Each learner leaves OUT/mixed-<group>.pt: the observations that
its peers saw, its own opinion, the peers' groups, π_ens's parameters and the weights c; and each writes a checkpoint of
every version.
"""

import sys
from pathlib import Path

import torch

import hpcddrl.runtime.build as build
import hpcddrl.runtime.coupling as coupling
from hpcddrl.commands.cli import main
from hpcddrl.roles.ensemble import EnsemblePeers
from hpcddrl.roles.mixing import Mixer

out, update, *options = sys.argv[1:]
note, savers, saver_of = {}, [], build.saver_of


def noted_saver_of(rank, network):
    """Make the saver, and remember it."""
    savers.append(saver_of(rank, network))
    return savers[-1]


class Noting(EnsemblePeers):
    """The peers themselves, and a note of what they were asked."""

    def targets(self, batch, weights):
        found = super().targets(batch, weights)
        savers[0].save(weights, {})
        if weights.version == int(update):
            assert found is not None, "nothing was heard of the peers yet"
            note.update(observation=batch.observation[:, found.rows].clone())
        return found


class NotingMixer(Mixer):
    """The mixer itself, and a note of what it made."""

    def mix(self, groups, opinions, own):
        mixture = super().mix(groups, opinions, own)
        if "observation" in note and "mixture" not in note:
            values = torch.stack([own.value, *(opinion.value for opinion in opinions)])
            weights = self._weigh(values, self._agreed, self._scores)
            note.update(own=tuple(own), groups=list(groups), mixture=mixture.policy, weights=weights)
            torch.save(note, Path(out, f"mixed-{self._group}.pt"))
        return mixture


build.saver_of, coupling.EnsemblePeers, coupling.Mixer = noted_saver_of, Noting, NotingMixer
sys.argv[1:] = ["run", *options]
main()
