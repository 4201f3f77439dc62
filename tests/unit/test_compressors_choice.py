"""Compressors by configuration: what they report, which is picked, and what is refused."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from teachers import IMAGE, KINDS, SMALL, VECTOR, blueprint_of, size_of, states_of, teacher_of

from hpcddrl.compressors import report as report_module
from hpcddrl.compressors.auto import pick, ranked
from hpcddrl.compressors.compressed import Blueprint
from hpcddrl.compressors.cost import Cost
from hpcddrl.compressors.distillation import PolicyLikeness, mean_kl
from hpcddrl.compressors.make import make_compressor, make_stand_in, name_of, warning_of
from hpcddrl.compressors.report import Latency, Report, report, seconds_of
from hpcddrl.config import ActorCritic, Network
from hpcddrl.config.compression import (
    Auto,
    Binary,
    Cast,
    Channels,
    Compression,
    Distillation,
    FixedPoint,
    Float32,
    Int8,
    Magnitude,
    Student,
    Uncompressed,
    Whole,
)
from hpcddrl.networks.shares import AnswersInShares
from hpcddrl.rl.policies import Categorical
from hpcddrl.types import Output

ADAPTER = TypeAdapter(Compression | Auto)
QUICK = Distillation(steps=2, batch_size=8)
ALL = {
    "fp32": Whole(format=Float32()),
    "bf16": Whole(format=Cast()),
    "fp16": Whole(format=Cast(dtype="fp16")),
    "int8": Whole(format=Int8()),
    "fixed-point 25 dB": Whole(format=FixedPoint()),
    "student 0.25 fp32": Student(width=0.25, distillation=QUICK),
    "student mlp 0.25 int8": Student(width=0.25, torso="mlp", format=Int8(), distillation=QUICK),
    "channels 0.5 bf16": Channels(format=Cast(), distillation=QUICK),
    "channels 0.5 int8": Channels(format=Int8(), distillation=QUICK),
    "magnitude 0.8": Magnitude(rounds=2, distillation=QUICK),
    "binary": Binary(distillation=QUICK),
}


def validated(**data):
    return ADAPTER.validate_python(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALL)
@torch.no_grad()
def test_whatever_is_configured_follows_and_reaches_the_actors(kind, name):
    candidate, blueprint = ALL[name], blueprint_of(kind, width=0.25 if kind == "resnet" else 0.5)
    assert name_of(candidate) == name
    compressor, actor = make_compressor(candidate, blueprint), make_stand_in(candidate, blueprint)
    room, states = len(actor.pack()), states_of(blueprint.spec, 16)
    for seed in (0, 1):  # the teacher moves on
        compressor.follow(teacher_of(blueprint, seed), states)
        data = compressor.stand_in.pack()
        assert len(data) <= room
        actor.unpack(data)
        assert torch.equal(actor(states).policy, compressor.stand_in(states).policy)


@pytest.mark.parametrize("kind", ["nips", "resnet"])
@pytest.mark.parametrize("name", ALL)
def test_what_stands_in_answers_several_threads_as_it_answers_one(kind, name):
    blueprint = blueprint_of(kind, width=0.25)
    compressor, states = make_compressor(ALL[name], blueprint), states_of(blueprint.spec, 96)
    compressor.follow(teacher_of(blueprint), states[:16])
    shared = AnswersInShares(compressor.stand_in, 4)
    with torch.no_grad():
        wanted = [compressor.stand_in(part).policy for part in states.chunk(4)]
    for _ in range(5):
        assert torch.equal(shared(states).policy, torch.cat(wanted))


@torch.no_grad()
def test_the_identity_is_the_teacher_bit_for_bit():
    blueprint = blueprint_of("nips")
    teacher, states = teacher_of(blueprint), states_of(SMALL)
    compressor, actor = (make(ALL["fp32"], blueprint) for make in (make_compressor, make_stand_in))
    assert compressor.follow(teacher, states) == 0
    actor.unpack(compressor.stand_in.pack())
    assert torch.equal(actor(states).policy, teacher(states).policy)
    assert torch.equal(actor(states).value, teacher(states).value)


@torch.no_grad()
def test_following_leaves_the_teacher_alone():
    blueprint = blueprint_of("nips")
    teacher = teacher_of(blueprint)
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    for candidate in ALL.values():
        make_compressor(candidate, blueprint).follow(teacher, states_of(SMALL, 8))
    assert all(torch.equal(before[name], p) for name, p in teacher.named_parameters())


# --- reports


def reports(names, kind="nips", batches=(1, 4)):
    blueprint = blueprint_of(kind)
    teacher, states = teacher_of(blueprint), states_of(blueprint.spec, 24)
    compressors = {name: make_compressor(ALL[name], blueprint) for name in names}
    for compressor in compressors.values():
        compressor.follow(teacher, states)
    return report(compressors, blueprint, teacher, states, batches, repetitions=1), teacher


def test_a_report_says_what_is_saved_and_what_it_costs():
    rows, teacher = reports(["fp32", "int8", "student 0.25 fp32", "magnitude 0.8"])
    same, int8, student, zeros = rows
    assert [row.name for row in rows] == ["fp32", "int8", "student 0.25 fp32", "magnitude 0.8"]
    assert (same.agreement, same.nbytes) == (1.0, 4 * size_of(teacher))
    assert same.kl == pytest.approx(0.0, abs=1e-6)  # its layout is what is faster, and another one rounds otherwise
    assert 0 < int8.kl < 0.01
    assert int8.agreement > 0.8
    assert int8.cost == same.cost
    assert student.cost.parameters < same.cost.parameters
    assert student.cost.macs < same.cost.macs
    assert student.kl > int8.kl
    assert [latency.batch for latency in student.latencies] == [1, 4]
    assert all(latency.seconds > 0 for row in rows for latency in row.latencies)
    assert {latency.verdict for latency in zeros.latencies} == {"simulated"}
    floats = {(latency.batch, latency.best_float_s) for row in rows for latency in row.latencies}
    assert len(floats) == 2  # the same for all, of the same call


@torch.no_grad()
def test_a_kl_is_nan_where_answers_are_not_finite_and_never_below_nothing():
    teacher, other = (Output(torch.zeros(4, 3), torch.zeros(4)) for _ in range(2))
    likeness = PolicyLikeness(Categorical(3), 0.0)
    assert math.copysign(1, mean_kl(likeness, teacher, teacher)) == 1
    other.value[2] = math.inf
    assert math.isnan(mean_kl(likeness, teacher, other))
    other.value[2], other.policy[1, 1] = 0.0, math.nan
    assert math.isnan(mean_kl(likeness, teacher, other))
    assert math.isnan(mean_kl(likeness, other, teacher))
    below = SimpleNamespace(kl=lambda *_: torch.tensor([-1e-9]))
    assert mean_kl(below, teacher, teacher) == 0.0
    assert ranked([Whole()], [row("a", 0.1, math.nan)], kl_bound=1.0) == ()


@pytest.mark.parametrize(
    ("seconds", "simulated", "verdict"),
    [(0.9, False, "real speed"), (0.91, False, "not faster"), (2.0, False, "not faster"), (0.1, True, "simulated")],
)
def test_real_speed_is_a_tenth_less_than_the_best_float_format(seconds, simulated, verdict):
    assert Latency(16, seconds, 1.0, "fp32", simulated).verdict == verdict


def test_the_best_float_format_is_the_fastest_of_six():
    blueprint = Blueprint(Network(torso="nips"), ActorCritic(), IMAGE, 1)
    formats = report_module.float_formats(blueprint, teacher_of(blueprint), images=True)
    assert set(formats) == {f"{name}{layout}" for name in ("fp32", "bf16", "bf16 weights") for layout in ("", " NHWC")}
    wanted = formats["fp32"](states_of(IMAGE, 2))
    for answer in formats.values():
        torch.testing.assert_close(answer(states_of(IMAGE, 2)).policy, wanted.policy, atol=0.1, rtol=0.1)


def test_latencies_are_medians_taken_in_turns(monkeypatch):
    order, clock = [], iter(np.cumsum([0, 1, 0, 10, 0, 3, 0, 30, 0, 2, 0, 20]))
    monkeypatch.setattr(report_module.time, "perf_counter", lambda: float(next(clock)))
    named = {"a": lambda x: order.append("a"), "b": lambda x: order.append("b")}
    assert seconds_of(named, torch.zeros(1), repetitions=3) == {"a": 2.0, "b": 20.0}
    assert order == ["a", "b"] * 4
    clock = iter(np.cumsum([0, 3, 0, 10, 0, 1, 0, 30, 0, 2, 0, 20]))
    assert seconds_of(named, torch.zeros(1), repetitions=3, summary=min) == {"a": 1.0, "b": 10.0}


# --- picking


def row(name, seconds, kl, simulated=False):
    return Report(name, Cost(1, 1, 0), 1, 1.0, kl, (Latency(16, seconds, 1.0, "fp32", simulated),))


def test_those_within_the_bound_are_ranked_by_speed():
    candidates = [Whole(), Student(), Binary(), Magnitude()]
    table = [row("a", 0.8, 0.0), row("b", 0.5, 0.04), row("c", 0.2, 0.3), row("d", 0.1, 0.0, simulated=True)]
    assert ranked(candidates, table, kl_bound=0.05) == (candidates[1], candidates[0])
    assert ranked(candidates, table, kl_bound=0.01) == (candidates[0],)
    assert ranked(candidates, table, kl_bound=1.0) == (candidates[2], candidates[1], candidates[0])


def test_nothing_is_compressed_if_nothing_is_faster():
    assert ranked([Whole()], [row("a", 0.95, 0.0)], kl_bound=1.0) == ()


def test_picking_tries_all_and_judges_by_states_that_nobody_learned_from():
    blueprint = blueprint_of("nips")
    picked = pick(
        Auto(candidates=(ALL["int8"], ALL["student 0.25 fp32"], ALL["magnitude 0.8"]), kl_bound=1e9),
        blueprint,
        teacher_of(blueprint),
        states_of(SMALL, 32),
        batch=4,
        repetitions=1,
    )
    assert [r.name for r in picked.table] == ["int8", "student 0.25 fp32", "magnitude 0.8"]
    assert [latency.batch for r in picked.table for latency in r.latencies] == [4, 4, 4]
    assert not any(isinstance(candidate, Magnitude) for candidate in picked.chosen)


def test_too_few_states_and_two_of_a_name_are_refused():
    blueprint = blueprint_of("nips")
    teacher = teacher_of(blueprint)
    with pytest.raises(ValueError, match="3 observations of a first rollout are too few"):
        pick(Auto(), blueprint, teacher, states_of(SMALL, 3), batch=1)
    with pytest.raises(ValueError, match=r"two are called 'student 0\.5 fp32'"):
        pick(Auto(candidates=(Student(), Student())), blueprint, teacher, states_of(SMALL, 8), batch=1)


# --- what is refused, and what is warned of


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (
            {"kind": "whole", "format": {"kind": "fixed_point", "most_bits": 40}},
            r"most_bits\n.*less than or equal to 16",
        ),
        ({"kind": "whole", "format": {"kind": "fixed_point", "least_bits": 1}}, r"least_bits\n.*greater than or equal"),
        ({"kind": "whole", "format": {"kind": "fixed_point", "activation_bits": 0}}, "activation_bits"),
        (
            {"kind": "whole", "format": {"kind": "fixed_point", "least_bits": 9, "most_bits": 8}},
            "more than most_bits = 8",
        ),
        ({"kind": "whole", "format": {"kind": "int8", "bits": 4}}, "bits"),
        ({"kind": "whole", "format": {"kind": "cast", "dtype": "fp8"}}, "dtype"),
        ({"kind": "channels", "keep": 1.0}, r"keep\n.*less than 1"),
        ({"kind": "magnitude", "sparsity": 0.0}, r"sparsity\n.*greater than 0"),
        ({"kind": "binary", "format": {"kind": "int8"}}, "format"),
        ({"kind": "student", "width": 0.0}, "width"),
        ({"kind": "auto", "candidates": []}, "candidates"),
        ({"kind": "pruned"}, "pruned"),
    ],
)
def test_what_cannot_be_is_refused(data, complaint):
    with pytest.raises(ValidationError, match=complaint):
        validated(**data)


@pytest.mark.parametrize("candidate", [Uncompressed(), Auto(), *ALL.values()])
def test_a_configuration_comes_back_from_its_data(candidate):
    assert ADAPTER.validate_python(ADAPTER.dump_python(candidate, mode="json")) == candidate
    with pytest.raises(dataclasses.FrozenInstanceError):
        candidate.kind = "other"


def test_a_student_as_large_as_its_teacher_is_warned_of_with_both_sizes():
    blueprint = blueprint_of("nips", width=0.5)
    size = f"{size_of(blueprint.build()):,}"
    assert warning_of(Student(width=0.25), blueprint) is None
    assert warning_of(Channels(), blueprint) is None
    warning = warning_of(Student(width=0.5), blueprint)
    assert warning.startswith(f"compression.width = 0.5: the student has {size} parameters, its teacher {size};")


def test_a_torso_that_cannot_take_the_observations_is_refused_at_the_start():
    blueprint = Blueprint(Network(torso="mlp"), ActorCritic(), VECTOR, 1)
    with pytest.raises(ValueError, match=r"compression\.torso = 'nature', of the student: .*vectors of 5"):
        make_compressor(Student(torso="nature"), blueprint)
