"""What a learner publishes in its weights' place: when it follows, on what, and of which version it is."""

import copy
import functools
import math
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from teachers import SMALL, VECTOR, blueprint_of, states_of, teacher_of

from hpcddrl.comm.messages import published_layout
from hpcddrl.comm.placement import Role, place
from hpcddrl.compressors.distillation import likeness_of
from hpcddrl.compressors.fallback import PATIENCE, OneOf
from hpcddrl.compressors.make import make_compressor, make_fallback, make_stand_in
from hpcddrl.config.compression import (
    AboveKL,
    Auto,
    Binary,
    Cast,
    Channels,
    Distillation,
    EveryUpdates,
    FixedPoint,
    Float32,
    Int8,
    Magnitude,
    ShareOfTime,
    Student,
    Whole,
)
from hpcddrl.logs.packing import pack, unpack
from hpcddrl.networks.shares import AnswersInShares
from hpcddrl.recipes import RECIPES
from hpcddrl.rl.policies import Categorical
from hpcddrl.roles import compressing
from hpcddrl.roles.acting import LocalPolicy
from hpcddrl.roles.compressing import LOOK_EVERY, Compressing, Recent
from hpcddrl.roles.publishing import AsTheyAre, AtHand
from hpcddrl.runtime import compression
from hpcddrl.runtime.checks import checked, fitted
from hpcddrl.runtime.compression import answering, at_once, kept_choice, remember, with_choice
from hpcddrl.runtime.footprint import footprint
from hpcddrl.runtime.plan import flows, job_of
from hpcddrl.runtime.rank import Rank
from hpcddrl.settings import override
from hpcddrl.types import RunError, Transitions, Weights

QUICK = Distillation(steps=4, batch_size=16, learning_rate=3e-3)


class Notes:
    """A control that only remembers what it is told."""

    def __init__(self):
        self.rows = []

    def timing(self, phase):
        return nullcontext()

    def note(self, table, **row):
        self.rows.append((table, row))


def weights(version):
    return Weights(version, torch.empty(0))


def following(candidate, kind="mlp on vectors", states=64):
    """Return a compressing learner's side, its network and its notes."""
    blueprint = blueprint_of(kind)
    teacher, notes = teacher_of(blueprint), Notes()
    recent = Recent(states_of(blueprint.spec, states), 64)
    likeness = likeness_of(teacher, blueprint.spec)
    make = make_fallback if isinstance(candidate, Auto) else make_compressor
    made = Compressing("a stand-in", make(candidate, blueprint), teacher, recent, likeness, notes)
    return made, teacher, notes, blueprint


