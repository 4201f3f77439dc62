"""Every axis of a run as a frozen dataclass; a recipe is one value of `Config`.

An axis with several answers is a union of small classes, told apart by ``kind``, so that no field is "only used
when". Validation is pydantic's; `settings` turns its complaints into one line.
"""

from hpcddrl.config.acting import Acting, CentralActing, Env, LocalActing, Topology
from hpcddrl.config.algorithm import (
    ActorCritic,
    Algorithm,
    ClippedSurrogate,
    LinearEpsilon,
    Network,
    PolicyGradient,
    QLearning,
    SpreadEpsilon,
    Surrogate,
)
from hpcddrl.config.compression import Compression, Uncompressed
from hpcddrl.config.coupling import Coupling, Ensemble, Teacher, Uncoupled
from hpcddrl.config.experience import Experience, Fresh, Proportional, RankBased, Replay, Uniform
from hpcddrl.config.fields import UNFINISHED
from hpcddrl.config.run import SCHEMA, Budget, Config, Logging
from hpcddrl.config.update import (
    AdaGrad,
    Adam,
    AdaptiveCompensation,
    AllReduce,
    ConstantCompensation,
    LocalUpdate,
    NoCompensation,
    Optimization,
    ParameterServer,
    RMSProp,
    Update,
)

__all__ = [
    "SCHEMA",
    "UNFINISHED",
    "Acting",
    "ActorCritic",
    "AdaGrad",
    "Adam",
    "AdaptiveCompensation",
    "Algorithm",
    "AllReduce",
    "Budget",
    "CentralActing",
    "ClippedSurrogate",
    "Compression",
    "Config",
    "ConstantCompensation",
    "Coupling",
    "Ensemble",
    "Env",
    "Experience",
    "Fresh",
    "LinearEpsilon",
    "LocalActing",
    "LocalUpdate",
    "Logging",
    "Network",
    "NoCompensation",
    "Optimization",
    "ParameterServer",
    "PolicyGradient",
    "Proportional",
    "QLearning",
    "RMSProp",
    "RankBased",
    "Replay",
    "SpreadEpsilon",
    "Surrogate",
    "Teacher",
    "Topology",
    "Uncompressed",
    "Uncoupled",
    "Uniform",
    "Update",
]
