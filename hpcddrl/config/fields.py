"""The kinds of numbers that configurations hold, how strictly they are read, and what a rule about them is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import ConfigDict, Field

UNFINISHED = "unfinished"  # the context of a validation to which more settings will be added
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)
Rules = Iterator[tuple[bool, str]]  # whether each is broken, and the complaint: fields, values, the rule, the way out