def moved(teacher, seed=9):
    """Let a network learn something."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in teacher.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=g))


def transitions(observation):
    n = len(observation)
    return Transitions(observation, observation, *[torch.zeros(n)] * 4, np.zeros(n), n)


# --- what was seen last


def numbered(first, count):
    return torch.arange(first, first + count).float().view(-1, 1)


def test_recent_observations_are_some_of_each_batch_and_the_oldest_go():
    recent = Recent(numbered(0, 4), most=8)
    recent.add(transitions(numbered(100, 10)))  # two of each batch: a quarter of eight
    assert sorted(recent.all().flatten().tolist()) == [0, 1, 2, 3, 100, 105]
    assert recent.newest(2).flatten().tolist() == [105, 100]
    for batch in range(2, 6):
        recent.add(transitions(numbered(100 * batch, 10)))
    assert sorted(recent.all().flatten().tolist()) == [200, 205, 300, 305, 400, 405, 500, 505]
    assert recent.newest(3).flatten().tolist() == [505, 500, 405]


def test_recent_observations_are_copies():
    recent, buffer = Recent(torch.zeros(2, 1), most=2), torch.ones(8, 1)
    recent.add(transitions(buffer))
    buffer.fill_(7.0)
    assert 7.0 not in recent.all()


# --- what is published


def test_weights_as_they_are_are_the_learners_own_bytes():
    values = torch.randn(10)
    packing = AsTheyAre(values)
    assert packing.renew(weights(3)) == 3
    values.mul_(2.0)
    assert np.array_equal(packing.pack().view(np.float32), values.numpy())
    assert packing.nbytes == 40


@pytest.mark.parametrize("form", [Float32(), Cast(), Int8(states=32)])
def test_a_network_without_weights_of_its_own_is_packed_anew_for_each_version(form):
    made, teacher, _, _ = following(Whole(format=form))
    packed = []
    for version in (0, 1):
        assert made.renew(weights(version)) == version
        packed.append(made.pack())
        assert len(packed[-1]) == made.nbytes
        moved(teacher)
    assert not np.array_equal(*packed)
    assert made.renew(weights(1)) == 1
    assert made.pack() is packed[-1]  # the same version: nothing to do


def test_a_student_follows_every_k_updates_and_says_of_which_version_it_is():
    made, teacher, notes, _ = following(Student(distillation=Distillation(steps=4, trigger=EveryUpdates(updates=3))))
    versions = []
    for version in range(8):
        versions.append(made.renew(weights(version)))
        moved(teacher, version)
    assert versions == [0, 0, 0, 3, 3, 3, 6, 6]
    rows = [row for table, row in notes.rows if table == "compression"]
    assert [row["version"] for row in rows] == [0, 3, 6]
    assert [row["updates"] for row in rows] == [0, 3, 3]
    assert math.isnan(rows[0]["kl_before"])
    assert all(row["kl_after"] > 0 and row["steps"] == 4 and row["bytes"] == made.nbytes for row in rows)


def test_a_student_follows_when_its_teacher_has_moved_enough():
    trigger = AboveKL(threshold=0.05, check_every=2)
    made, teacher, notes, _ = following(
        Student(width=1.0, distillation=Distillation(steps=150, learning_rate=3e-3, trigger=trigger))
    )
    assert made.renew(weights(0)) == 0
    assert notes.rows[-1][1]["kl_after"] < 0.05
    assert made.renew(weights(10)) == 0  # it has not moved
    moved(teacher)
    assert made.renew(weights(11)) == 0  # looked at one update ago
    assert made.renew(weights(12)) == 12
    assert notes.rows[-1][1]["kl_before"] > 0.05 > notes.rows[-1][1]["kl_after"]


def test_what_the_start_took_is_not_of_a_students_share_of_time(monkeypatch):
    share = Distillation(steps=1, batch_size=8, trigger=ShareOfTime(share=0.1))
    made, _, notes, _ = following(Student(distillation=share))
    clock, takes = [made._started], iter([100.0, 6.0])
    monkeypatch.setattr(compressing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(made._compressor, "learn", lambda teacher, states: clock.append(clock.pop() + next(takes)) or 1)
    assert [made.renew(weights(version)) for version in (0, 1)] == [0, 1]
    assert [row["seconds"] for _, row in notes.rows] == pytest.approx([100.0, 6.0])
    assert made.renew(weights(2)) == 1, "12 of 112 s would be too much"


def test_what_has_no_weights_of_its_own_is_logged_now_and_then():
    made, _, notes, _ = following(Whole(format=Cast()))
    for version in range(2 * LOOK_EVERY):
        made.renew(weights(version))
    assert [row["version"] for _, row in notes.rows] == [LOOK_EVERY - 1, 2 * LOOK_EVERY - 1]
    assert all(0 <= row["kl_after"] < 1e-3 for _, row in notes.rows)


def test_a_student_learns_from_what_was_learned_from(monkeypatch):
    made, _, _, _ = following(Student(distillation=QUICK), states=8)
    made.renew(weights(0))
    shown, seen = states_of(VECTOR, 64, seed=5), []
    learn = made._compressor.learn
    monkeypatch.setattr(
        made._compressor, "learn", lambda teacher, states: seen.append(states) or learn(teacher, states)
    )
    made.see(transitions(shown))
    made.renew(weights(10))
    rows = {tuple(row) for row in shown.tolist()}
    assert len(seen[0]) == 8 + 16  # those from before, and a quarter of 64
    assert sum(tuple(row) in rows for row in seen[0].tolist()) == 16


# --- a learner that acts


def test_what_stands_still_is_the_network_that_it_was():
    made, teacher, _, _ = following(Whole(format=Float32(), trigger=EveryUpdates(updates=4)))
    states, here, versions, outputs = states_of(VECTOR), AtHand(made), [], []
    for version in range(9):
        here.put(weights(version), transitions(states))
        versions.append(here.version)
        outputs.append(made._compressor.stand_in(states).policy.detach())
        if here.version == version:
            assert torch.equal(outputs[-1], teacher(states).policy)
        moved(teacher, version)
    assert versions == [0, 0, 0, 0, 4, 4, 4, 4, 8]
    for version, since in enumerate(versions):
        assert torch.equal(outputs[version], outputs[since])
    assert not torch.equal(outputs[0], outputs[4])


def test_a_learner_that_acts_packs_nothing_but_for_the_log():
    made, teacher, _, _ = following(Whole(format=Cast()))
    packed, pack = [], made._compressor.stand_in.pack
    made._compressor.stand_in.pack = lambda: packed.append(1) or pack()
    for version in range(10):
        AtHand(made).put(weights(version))
        moved(teacher)
    assert packed == []
    assert len(made.pack()) == made.nbytes


@pytest.mark.parametrize(
    ("recipe", "shares", "divides", "timed"), [("ga3c", 3, True, 11), ("ga3c", 1, False, 32), ("impala", 3, False, 16)]
)
def test_a_learner_that_acts_divides_a_batch_and_times_what_a_thread_has_of_it(recipe, shares, divides, timed):
    settings = ["env.num_envs=16"] + ["acting.minimum=2"] * (recipe == "ga3c")
    rank = SimpleNamespace(config=override(RECIPES[recipe](), settings), shares=shares, actors=[1, 2])
    made, _, _, _ = following(Whole(format=Cast()))
    stand_in = made._compressor.stand_in
    answer = answering(rank, stand_in)
    assert (isinstance(answer, AnswersInShares), answer is stand_in) == (divides, not divides)
    assert at_once(rank) == timed


# --- beside the learner


class Held:
    """Holds up a compressor's learning until it is let go, and remembers who did it."""

    def __init__(self, compressor, monkeypatch):
        self.go, self.threads, learn = threading.Event(), [], compressor.learn

        def slow(teacher, states):
            self.threads.append(threading.current_thread())
            if len(self.threads) > 1:
                assert self.go.wait(20)
            return learn(teacher, states)

        monkeypatch.setattr(compressor, "learn", slow)


