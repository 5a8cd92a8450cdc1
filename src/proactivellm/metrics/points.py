"""Points of a quality-latency curve: which metrics there are, which scores belong together."""

from collections.abc import Mapping, Sequence
from typing import Any

from proactivellm.metrics.figure import shorten

QUALITIES = ("BLEU", "chrF", "F1", "EM", "WER", "CER")
LOWER_IS_BETTER = ("WER", "CER")
LATENCIES = ("LAAL", "AL", "YAAL", "DAL", "RCO", "AIL", "LAAL_CA_ms")
LAGS = ("AL", "LAAL", "YAAL", "DAL", "AIL")  # in the unit of the source
_SETTING = 22  # characters of a label at most


def present(scores: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Those of the metrics that any of the scores has.

    Args:
        scores: what `report.score` returned.
        names: keys.
    """
    return [name for name in names if any(row.get(name) is not None for row in scores)]


def choose_quality(scores: Sequence[Mapping[str, Any]]) -> str:
    """The first of QUALITIES that any of the scores has; BLEU if none has one.

    Args:
        scores: what `report.score` returned.
    """
    return next(iter(present(scores, QUALITIES)), QUALITIES[0])


def points_by_family(
    scores: Sequence[Mapping[str, Any]], quality: str, latency: str
) -> dict[str, list[Mapping[str, Any]]]:
    """The scores that have both numbers, by the name before ':', each in order of latency.

    Args:
        scores: what `report.score` returned.
        quality: key.
        latency: key.
    """
    families: dict[str, list[Mapping[str, Any]]] = {}
    for row in scores:
        if row.get(quality) is not None and row.get(latency) is not None:
            families.setdefault(str(row["policy"]).partition(":")[0], []).append(row)
    return {name: sorted(rows, key=lambda row: row[latency]) for name, rows in families.items()}


def with_unit(latency: str, scores: Sequence[Mapping[str, Any]]) -> str:
    """Heading of a latency.

    Args:
        latency: key in the scores.
        scores: what `report.score` returned.
    """
    if latency in ("RCO", "AP"):
        return f"{latency} (share of the source)"
    if latency.endswith("_ms"):
        return f"{latency} (ms)"
    units = {row.get("latency_unit", "source units") for row in scores}
    return f"{latency} ({' or '.join(sorted(units)) or 'source units'})"


def with_direction(quality: str) -> str:
    """Heading of a quality: tells where less is more.

    Args:
        quality: key in the scores.
    """
    return f"{quality} (lower is better)" if quality in LOWER_IS_BETTER else quality


def decimals_of(key: str, decimals: int, row: Mapping[str, Any]) -> int:
    """Decimals of a number in a table: lags in ms need none.

    Args:
        key: of the number.
        decimals: where lags are in source units.
        row: scores of one policy.
    """
    return 0 if key in LAGS and row.get("latency_unit") == "ms" else decimals


def setting(row: Mapping[str, Any]) -> str:
    """What tells a point from the others of its family: what was asked for, if that is known.

    Args:
        row: scores of one policy.
    """
    family, _, settings = str(row.get("request") or row["policy"]).partition(":")
    return shorten(settings or family, _SETTING)
