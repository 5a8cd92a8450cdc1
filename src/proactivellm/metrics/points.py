"""Points of a quality-latency curve: which metrics there are, which scores belong together."""

from collections.abc import Mapping, Sequence
from typing import Any

from proactivellm.metrics.figure import shorten

QUALITIES = ("BLEU", "chrF", "F1", "EM")
LATENCIES = ("LAAL", "AL", "YAAL", "DAL", "RCO", "AIL", "LAAL_CA_ms")
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


def with_unit(latency: str) -> str:
    """Heading of a latency.

    Args:
        latency: key in the scores.
    """
    if latency in ("RCO", "AP"):
        return f"{latency} (share of the source)"
    return f"{latency} (ms)" if latency.endswith("_ms") else f"{latency} (source units)"


def setting(row: Mapping[str, Any]) -> str:
    """What tells a point from the others of its family: what was asked for, if that is known.

    Args:
        row: scores of one policy.
    """
    family, _, settings = str(row.get("request") or row["policy"]).partition(":")
    return shorten(settings or family, _SETTING)
