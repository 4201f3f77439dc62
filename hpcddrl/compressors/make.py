"""From a configuration to its compressor."""

from __future__ import annotations

from typing import assert_never

import torch

from hpcddrl.compressors.binary import Binary, binarise
from hpcddrl.compressors.cast import CastStandIn, Float32StandIn
from hpcddrl.compressors.channels import Channels
from hpcddrl.compressors.compressed import Blueprint, Compressor, Shape, StandIn
from hpcddrl.compressors.distillation import Distiller, likeness_of
from hpcddrl.compressors.fallback import Fallback, OneOf
from hpcddrl.compressors.fixed_point_network import FixedPointStandIn
from hpcddrl.compressors.int8 import Int8StandIn
from hpcddrl.compressors.pruning import Magnitude, SparseStandIn
from hpcddrl.compressors.student import Student, Whole
from hpcddrl.compressors.xnor_network import XnorStandIn
from hpcddrl.config import compression
from hpcddrl.networks.flat import size
from hpcddrl.networks.make import AnyNetwork

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def make_compressor(candidate: compression.Candidate, blueprint: Blueprint) -> Compressor:
    """Return a learner's compressor; its stand-in knows nothing until it has followed a teacher.

    Raises:
        ValueError: the student's torso cannot take the observations.
    """
    beside = not isinstance(candidate, compression.Whole) and candidate.distillation.beside
    stand_in, trigger = make_stand_in(candidate, blueprint), compression.trigger_of(candidate)
    return Compressor(_shape(candidate, blueprint), stand_in, trigger, beside)


def make_fallback(auto: compression.Auto, blueprint: Blueprint) -> Fallback:
    """Return a learner's compressor that begins with the first of the candidates.

    Raises:
        ValueError: a student's torso cannot take the observations.
    """
    made = [make_compressor(candidate, blueprint) for candidate in compression.candidates_of(auto)]
    return Fallback(made, auto.kl_bound)


def make_stand_in(candidate: compression.Candidate | compression.Auto, blueprint: Blueprint) -> StandIn:
    """Return what acts in a teacher's place, to be filled by `StandIn.unpack`.

    Raises:
        ValueError: the student's torso cannot take the observations.
    """
    if isinstance(candidate, compression.Auto):
        return OneOf([make_stand_in(one, blueprint) for one in compression.candidates_of(candidate)])
    network = _network(candidate, blueprint)
    match candidate:
        case compression.Magnitude(sparsity=sparsity):
            return SparseStandIn(network, sparsity)
        case compression.Binary():
            return XnorStandIn(network)
    match candidate.format:
        case compression.Float32():
            return Float32StandIn(network, blueprint.spec, blueprint.precision)
        case compression.Cast(dtype=dtype):
            return CastStandIn(network, DTYPES[dtype])
        case compression.Int8(states=states):
            return Int8StandIn(network, states)
        case compression.FixedPoint() as fixed_point:
            return FixedPointStandIn(network, fixed_point)
    assert_never(candidate.format)


def warning_of(candidate: compression.Candidate, blueprint: Blueprint) -> str | None:
    """Return a complaint about a student that is no smaller than its teacher, if it is one."""
    if not isinstance(candidate, compression.Student):
        return None
    student, teacher = (_parameters(n) for n in (_network(candidate, blueprint), blueprint.build()))
    if student < teacher:
        return None
    return (
        f"compression.width = {candidate.width:g}: the student has {student:,} parameters, its teacher {teacher:,}; "
        "a smaller one would act faster"
    )


def shape_parameters(candidate: compression.Candidate, blueprint: Blueprint) -> int:
    """Return how many parameters the float network behind a stand-in has, thresholds of signs not counted."""
    return _parameters(_network(candidate, blueprint))


def name_of(candidate: compression.Candidate) -> str:
    """Return a candidate's name for tables, such as ``student 0.5 int8``."""
    match candidate:
        case compression.Whole():
            words = [_name_of(candidate.format)]
        case compression.Student():
            torso = [] if candidate.torso == "same" else [candidate.torso]
            words = ["student", *torso, f"{candidate.width:g}", _name_of(candidate.format)]
        case compression.Channels():
            words = ["channels", f"{candidate.keep:g}", _name_of(candidate.format)]
        case compression.Magnitude():
            words = ["magnitude", f"{candidate.sparsity:g}"]
        case compression.Binary():
            words = ["binary"]
    return " ".join(words)


def _name_of(form: compression.Format) -> str:
    match form:
        case compression.Cast(dtype=dtype):
            return dtype
        case compression.FixedPoint(sqnr_db=sqnr):
            return f"fixed-point {sqnr:g} dB"
    return form.kind


def _network(candidate: compression.Candidate, blueprint: Blueprint) -> AnyNetwork:
    match candidate:
        case compression.Student(torso=torso, width=width):
            try:
                return blueprint.build(torso=torso, width=width)
            except ValueError as error:
                raise ValueError(f"compression.torso = {torso!r}, of the student: {error}") from None
        case compression.Channels(keep=keep):
            return blueprint.build(width=blueprint.network.width * keep)
    return blueprint.build()


def _shape(candidate: compression.Candidate, blueprint: Blueprint) -> Shape:
    network = _network(candidate, blueprint)
    if isinstance(candidate, compression.Whole):
        return Whole(network)
    layers = binarise(network) if isinstance(candidate, compression.Binary) else []
    config = candidate.distillation
    likeness = likeness_of(network, blueprint.spec, config.entropy_coefficient)
    distiller = Distiller(network, config, likeness, blueprint.seed)
    match candidate:
        case compression.Student():
            return Student(network, distiller)
        case compression.Channels():
            return Channels(network, distiller)
        case compression.Magnitude(sparsity=sparsity, rounds=rounds):
            return Magnitude(network, sparsity, rounds, distiller)
        case compression.Binary():
            return Binary(network, layers, distiller)
    assert_never(candidate)


def _parameters(network: AnyNetwork) -> int:
    return size(network)