def test_a_student_beside_its_teacher_acts_anew_when_it_is_through(monkeypatch):
    quick = Distillation(steps=4, batch_size=16, trigger=EveryUpdates(updates=3), beside=True)
    made, teacher, notes, _ = following(Student(distillation=quick))
    held, states = Held(made._compressor, monkeypatch), states_of(VECTOR)
    assert made.renew(weights(0)) == 0
    before = made._compressor.stand_in(states).policy.detach()
    assert [made.renew(weights(version)) for version in (2, 3, 50)] == [0, 0, 0]  # begun at 3, and not through
    assert torch.equal(made._compressor.stand_in(states).policy, before)
    taught = [p.detach().clone() for p in teacher.parameters()]
    moved(teacher)  # which is not what the thread learns from
    held.go.set()
    made._begun.learned.result(20)
    assert made.renew(weights(51)) == 3
    assert not torch.equal(made._compressor.stand_in(states).policy, before)
    assert held.threads[0] is threading.main_thread()
    assert held.threads[1] is not threading.main_thread()
    row = notes.rows[-1][1]
    assert (row["version"], row["steps"]) == (3, 4)
    assert 0 < row["beside"] <= row["seconds"]
    assert notes.rows[0][1]["beside"] == 0
    assert not any(torch.equal(a, b) for a, b in zip(taught, teacher.parameters(), strict=True))
    made.end()


