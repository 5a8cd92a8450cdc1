"""Kinds of numbers in settings, with the bounds that pydantic checks."""

from typing import Annotated

from pydantic import AfterValidator, Field


def ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    """Refuses (ValueError) a range whose lower bound is above the upper one."""
    if bounds[0] > bounds[1]:
        raise ValueError(f"the lower bound {bounds[0]} is above the upper bound {bounds[1]}")
    return bounds


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Range = Annotated[tuple[float, float], AfterValidator(ordered)]
Shares = Annotated[tuple[Share, Share], AfterValidator(ordered)]
Counts = Annotated[tuple[Count, Count], AfterValidator(ordered)]
