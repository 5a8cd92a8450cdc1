"""Points of a quality-latency curve: which metrics there are, which belong together, their names.

In: what `metrics.score` returned, an object per policy. The picture and the page both use this.
"""

from collections.abc import Mapping, Sequence
from typing import Any

QUALITIES = ("BLEU", "chrF", "F1", "EM", "accuracy", "ROUGE-L", "ROUGE-1", "ROUGE-2", "WER", "CER")
LOWER_IS_BETTER = ("WER", "CER")
LATENCIES = ("LAAL", "AL", "YAAL", "DAL", "RCO", "AIL", "LAAL_CA_ms")
LAGS = ("AL", "LAAL", "YAAL", "DAL", "AIL")  # in the unit of the source
OFFLINE = "offline"
ORACLE = "oracle"

Row = Mapping[str, Any]


def present(scores: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Those of the metrics that any of the scores has."""
    return [name for name in names if any(row.get(name) is not None for row in scores)]


def choose_quality(scores: Sequence[Row]) -> str:
    """The first of QUALITIES that any of the scores has; BLEU if none has one."""
    return next(iter(present(scores, QUALITIES)), QUALITIES[0])


def family(row: Row) -> str:
    """What a line of the curve is called: the name of the policy, after its arm or folder."""
    return str(row["policy"]).partition(":")[0]


def asked_for(row: Row) -> str:
    """The policy as it was asked for, where that is known: `entropy:laal=3`, no threshold."""
    return str(row.get("request") or row["policy"])


def split_family(name: str) -> tuple[str, str]:
    """The arm (of a study; or A, B), empty where there is none, and the name of the policy."""
    arm, _, policy = name.rpartition("/")
    return arm, policy


def is_offline(name: str) -> bool:
    """Whether a family is a level to compare with, not a curve."""
    return split_family(name)[1] == OFFLINE


def points_by_family(scores: Sequence[Row], quality: str, latency: str) -> dict[str, list[Row]]:
    """The scores that have both numbers, each family in order of latency."""
    families: dict[str, list[Row]] = {}
    for row in scores:
        if row.get(quality) is not None and row.get(latency) is not None:
            families.setdefault(family(row), []).append(row)
    return {name: sorted(rows, key=lambda row: row[latency]) for name, rows in families.items()}


def with_unit(latency: str, scores: Sequence[Row]) -> str:
    """Heading of a latency."""
    if latency in ("RCO", "AP"):
        return f"{latency} (share of the source)"
    if latency.endswith("_ms"):
        return f"{latency} (ms)"
    units = {row.get("latency_unit", "source units") for row in scores}
    return f"{latency} ({' or '.join(sorted(units)) or 'source units'})"


def with_direction(quality: str) -> str:
    """Heading of a quality: tells where less is more."""
    return f"{quality} (lower is better)" if quality in LOWER_IS_BETTER else quality


def decimals_of(key: str, decimals: int, row: Row) -> int:
    """Decimals of a number in a table: lags in ms need none, where those in units have some."""
    return 0 if key in LAGS and row.get("latency_unit") == "ms" else decimals


def setting(row: Row) -> str:
    """What tells a point from the others of its family, as it was asked for."""
    _, policy = split_family(asked_for(row).partition(":")[0])
    return asked_for(row).partition(":")[2] or policy


def caption(scores: Sequence[Row], about: str) -> str:
    """What a reader must know: model and data, how many instances, what the bars mean."""
    counts = sorted({row["num_instances"] for row in scores if "num_instances" in row})
    parts = [about] if about else []
    if counts:
        parts.append(f"n = {' or '.join(map(str, counts))}")
    if resamples := sorted({row["num_bootstrap"] for row in scores if row.get("num_bootstrap")}):
        numbers = " or ".join(map(str, resamples))
        parts.append(f"bars: 95 % intervals, bootstrap over instances ({numbers} resamples)")
    return "; ".join(parts)