def test_what_fails_beside_fails_the_learner(monkeypatch):
    made, _, _, _ = following(Student(distillation=Distillation(trigger=EveryUpdates(updates=1), beside=True)))
    made.renew(weights(0))
    monkeypatch.setattr(made._compressor, "learn", lambda teacher, states: 1 // 0)
    made.renew(weights(1))
    with pytest.raises(ZeroDivisionError):
        made.end()


def test_a_leg_ends_with_what_was_begun_and_that_acts_from_then_on():
    made, _, _, _ = following(Student(distillation=Distillation(steps=4, trigger=EveryUpdates(updates=3), beside=True)))
    states, versions = states_of(VECTOR), []
    made.renew(weights(0))
    before = made._compressor.stand_in(states).policy.detach()
    made.renew(weights(3))
    made.end()
    assert not torch.equal(made._compressor.stand_in(states).policy, before)
    for version in (3, 4):
        versions.append(made.renew(weights(version)))
    assert versions == [3, 3]
    made.end()


# --- over a restart


EVERY_SECOND = Distillation(steps=3, batch_size=16, states=48, trigger=EveryUpdates(updates=2))
STATEFUL = {
    "student": Student(distillation=EVERY_SECOND),
    "student int8": Student(distillation=EVERY_SECOND, format=Int8(states=32)),
    "still": Whole(format=Cast(), trigger=EveryUpdates(updates=4)),
    "fixed-point": Whole(format=FixedPoint(states=32), trigger=EveryUpdates(updates=4)),
    "channels": Channels(distillation=EVERY_SECOND),
    "magnitude": Magnitude(distillation=EVERY_SECOND, rounds=2),
    "binary": Binary(distillation=EVERY_SECOND),
    "auto": Auto(candidates=(Student(distillation=EVERY_SECOND), Whole(format=Int8(states=32))), kl_bound=1e-9),
}


def lesson(made, teacher, versions):
    """Let a stand-in see and follow a teacher that moves on; return what acts, and which version it is, each time."""
    acted = []
    for version in versions:
        made.see(transitions(states_of(VECTOR, 30, seed=version)))
        acted.append((made.renew(weights(version)), made.pack().tobytes()))
        moved(teacher, version)
    return acted


@pytest.mark.parametrize("name", STATEFUL)
def test_what_is_restored_goes_on_as_if_nothing_had_happened(name):
    """Also where it stands still at the cut: what acts then is not what the learner has."""
    made, teacher, _, _ = following(STATEFUL[name], states=20)
    lesson(made, teacher, range(4))
    made.end()
    state, here = unpack(np.frombuffer(bytearray().join(pack(made.state()).pieces()), np.uint8)), copy.deepcopy(teacher)
    uncut = lesson(made, teacher, range(4, 10))
    other, _, _, _ = following(STATEFUL[name], states=20)
    other._teacher = here
    other.restore(state)
    assert lesson(other, here, range(4, 10)) == uncut
    anew, _, _, _ = following(STATEFUL[name], states=20)
    anew._teacher = copy.deepcopy(here)
    assert lesson(anew, anew._teacher, range(4, 10)) != uncut


@pytest.mark.parametrize(("then", "goes_on"), [("a stand-in", True), ("binary", False), (None, False)])
def test_another_kind_than_the_checkpoints_begins_anew_and_is_said_to(then, goes_on):
    made, teacher, _, _ = following(STATEFUL["still"])
    lesson(made, teacher, range(4))
    other, _, _, _ = following(STATEFUL["still"])
    saved = {} if then is None else {"compression": made.state() | {"of": then}}
    rank = SimpleNamespace(saved=saved, lines=[], parts={})
    rank.remember = functools.partial(Rank.remember, rank)
    remember(rank, other)
    assert rank.parts == {"compression": other}
    assert (other.pack().tobytes() == made.pack().tobytes()) is goes_on
    said = [] if goes_on else [f"compression was {then or 'none'} at the checkpoint: a stand-in begins anew"]
    assert rank.lines == said


def test_a_checkpoints_choice_stays_as_long_as_all_of_it_can_be_chosen():
    auto = Auto(candidates=(Whole(), Student(), Binary()))

    def kept(of):
        return kept_choice({"compression": {"of": of}}, auto)

    assert kept("binary, or bf16, or fp32") == (Binary(), Whole())
    assert kept("binary, or int8, or fp32") == kept("int8, or fp32") == ()
    assert kept("binary") == kept("fp32") == kept("none") == (), "those were no choices"
    assert kept_choice(None, auto) == kept_choice({}, auto) == ()


@pytest.mark.parametrize("me", [0, 1], ids=["learner", "actor"])
def test_a_choice_that_stays_is_told_to_who_would_try_candidates(me, monkeypatch):
    """The learner has the checkpoint; with local actors, the first of them would choose."""
    monkeypatch.setattr(compression, "_tried", lambda rank, auto: pytest.fail("tried anew"))
    job = fitted(override(RECIPES["impala"](), ["env.id=hpcddrl/Catch-v0", "compression=auto"]), 2)
    kept = (Student(format=Int8()), Whole(format=Int8()))
    others = iter([(0, () if me == 0 else kept), (0, None)])
    world = SimpleNamespace(rank=me, allgather=lambda own: [next(others), own])
    saved = {"compression": {"of": "student 0.5 int8, or int8, or fp32"}} if me == 0 else {}
    comms, files = SimpleNamespace(world=world), dict.fromkeys(("traffic", "run", "files", "say"))
    places = place(job.topology)
    rank = Rank(config=job, job=job, spec=VECTOR, comms=comms, places=places, control=Notes(), saved=saved, **files)
    assert with_choice(rank).config.compression.candidates == kept
    line = "compression auto: student 0.5 int8 acts, then int8, as at the checkpoint; nothing is tried again"
    assert rank.lines == [line] * (me == 0)


def test_fewer_observations_are_kept_of_more():
    recent, other = Recent(numbered(0, 4), most=8), Recent(numbered(0, 1), most=3)
    for batch in range(1, 5):
        recent.add(transitions(numbered(100 * batch, 2)))
    other.restore(recent.state())
    assert other.newest(3).flatten().tolist() == [401, 400, 301]
    other.add(transitions(numbered(500, 1)))
    assert other.newest(3).flatten().tolist() == [500, 401, 400]


# --- a choice by itself


def test_a_candidate_that_is_no_longer_like_its_teacher_gives_way_to_the_next():
    poor = Distillation(steps=1, learning_rate=1e-6, trigger=EveryUpdates(updates=2))
    auto = Auto(candidates=(Student(width=0.25, distillation=poor), Whole(format=Int8(states=32))), kl_bound=1e-2)
    made, _, notes, blueprint = following(auto)
    actor, states, choices = make_stand_in(auto, blueprint), states_of(VECTOR, 64), []
    room = len(actor.pack())
    for version in range(0, 2 * (PATIENCE + 2), 2):
        assert made.renew(weights(version)) == version
        assert len(made.pack()) <= room
        actor.unpack(made.pack())
        assert torch.equal(actor(states).policy, made._compressor.stand_in(states).policy)
        choices.append(actor.current)
    assert choices == [0] * (PATIENCE - 1) + [1] * 3
    rows = [row for _, row in notes.rows]
    assert [row["choice"] for row in rows] == [0] * PATIENCE + [1]
    assert all(row["kl_after"] > 1e-2 for row in rows[:PATIENCE])
    assert rows[-1]["kl_after"] < 1e-2
    assert rows[-1]["kl_before"] == rows[-2]["kl_after"]


def test_the_last_of_all_is_the_teacher_itself():
    auto = Auto(candidates=(Whole(format=Int8(states=32)),), kl_bound=1e-12)
    made, teacher, _, blueprint = following(auto)
    fallback = made._compressor
    for _ in range(PATIENCE - 1):
        assert fallback.accepts(1.0)
    assert fallback.accepts(0.0), "one in between, and it has its time again"
    assert [fallback.accepts(1.0) for _ in range(PATIENCE)] == [True] * (PATIENCE - 1) + [False]
    assert made.renew(weights(0)) == 0
    states = states_of(VECTOR)
    assert torch.equal(fallback.stand_in(states).policy, teacher(states).policy)
    assert all(fallback.accepts(1.0) for _ in range(2 * PATIENCE))
    assert len(
        OneOf([make_stand_in(Whole(), blueprint), make_stand_in(Whole(format=Float32()), blueprint)]).pack()
    ) == (len(make_stand_in(auto, blueprint).pack()))


def broken(network):
    """Let a network answer what is no number."""
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)


