"""Checks units before any of them enters a stream."""

from collections.abc import Sequence

from torch import Tensor

from proactivellm.core.unit import Unit


class Intake:
    """Refuses units that a model could not read, by the rows and width of what it is given."""

    def __init__(self, vocabulary: int, width: int) -> None:
        self.vocabulary = vocabulary
        self.width = width

    def check(self, units: Sequence[Unit]) -> None:
        """Raise ValueError if one of the units cannot be read; names it and the value."""
        for number, unit in enumerate(units, start=1):
            if not isinstance(unit, Unit):
                raise ValueError(f"{unit!r} is no unit: push values of `Unit`")
            fault = self._fault(unit)
            if fault:
                raise ValueError(f"unit {number} of {len(units)} cannot be read: {fault}")

    def _fault(self, unit: Unit) -> str | None:
        if unit.features is not None:
            return self._fault_of_features(unit.features)
        for token in unit.token_ids:
            if not 0 <= token < self.vocabulary:
                return (
                    f"token id {token} is none of the model's, which are 0 to "
                    f"{self.vocabulary - 1}; take the tokenizer that belongs to it"
                )
        return None

    def _fault_of_features(self, features: Tensor) -> str | None:
        if not isinstance(features, Tensor):
            return f"features are {type(features).__name__}: give a tensor [T, {self.width}]"
        if features.dim() != 2 or features.shape[1] != self.width:
            return f"features are {list(features.shape)}: the model takes [T, {self.width}]"
        if not features.is_floating_point():
            return f"features are {features.dtype}: give floating-point numbers"
        # Elsewhere this would wait for the device: there the step that reads them notices.
        if features.device.type == "cpu" and not bool(features.isfinite().all()):
            return "features hold values that are not finite (NaN or infinite)"
        return None
