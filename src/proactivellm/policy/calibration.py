"""The calibration table: thresholds measured on dev data -> the threshold for a target latency.

`calibrate` stores it beside the model as calibration.json; ``entropy:laal=3`` is looked up in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from proactivellm.files.replace import write_text
from proactivellm.policy.curve import Curve, make_curve, ranges, tightest
from proactivellm.policy.endogenous import Control, ThresholdPolicy
from proactivellm.policy.evidence import Heads
from proactivellm.policy.learned import Learned
from proactivellm.policy.options import Scalar, format_scalar

CALIBRATION_FILE = "calibration.json"

# What a spec may give instead of a threshold -> the field of a point that holds it.
TARGETS: Mapping[str, str] = {
    "laal": "LAAL",
    "rco": "RCO",
    "al": "AL",
    "dal": "DAL",
    "quantile": "quantile",
}

# Qualities that differ by less count as equal: some hundred dev sentences cannot tell them apart
# (half a 95% interval of their BLEU is 1 to 3 points).
QUALITY_TOLERANCE = 1.0
# How far below a target a better point may lie, as a share of the target.
_BELOW = 0.1
# Share of empty outputs above which a point is degenerate: lags are means over the others.
_MOST_EMPTY = 0.1
# Thresholds are interpolated by log-odds: to those of `learned` each unit of lag adds the same;
# those of `control` span powers of ten.
_BY_ODDS = (Learned.name, Control.name)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CalibrationPoint(_Strict):
    """One policy as measured on dev data."""

    policy: str
    # All keys of the policy but the threshold, defaults included.
    options: dict[str, int | float | str | None]
    threshold: float
    # Share of the dev statistic below the threshold, when that is how it was chosen.
    quantile: float | None = None
    LAAL: float  # length-adaptive average lagging, source units or, of media, ms; AL likewise
    RCO: float  # reading completeness, 0 to 1
    AL: float
    DAL: float | None = None  # in the same unit; None in tables that were made without it
    quality: float  # BLEU, or F1 of answers, or 100 - WER of transcripts; 100 at best
    # Whether its lag says little: late output hides behind a few early words, or many outputs are
    # empty. None in tables that were made without it.
    degenerate: bool | None = None

    @classmethod
    def measured(
        cls, policy: ThresholdPolicy, scores: Mapping[str, float], quantile: float | None = None
    ) -> CalibrationPoint:
        """The point of a policy that was run on dev data, of what `metrics.score` gives.

        `quantile` is what gave the threshold, if one did. ValueError when a lag, or the BLEU, WER
        or F1, is missing or not finite.
        """
        metric = next((name for name in ("WER", "F1") if name in scores), "BLEU")
        missing = [name for name in ("LAAL", "RCO", "AL", "DAL", metric) if name not in scores]
        if missing:
            raise ValueError(f"scores of {policy.spec} lack {', '.join(missing)}")
        options = {k: v for k, v in policy.options.items() if k != "threshold"}
        return cls(
            policy=policy.name,
            options=options,
            threshold=policy.threshold,
            quantile=quantile,
            LAAL=scores["LAAL"],
            RCO=scores["RCO"],
            AL=scores["AL"],
            DAL=scores["DAL"],
            quality=100 - scores[metric] if metric == "WER" else scores[metric],
            degenerate=_is_degenerate(scores),
        )


class CalibrationMeta(_Strict):
    """Where the table comes from: the data in words (say "dev", never test), and instances run."""

    source: str
    num_instances: PositiveInt


class Calibration(_Strict):
    """All points measured for one model."""

    version: Literal[2] = 2
    meta: CalibrationMeta
    default: str | None = None  # spec of the policy to use where none is named, or None
    # (layer, head) pairs for ``attention:heads=calibrated``, or None
    heads: tuple[tuple[NonNegativeInt, NonNegativeInt], ...] | None = None
    points: tuple[CalibrationPoint, ...]  # the measurements, in any order

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a table: a JSON file, or the model folder that holds calibration.json.

        ValueError when there is none, or it is malformed.
        """
        file = Path(path)
        file = file / CALIBRATION_FILE if file.is_dir() else file
        try:
            return cls.model_validate_json(file.read_bytes(), strict=True)
        except OSError as error:
            raise ValueError(
                f"no calibration table at {file} ({error.strerror}); "
                "make one with `proactivellm calibrate`"
            ) from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "file"
            raise ValueError(
                f"{file} is no calibration table of version 2: {where}: {first['msg']} "
                f"({error.error_count()} problem(s)); make it anew with `proactivellm calibrate`"
            ) from None

    def merged(self, newer: Calibration) -> Calibration:
        """Both tables of a model: policies measured in `newer` replace those here."""
        measured = {point.policy for point in newer.points}
        kept = tuple(point for point in self.points if point.policy not in measured)
        return Calibration(
            meta=newer.meta,
            default=newer.default or self.default,
            heads=newer.heads or self.heads,
            points=kept + newer.points,
        )

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, to a file or into a model folder."""
        file = Path(path)
        file = file / CALIBRATION_FILE if file.is_dir() else file
        write_text(file, self.model_dump_json(indent=2) + "\n")

    def resolve(
        self, name: str, options: Mapping[str, Scalar], target: str, value: float
    ) -> tuple[float, dict[str, Scalar]]:
        """Find the threshold that gave a target on dev data.

        Points with the same options make a curve; degenerate ones are left out. Of the curves that
        agree with `options` and reach the target, those whose quality there (interpolated) is
        within QUALITY_TOLERANCE of the best are equally good, and the one with the tightest bounds
        wins: the smallest max_lag, then the largest min_lag, then the best quality. A curve need
        not rise: where points at a lag up to a tenth below the target are better than all that by
        more than the tolerance, the choice is among them.

        ValueError when no curve reaches the value; names the range covered.

        Args:
            options: The options the user fixed (scalars, as in CalibrationPoint.options); those not
                named are free.
            target: "laal", "al" or "dal" (source units or, of media, ms), "rco" or "quantile" (0 to
                1).

        Returns:
            The threshold (6 significant digits) and all options of the curve.
        """
        if target not in TARGETS:
            raise ValueError(f"unknown target {target!r}; use one of {', '.join(TARGETS)}")
        asked = ",".join(f"{k}={format_scalar(v)}" for k, v in {target: value, **options}.items())
        groups, left_out = self._groups(name, options, target)
        if not groups:
            raise ValueError(
                f"{name}:{asked} is not in the calibration table, which has no {target} of {name} "
                f"with such options{left_out}; measure it with `proactivellm calibrate --policy "
                f"{name}`"
            )
        curves = [_curve(points, TARGETS[target]) for points in groups]
        reached = [c.at(value) for c in curves if c.target[0] <= value <= c.target[-1]]
        if not reached:
            raise ValueError(
                f"{name}:{asked} is outside the calibrated range, {target} {ranges(curves)}"
                f"{left_out}; choose a value inside, or measure more with `proactivellm calibrate "
                f"--policy {name}`"
            )
        if target != "quantile":  # a lag, of which less is better
            best = max(choice.quality for choice in reached) + QUALITY_TOLERANCE
            below = [k for c in curves for k in c.knots if (1 - _BELOW) * value <= k.target < value]
            reached = [knot for knot in below if knot.quality > best] or reached
        chosen = tightest(reached, QUALITY_TOLERANCE)
        threshold = chosen.threshold
        if name in _BY_ODDS:
            threshold = 1 / (1 + math.exp(-threshold))
        return float(f"{threshold:.6g}"), dict(chosen.options)

    def _groups(
        self, name: str, options: Mapping[str, Scalar], target: str
    ) -> tuple[list[list[CalibrationPoint]], str]:
        """Points of `name` that have the target and agree with `options`, one list a curve.

        Besides, what to say of degenerate points, which are left out: "" if there are none.
        """
        groups: dict[frozenset[tuple[str, Scalar]], list[CalibrationPoint]] = {}
        num_degenerate = 0
        for point in self.points:
            agrees = all(k in point.options and point.options[k] == v for k, v in options.items())
            if point.policy != name or not agrees or getattr(point, TARGETS[target]) is None:
                continue
            if point.degenerate and target != "quantile":  # which asks for no latency
                num_degenerate += 1
            else:
                groups.setdefault(frozenset(point.options.items()), []).append(point)
        left_out = f" ({num_degenerate} degenerate point(s) left out)" if num_degenerate else ""
        return list(groups.values()), left_out

    @property
    def attention_heads(self) -> Heads:
        """The calibrated heads; raises ValueError when the table has none."""
        if not self.heads:
            raise ValueError(
                "the calibration table has no attention heads; "
                "make them with `proactivellm calibrate --policy attention`"
            )
        return self.heads


def _curve(points: Sequence[CalibrationPoint], field: str) -> Curve:
    """Of points that differ in threshold only, by log-odds for those of `_BY_ODDS`."""
    thresholds = [point.threshold for point in points]
    if points[0].policy in _BY_ODDS:
        thresholds = [math.log(p) - math.log1p(-p) for p in thresholds]
    targets, qualities = [getattr(p, field) for p in points], [p.quality for p in points]
    measured = list(zip(targets, thresholds, qualities, strict=True))
    return make_curve(measured, points[0].options)


def _is_degenerate(scores: Mapping[str, Any]) -> bool:
    empty = scores.get("num_empty", 0) > _MOST_EMPTY * scores.get("num_instances", math.inf)
    # An answer is short and comes when it comes, which for a text would be hiding.
    return empty or bool("F1" not in scores and scores.get("degenerate"))
