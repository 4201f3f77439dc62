"""From a configuration to who has a learner's weights evaluated beside its training, and how."""

from __future__ import annotations

from hpcddrl.roles.evaluating import Evaluating, NoEvaluating, Periodically, evaluators, own
from hpcddrl.runtime.evaluation import FIRST_SEED, Protocol
from hpcddrl.runtime.examining import NICENESS, Apart
from hpcddrl.runtime.late import Late
from hpcddrl.runtime.rank import Rank, teller


def evaluating_of(rank: Rank, late: Late | None) -> Evaluating:
    """Let this learner have its weights evaluated, if it is the one who does of all who share them.

    While they are apart, it is their one model that plays: whoever has it evaluated also makes it.
    """
    wanted, those = rank.config.evaluation, evaluators(rank.places)
    if wanted.every_frames is None or rank.comms.world.rank not in those:
        return NoEvaluating()
    protocol = Protocol(wanted.episodes, not wanted.sampled, FIRST_SEED)
    exact = rank.config.deterministic  # then the learner waits
    examiner = Apart(rank.config, rank.spec, protocol, 0 if exact else NICENESS)
    every = wanted.every_frames / len(those)
    playing = own if late is None else late.common
    made = Periodically(examiner, every, wanted.episodes, exact, rank.control, teller(rank), playing)
    return rank.remember("evaluating", made)
