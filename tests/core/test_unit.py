"""The unit as a value: defaults, the end marker, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from proactivellm.core.unit import Unit


def test_end_marker_is_the_only_unit_without_payload_that_ends_the_source() -> None:
    assert Unit.end().is_end and Unit.end() == Unit(final=True)
    assert Unit.end(2.5).start_s == Unit.end(2.5).end_s == 2.5
    assert not Unit(token_ids=(1,), final=True).is_end
    assert not Unit(features=torch.zeros(2, 3), final=True).is_end
    assert not Unit().is_end


def test_unit_is_frozen_and_hashable_and_stores_ids_as_a_tuple() -> None:
    unit = Unit(text="Hund", token_ids=[3, 4])  # type: ignore[arg-type]
    assert unit.token_ids == (3, 4)
    assert hash(unit) == hash(Unit(text="Hund", token_ids=(3, 4)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        unit.final = True  # type: ignore[misc]


def test_units_with_features_can_be_compared() -> None:
    one, other = Unit(features=torch.zeros(2, 3)), Unit(features=torch.ones(2, 3))
    assert one == other  # features do not take part; comparing tensors would raise
    assert one != Unit(features=torch.zeros(2, 3), end_s=1.0)


def test_two_payloads_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        Unit(token_ids=(1,), features=torch.zeros(1, 3))


def test_time_cannot_run_backwards() -> None:
    with pytest.raises(ValueError, match=r"end_s=1\.0 .* start_s=2\.0"):
        Unit(start_s=2.0, end_s=1.0)