def test_one_that_has_just_come_has_no_time_to_become_alike():
    poor = [Distillation(steps=1, learning_rate=1e-6, states=48 + i) for i in range(3)]
    auto = Auto(candidates=tuple(Student(width=0.25, distillation=one) for one in poor), kl_bound=1e-2)
    made, _, notes, _ = following(auto)
    for version in range(PATIENCE):
        made.renew(weights(10 * version))
    rows = [row for _, row in notes.rows]
    assert [row["choice"] for row in rows] == [*[0] * PATIENCE, 1, 2, 3]
    assert all(row["kl_after"] > 1e-2 for row in rows[:-1])
    assert rows[-1]["kl_after"] <= 1e-2
    fallback = make_fallback(auto, blueprint_of("mlp on vectors"))
    assert [fallback.accepts(1.0) for _ in range(PATIENCE)] == [True] * (PATIENCE - 1) + [False]
    assert fallback.accepts(0.0), "it is within the bound"
    assert [fallback.accepts(1.0) for _ in range(PATIENCE)] == [True] * (PATIENCE - 1) + [False]


def test_the_seconds_of_a_choice_that_falls_are_counted_once(monkeypatch):
    poor = Distillation(steps=1, learning_rate=1e-6)
    made, _, notes, _ = following(Auto(candidates=(Student(width=0.25, distillation=poor),), kl_bound=1e-2))
    made.renew(weights(0))
    made._compressor._above, clock = PATIENCE - 1, [made._started]
    monkeypatch.setattr(compressing.time, "perf_counter", lambda: clock[0])
    learn = made._compressor.learn

    def slow(teacher, states):
        clock[0] += 5.0
        return learn(teacher, states)

    monkeypatch.setattr(made._compressor, "learn", slow)
    made.renew(weights(10))
    assert [row["seconds"] for _, row in notes.rows[1:]] == pytest.approx([5.0, 5.0])
    assert made._spent_s == pytest.approx(10.0)


