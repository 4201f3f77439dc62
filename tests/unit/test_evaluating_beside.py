"""Evaluation beside the training: which weights play when, what is kept of it, and the process that plays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_evaluation import CONFIG

from hpcddrl.comm.placement import Role, fit, place
from hpcddrl.envs.make import probe
from hpcddrl.logs.schema import COLUMNS
from hpcddrl.logs.timing import Timing
from hpcddrl.networks.flat import flatten
from hpcddrl.networks.make import make_network
from hpcddrl.recipes import RECIPES
from hpcddrl.roles import evaluating
from hpcddrl.roles.evaluating import Periodically, Played, evaluators, own
from hpcddrl.runtime.evaluation import Player, Protocol, Score, behaviour_of, returns_of
from hpcddrl.runtime.examining import Apart, played
from hpcddrl.types import Weights

ROOT = Path(__file__).parents[2]
SPEC = probe(CONFIG.env)


class Instead:
    """Stands for the process that plays: is done when told so, with the sum of the weights as mean return."""

    def __init__(self):
        self.asked, self.answers, self.ended, self.at_once = [], [], False, False

    def begin(self, values):
        self.asked.append(values.clone())
        if self.at_once:
            self.done()

    def done(self):
        mean = float(self.asked[-1].sum())
        self.answers.append(Played(mean, mean - 1, mean + 1, 2.0, 1.5))

    def result(self):
        answer = self.answers.pop() if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self):
        self.ended = True


class Learner:
    """A learner whose first weight is its version, with 10 frames an update."""

    def __init__(self, every=100, exact=False, playing=own):
        self.games, self.rows, self.said, self.ticks = Instead(), [], [], 0
        self.control = SimpleNamespace(timing=Timing(), signalled=False, elapsed_s=7.0)
        self.control.evaluated, self.control.tick = self.rows.append, self._tick
        self.part = Periodically(self.games, every, 4, exact, self.control, self.said.append, playing)

    def _tick(self):
        self.ticks += 1
        if self.ticks == 3 and self.games.asked:
            self.games.done()

    def see(self, *versions):
        for version in versions:
            self.part.see(weights(version))

    @property
    def played(self):
        return [(row["version"], row["frames"], row["return"]) for row in self.rows]


def weights(version):
    return Weights(version, torch.tensor([float(version), 0.5]), 10.0 * version)


def test_the_start_plays_and_then_what_there_is_every_so_many_frames():
    learner = Learner()
    learner.games.at_once = True
    learner.see(*range(35))
    assert learner.played == [(0, 0, 0.5), (10, 100, 10.5), (20, 200, 20.5), (30, 300, 30.5)]
    row = learner.rows[1]
    assert (row["time"], row["episodes"], row["low"], row["high"], row["seconds"], row["cpu"]) == (
        7,
        4,
        9.5,
        11.5,
        2,
        1.5,
    )
    assert {f"evaluation/{name}" for name in row} <= set(COLUMNS)


def test_others_weights_may_play_in_place_of_the_learners_own():
    learner = Learner(playing=lambda weights: -weights.flat)
    learner.games.at_once = True
    learner.see(0, 10, 11)
    assert learner.played == [(0, 0, -0.5), (10, 100, -10.5)]


def test_a_slow_one_has_the_next_wait_and_the_learner_go_on():
    learner = Learner()
    learner.see(*range(25))
    assert len(learner.games.asked) == 1
    learner.games.done()
    learner.see(25, 26)
    assert learner.games.asked[1][0] == 25, "due at 10, and the next at 30"
    assert learner.played == [(0, 0, 0.5)]
    learner.games.done()
    learner.see(27, 29, 30)
    assert [int(values[0]) for values in learner.games.asked] == [0, 25, 30]
    assert learner.control.timing.totals()["evaluate"] < 0.05


def test_an_exact_learner_waits_so_that_the_same_weights_play_each_time():
    learner = Learner(exact=True)
    learner.see(0)
    assert (learner.ticks, learner.played) == (3, [(0, 0, 0.5)])
    assert learner.control.timing.totals()["evaluate"] > 0


def test_the_last_weights_play_too_and_are_waited_for():
    learner = Learner()
    learner.games.at_once = True
    learner.see(0, 3)
    learner.games.at_once = False
    learner.part.end(weights(4))
    assert learner.played == [(0, 0, 0.5), (4, 40, 4.5)]
    assert learner.games.ended


def test_the_last_weights_that_have_played_do_not_play_again():
    learner = Learner()
    learner.games.at_once = True
    learner.see(0, 10)
    learner.part.end(weights(10))
    assert len(learner.rows) == 2


def test_a_signal_ends_it_at_once():
    learner = Learner()
    learner.see(0)
    learner.control.signalled = True
    learner.part.end(weights(4))
    assert (learner.ticks, learner.rows, learner.games.ended) == (0, [], True)
    assert learner.said == ["the evaluation of version 0 is not over and given up"]


def test_the_end_waits_no_longer_than_its_grace(monkeypatch):
    monkeypatch.setattr(evaluating, "GRACE_S", 0.1)
    learner = Learner()
    learner.ticks = 100
    learner.see(0)
    learner.part.end(weights(4))
    assert learner.said == ["the evaluation of version 0 is not over and given up"]


def test_one_that_fails_is_said_and_the_next_is_tried():
    learner = Learner()
    learner.see(0)
    learner.games.answers.append(ChildProcessError("its process has ended"))
    learner.see(1)
    assert learner.said == ["the evaluation of version 0 failed: its process has ended"]
    learner.games.at_once = True
    learner.see(2, 10, 11)
    assert learner.played == [(10, 100, 10.5)]


@pytest.mark.parametrize(("done", "expected"), [(True, [20]), (False, [13, 20])])
def test_what_was_not_over_at_a_cut_is_done_after_it(done, expected):
    before, after = Learner(), Learner()
    before.games.at_once = after.games.at_once = True
    before.see(0)
    before.games.at_once = done
    before.see(10, 11)
    after.part.restore(before.part.state())
    after.see(13, 14, 20, 21)
    assert [version for version, *_ in after.played] == expected


@pytest.mark.parametrize("name", RECIPES)
def test_in_every_recipe_all_weights_have_one_who_has_them_evaluated(name):
    for ranks in range(1, 30):
        try:
            topology = fit(RECIPES[name]().topology, ranks)
        except ValueError:
            continue
        places = place(topology)
        found = [places[rank] for rank in evaluators(places)]
        assert all((p.role, p.number) == (Role.LEARNER, 0) for p in found)
        assert [p.group for p in found] == list(range(1 if topology.servers else topology.groups))


# --- the process that plays


def player(seed):
    network = make_network(CONFIG.network, CONFIG.algorithm, SPEC, seed)
    return Player("", 0, 0, CONFIG, network, behaviour_of(CONFIG, SPEC))


def test_it_plays_the_games_that_evaluate_plays():
    one, protocol = player(3), Protocol(25, greedy=False, seed=9)
    score = Score(0, 0, [r for k, n in ((0, 10), (10, 10), (20, 5)) for r in _block(one, n, 9 + k)])
    found = played(one, protocol)
    assert (found.mean, (found.low, found.high)) == (score.mean, score.interval)
    assert found == played(one, protocol)._replace(seconds=found.seconds, cpu_s=found.cpu_s)


def _block(one, count, seed):
    return returns_of(CONFIG, one.network, one.behaviour, count, False, seed)


def test_the_process_does_not_begin_mpi():
    """It would be another process of the same rank, for which the launcher and the others would wait for ever."""
    code = "import sys, hpcddrl.__main__, hpcddrl.runtime.examining; sys.exit('mpi4py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_process_apart_plays_with_the_weights_it_is_given_and_is_replaced_when_it_dies():
    protocol = Protocol(30, greedy=False, seed=9)
    apart = Apart(CONFIG, SPEC, protocol)
    try:
        found = [result(apart, flatten(player(seed).network).values)._replace(seconds=0, cpu_s=0) for seed in (3, 4)]
        assert found == [played(player(seed), protocol)._replace(seconds=0, cpu_s=0) for seed in (3, 4)]
        worker = apart._worker.process.pid
        assert os.getpriority(os.PRIO_PROCESS, worker) > os.getpriority(os.PRIO_PROCESS, 0), "it makes way for ranks"
        os.kill(worker, signal.SIGKILL)
        apart._worker.process.join()
        assert result(apart, flatten(player(3).network).values)._replace(seconds=0, cpu_s=0) == found[0]
        apart.begin(flatten(player(3).network).values)
        os.kill(apart._worker.process.pid, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match="its process has ended"):
            waited(apart)
    finally:
        apart.end()
    assert not apart._worker.process.is_alive()


def result(apart, values):
    apart.begin(values)
    return waited(apart)


def waited(apart):
    until = time.monotonic() + 100
    while time.monotonic() < until:
        if (found := apart.result()) is not None:
            return found
        time.sleep(0.02)
    raise AssertionError("it does not answer")
