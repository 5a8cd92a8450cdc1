"""The text form of a policy: ``wait-k:3``, ``entropy:threshold=1.2,max_lag=6``, ``entropy:laal=3``.

Grammar: ``name`` | ``name:value`` | ``name:[value,]key=value,...``. The keys of a policy are the
fields of its class. Instead of a threshold: laal, rco, al, dal or quantile, looked up in a
calibration.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, NamedTuple

from proactivellm.files.toml import did_you_mean
from proactivellm.policy.agreement import HoldN, LocalAgreement
from proactivellm.policy.alignatt import AlignAtt
from proactivellm.policy.attention import (
    CALIBRATED,
    Attention,
    Combined,
    Concentration,
)
from proactivellm.policy.base import Policy
from proactivellm.policy.calibration import TARGETS, Calibration
from proactivellm.policy.endogenous import Confidence, Control, Entropy, ThresholdPolicy
from proactivellm.policy.fixed import Fixed, Offline, SentenceWaitK, WaitK
from proactivellm.policy.learned import Learned
from proactivellm.policy.options import format_scalar, from_scalar, parse_float, to_scalar
from proactivellm.policy.oracle import Oracle
from proactivellm.policy.spoken import Ctc

POLICIES: Mapping[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        WaitK,
        SentenceWaitK,
        Offline,
        Fixed,
        Entropy,
        Confidence,
        Control,
        Learned,
        Ctc,
        Attention,
        AlignAtt,
        Concentration,
        Combined,
        LocalAgreement,
        HoldN,
        Oracle,
    )
}


class PolicyRow(NamedTuple):
    """One line of the table of policies: name, keys (main key first), what it does."""

    name: str
    keys: tuple[str, ...]
    summary: str


def available_policies() -> list[PolicyRow]:
    """Return the table of policies for help and documentation."""
    rows = []
    for name, policy in POLICIES.items():
        summary = (inspect.getdoc(policy) or "").partition("\n")[0]
        rows.append(PolicyRow(name, _valid_keys(policy), summary))
    return rows


def parse_policy(
    text: str, calibration: Calibration | None = None, *, whole_source: bool = False
) -> Policy:
    """Turn the text form of a policy into the policy, whose `spec` has targets resolved.

    ValueError when the text is no policy, or its target cannot be resolved.

    Args:
        text: A spec, such as ``entropy:threshold=1.2,min_lag=1`` or ``entropy:laal=3``.
        calibration: The model's table, needed by targets and by ``heads=calibrated``.
        whole_source: Whether sources are given as a whole, so that an oracle may look at them.
    """
    return PolicySpec.parse(text).build(calibration, whole_source=whole_source)


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """A policy as asked for: parsed, but targets not resolved yet."""

    name: str
    values: Mapping[str, Any]  # the keys given, with parsed values
    target: tuple[str, float] | None = None  # (target, value) in place of a threshold, or None
    request: str  # the text as given, stripped; names the policy in logs and tables

    @classmethod
    def parse(cls, text: str) -> PolicySpec:
        """Read a spec; ValueError when the name, a key or a value is wrong."""
        request = text.strip()
        name, colon, rest = (part.strip() for part in request.partition(":"))
        if name not in POLICIES:
            raise ValueError(_unknown("policy", name, POLICIES))
        policy = POLICIES[name]
        if colon and not rest:
            raise ValueError(f"nothing follows the colon of policy {request!r}; {_usage(policy)}")
        try:
            texts = _split(policy, rest)
            parsers = {field.name: field.metadata["parse"] for field in policy.option_fields()}
            parsers |= dict.fromkeys(TARGETS, parse_float)
            values = {key: _parse(key, value, parsers[key]) for key, value in texts.items()}
            target = _pop_target(values)
        except ValueError as error:
            raise ValueError(f"policy {request!r}: {error}") from None
        for field in policy.option_fields():
            target_given = target is not None and field.name == "threshold"
            if field.default is MISSING and field.name not in values and not target_given:
                raise ValueError(f"policy {request!r} lacks {field.name}; {_usage(policy)}")
        return cls(name=name, values=values, target=target, request=request)

    def build(
        self, calibration: Calibration | None = None, *, whole_source: bool = False
    ) -> Policy:
        """Make the policy, with targets resolved by the model's table.

        ValueError when a value is out of range, a target cannot be resolved, or an oracle is asked
        for where no source is given as a whole.
        """
        if POLICIES[self.name].clairvoyant and not whole_source:
            raise ValueError(
                f"policy {self.request!r} looks at the whole source before it decides: it is a "
                "ceiling for `evaluate` and `study`, and cannot follow a stream"
            )
        values = dict(self.values)
        fields = {field.name: field for field in POLICIES[self.name].option_fields()}
        if values.get("heads") == CALIBRATED:
            values["heads"] = self._table(calibration).attention_heads
        if self.target is not None:
            self._make(values | {"threshold": 0.5})  # in range for all: checks the other options
            asked = {key: to_scalar(fields[key], value) for key, value in values.items()}
            threshold, options = self._table(calibration).resolve(self.name, asked, *self.target)
            unknown = sorted(options.keys() - fields.keys())
            if unknown:
                what = f"option of {self.name} in the calibration table"
                raise ValueError(_unknown(what, unknown[0], fields))
            values = {key: from_scalar(fields[key], scalar) for key, scalar in options.items()}
            values["threshold"] = threshold
        return self._make(values)

    def _make(self, values: Mapping[str, Any]) -> Policy:
        try:
            return POLICIES[self.name](**values)
        except ValueError as error:
            raise ValueError(f"policy {self.request!r}: {error}") from None

    def _table(self, calibration: Calibration | None) -> Calibration:
        if calibration is None:
            raise ValueError(
                f"policy {self.request!r} needs a calibration table and the model has none; make "
                f"one with `proactivellm calibrate --policy {self.name}` or give threshold=..."
            )
        return calibration


def _split(policy: type[Policy], text: str) -> dict[str, str]:
    """Split ``value,key=value,...`` into texts by key; a leading bare value has the main key."""
    texts: dict[str, str] = {}
    for position, item in enumerate(text.split(",") if text else ()):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            if policy.main_key is None:
                raise ValueError(f"{policy.name} takes no value, got {key!r}")
            if position:
                raise ValueError(f"{key!r} is no key=value; {_usage(policy)}")
            key, value = policy.main_key, key
        if key not in _valid_keys(policy):
            raise ValueError(_unknown(f"key of {policy.name}", key, _valid_keys(policy)))
        if not value:
            raise ValueError(f"{key} has no value; {_usage(policy)}")
        if key in texts:
            raise ValueError(f"{key} is given twice; give it once")
        texts[key] = value
    return texts


def _parse(key: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from None


def _pop_target(values: dict[str, Any]) -> tuple[str, float] | None:
    given = [key for key in values if key in TARGETS or key == "threshold"]
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]} both set the threshold; give one of them")
    if not given or given[0] == "threshold":
        return None
    value = values.pop(given[0])
    if not math.isfinite(value):
        raise ValueError(f"{given[0]} must be a finite number, got {format_scalar(value)}")
    return given[0], value


def _valid_keys(policy: type[Policy]) -> tuple[str, ...]:
    keys = tuple(field.name for field in policy.option_fields())
    return (*keys, *TARGETS) if issubclass(policy, ThresholdPolicy) else keys


def _usage(policy: type[Policy]) -> str:
    if policy.main_key is None:
        return f"write {policy.name}"
    return f"write {policy.name}:VALUE or {policy.name}:{policy.main_key}=..."


def _unknown(what: str, name: str, valid: Iterable[str]) -> str:
    valid = list(valid)
    remedy = [did_you_mean(name, valid), f"Valid: {', '.join(valid) or 'none'}"]
    return f"unknown {what}: {name!r}; {' '.join(filter(None, remedy))}"