def test_answers_that_are_no_numbers_act_at_no_time():
    quick = Distillation(steps=1, batch_size=8)
    auto = Auto(candidates=(Student(distillation=quick), Whole(format=Int8(states=32))), kl_bound=1e9)
    made, _, notes, _ = following(auto)
    broken(made._compressor._compressors[0].shape.network)
    made.renew(weights(0))
    kls = [(row["choice"], math.isnan(row["kl_after"])) for _, row in notes.rows]
    assert kls == [(0, True), (1, False)]


def test_a_compressor_whose_answers_are_no_numbers_ends_the_run_and_says_what_to_do():
    made, _, _, _ = following(Student(distillation=Distillation(trigger=AboveKL())))
    assert made.renew(weights(0)) == 0
    broken(made._compressor.shape.network)
    broken(made._compressor.stand_in._network)
    complaint = r"compression a stand-in: its answers are not finite, after it followed version 7 .*\.learning_rate"
    with pytest.raises(RunError, match=complaint):
        made.renew(weights(7))


@pytest.mark.parametrize(
    ("compression", "part"), [("student", 0.5), ("whole", 0.51), ("channels", 0.5), ("binary", 0.95)]
)
def test_a_plan_knows_what_is_published_and_held(compression, part):
    plain = fitted(override(RECIPES["impala"](), ["env.id=hpcddrl/Catch-v0"]), 3)
    compressed = fitted(override(plain, [f"compression={compression}"]), 3)
    before, after = (job_of(config, checked(config)) for config in (plain, compressed))
    assert before.published == 4 * before.parameters
    assert after.published < part * before.published
    published = [flow.nbytes for flow in flows(after, 1000.0) if flow.kind == "weights"]
    assert published == [published_layout(after.published).nbytes]
    holds = {role: sum(p.total for p in parts) for role, parts in footprint(after, flows(after, 1000.0)).items()}
    held = {role: sum(p.total for p in parts) for role, parts in footprint(before, flows(before, 1000.0)).items()}
    assert holds[Role.LEARNER] > held[Role.LEARNER]
    assert holds[Role.ACTOR] < held[Role.ACTOR]


@torch.no_grad()
def test_an_actors_probabilities_are_those_of_what_acted():
    """μ is the stand-in's, at the time of acting: the learner's own network has others."""
    made, teacher, _, blueprint = following(Student(width=0.2, distillation=QUICK), kind="nips")
    made.renew(weights(0))
    actor = make_stand_in(Student(width=0.2), blueprint)
    actor.unpack(made.pack())
    states = states_of(SMALL, 16)
    acted = LocalPolicy(actor, Categorical(3), seed=0)(states.numpy())
    actions = torch.from_numpy(acted.action)
    own = Categorical(3).log_prob(actor(states).policy, actions).numpy()
    assert np.array_equal(acted.log_mu, own)
    assert not np.allclose(acted.log_mu, Categorical(3).log_prob(teacher(states).policy, actions).numpy())
