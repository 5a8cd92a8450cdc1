"""The calibration table: thresholds measured on dev data -> the threshold for a target latency.

`calibrate` stores it beside the model as calibration.json; ``entropy:laal=3`` is looked up in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from proactivellm.files.replace import write_text
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.evidence import Heads
from proactivellm.policy.options import Scalar, format_scalar

CALIBRATION_FILE = "calibration.json"

# What a spec may give instead of a threshold -> the field of a point that holds it.
TARGETS: Mapping[str, str] = {"laal": "LAAL", "rco": "RCO", "al": "AL", "quantile": "quantile"}


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
    quality: float  # BLEU, or F1 of answers, or 100 - WER of transcripts; 100 at best

    @classmethod
    def measured(
        cls, policy: ThresholdPolicy, scores: Mapping[str, float], quantile: float | None = None
    ) -> CalibrationPoint:
        """The point of a policy that was run on dev data, of scores LAAL, RCO, AL, and WER, F1 or
        BLEU.

        `quantile` is what gave the threshold, if one did. ValueError when a score is missing or not
        finite.
        """
        metric = next((name for name in ("WER", "F1") if name in scores), "BLEU")
        missing = [name for name in ("LAAL", "RCO", "AL", metric) if name not in scores]
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
            quality=100 - scores[metric] if metric == "WER" else scores[metric],
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

        Points with the same options make a curve. Only curves that agree with `options` count; of
        those that reach the target, the one with the best quality there (interpolated) wins.
        ValueError when no curve reaches the value; names the range covered.

        Args:
            options: The options the user fixed (scalars, as in CalibrationPoint.options); those not
                named are free.
            target: "laal" or "al" (source units or, of media, ms), "rco" or "quantile" (0 to 1).

        Returns:
            The threshold (6 significant digits) and all options of the curve.
        """
        if target not in TARGETS:
            raise ValueError(f"unknown target {target!r}; use one of {', '.join(TARGETS)}")
        asked = ",".join(f"{k}={format_scalar(v)}" for k, v in {target: value, **options}.items())
        groups = self._groups(name, options, target)
        if not groups:
            raise ValueError(
                f"{name}:{asked} is not in the calibration table, which has no {target} of {name} "
                f"with such options; measure it with `proactivellm calibrate --policy {name}`"
            )
        curves = [_curve(points, TARGETS[target]) for points in groups]
        reached = [
            (curve.at(value), dict(points[0].options))
            for curve, points in zip(curves, groups, strict=True)
            if curve.target[0] <= value <= curve.target[-1]
        ]
        if not reached:
            raise ValueError(
                f"{name}:{asked} is outside the calibrated range, {target} {_ranges(curves)}; "
                f"choose a value inside, or measure more with `proactivellm calibrate --policy "
                f"{name}`"
            )
        (threshold, _), best = max(reached, key=lambda candidate: candidate[0][1])
        return float(f"{threshold:.6g}"), best

    def _groups(
        self, name: str, options: Mapping[str, Scalar], target: str
    ) -> list[list[CalibrationPoint]]:
        """Points of `name` that have the target and agree with `options`, one list a curve."""
        groups: dict[frozenset[tuple[str, Scalar]], list[CalibrationPoint]] = {}
        for point in self.points:
            agrees = all(k in point.options and point.options[k] == v for k, v in options.items())
            if point.policy == name and agrees and getattr(point, TARGETS[target]) is not None:
                groups.setdefault(frozenset(point.options.items()), []).append(point)
        return list(groups.values())

    @property
    def attention_heads(self) -> Heads:
        """The calibrated heads; raises ValueError when the table has none."""
        if not self.heads:
            raise ValueError(
                "the calibration table has no attention heads; "
                "make them with `proactivellm calibrate --policy attention`"
            )
        return self.heads


@dataclass(frozen=True)
class _Curve:
    target: tuple[float, ...]
    threshold: tuple[float, ...]
    quality: tuple[float, ...]

    def at(self, value: float) -> tuple[float, float]:
        threshold = np.interp(value, self.target, self.threshold)
        return float(threshold), float(np.interp(value, self.target, self.quality))


def _curve(points: Sequence[CalibrationPoint], field: str) -> _Curve:
    """Make target-versus-threshold strictly monotone by isotonic regression.

    Latency is monotone in the threshold in expectation, but measured with noise. Whether it rises
    or falls is read off the points (sign of their covariance). Neighbours in the wrong order, or
    level, are pooled to their mean (pool adjacent violators), threshold and quality with them.
    """
    ordered = sorted(points, key=lambda point: point.threshold)
    rows = np.array(
        [(getattr(p, field), p.threshold, p.quality) for p in ordered], dtype=np.float64
    )
    deviation = rows - rows.mean(axis=0)
    if deviation[:, 0] @ deviation[:, 1] < 0:
        rows = rows[::-1]
    blocks: list[tuple[np.ndarray, int]] = []  # (sum of rows, number of rows)
    for row in rows:
        total, count = row, 1
        while blocks and blocks[-1][0][0] / blocks[-1][1] >= total[0] / count:
            earlier, num_earlier = blocks.pop()
            total, count = total + earlier, count + num_earlier
        blocks.append((total, count))
    means = [total / count for total, count in blocks]
    target, threshold, quality = (tuple(map(float, column)) for column in zip(*means, strict=True))
    return _Curve(target, threshold, quality)


def _ranges(curves: Sequence[_Curve]) -> str:
    """Name the union of the ranges of the curves: "1.5 to 4.2 and 6 to 8", "640 to 1211"."""
    merged: list[tuple[float, float]] = []
    for low, high in sorted((curve.target[0], curve.target[-1]) for curve in curves):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return " and ".join(f"{_rounded(low)} to {_rounded(high)}" for low, high in merged)


def _rounded(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
