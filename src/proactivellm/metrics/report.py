"""From instance logs to scores: one flat dictionary per policy, tables of them, scores.json."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.table import Table

from proactivellm.metrics import latency, quality
from proactivellm.metrics.stability import normalized_erasure
from proactivellm.output.log import Instance, read_log

Scores = dict[str, Any]

# Macro-averages over instances: name -> value of one instance, None where it is undefined.
_PER_INSTANCE: dict[str, Callable[[Instance], float | None]] = {
    "AL": lambda i: latency.average_lagging(i.delays, i.source_length, _reference_words(i)),
    "LAAL": lambda i: latency.length_adaptive_average_lagging(
        i.delays, i.source_length, _reference_words(i)
    ),
    "AP": lambda i: latency.average_proportion(i.delays, i.source_length, _reference_words(i)),
    "DAL": lambda i: latency.differentiable_average_lagging(i.delays, i.source_length),
    "YAAL": lambda i: latency.yaal(i.delays, i.source_length, _reference_words(i)),
    "RCO": lambda i: latency.read_coverage(i.token_delays, i.source_length),
    "AIL": lambda i: latency.average_information_lag(i.token_delays, i.source_length),
    "first_token_delay": lambda i: latency.first_token_delay(i.delays),
    "NE": lambda i: normalized_erasure(i.revisions or []),
}

# Columns of the tables: key, heading, decimals. Columns that no score fills are left out.
_COLUMNS = (
    ("BLEU", "BLEU", 1),
    ("chrF", "chrF", 1),
    ("AL", "AL", 2),
    ("LAAL", "LAAL", 2),
    ("YAAL", "YAAL", 2),
    ("DAL", "DAL", 2),
    ("AP", "AP", 2),
    ("RCO", "RCO", 2),
    ("AIL", "AIL", 2),
    ("NE", "NE", 2),
    ("first_token_ms_p50", "first ms", 0),
    ("LAAL_CA_ms", "LAAL ms", 0),
    ("forwards", "forwards", 1),
)
_MARK = "†"
_FOOTNOTE = f"{_MARK} degenerate: the mean lag hides how many words come after the end (SWF, EFSW)"


def score(instances: Sequence[Instance], num_bootstrap: int = 0) -> Scores:
    """Scores the instances of one policy.

    Args:
        instances: the log of one policy.
        num_bootstrap: resamples for the intervals of BLEU and chrF; 0 leaves the intervals out.

    Returns:
        A flat dictionary, ready for JSON, with None where a metric is undefined everywhere:
        `policy`, `num_instances`;
        `BLEU`, `chrF`, `bleu_signature`, `chrf_signature` (and `BLEU_ci`, `chrF_ci`, half the width
        of the 95% interval) where there are references;
        `AL`, `LAAL`, `YAAL`, `DAL`, `AIL`, `first_token_delay` in source units, `AP`, `RCO`, `NE`,
        each the mean over the instances where it is defined;
        `num_undefined`: how many instances each of these leaves out (an empty prediction has no
        lag; YAAL needs a word before the end of the source), metrics that leave out none omitted;
        `SWF`, `EFSW`, `degenerate`: see `latency.degeneracy`; None if nothing was written;
        `forwards`, `tokens` (means), `first_token_ms` (mean), `first_token_ms_p50`,
        `first_token_ms_p90`, `LAAL_CA_ms` (LAAL of the elapsed times against the duration of the
        source), where the log holds what they need.

    Raises:
        ValueError: there are no instances, they are of several policies, or only some have a
            reference.
    """
    if not instances:
        raise ValueError("there are no instances to score: the log is empty")
    policies = sorted({instance.policy for instance in instances})
    if len(policies) > 1:
        raise ValueError(
            f"the instances are of several policies ({', '.join(policies)}): keep one log for each"
        )
    scores: Scores = {"policy": policies[0], "num_instances": len(instances)}
    scores |= _quality(instances, num_bootstrap)
    undefined = Counter[str]()
    for name, metric in _PER_INSTANCE.items():
        values = [metric(instance) for instance in instances]
        scores[name] = _mean(values)
        undefined[name] = values.count(None)
    scores["num_undefined"] = {name: count for name, count in undefined.items() if count}
    return scores | _degeneracy(instances) | _cost(instances)


def score_log(path: str | Path, num_bootstrap: int = 0) -> Scores:
    """Scores an instance log: the same numbers as `score` gave when it was written.

    Args:
        path: the log, ours or SimulEval's.
        num_bootstrap: resamples for the intervals of BLEU and chrF; 0 leaves the intervals out.

    Returns:
        See `score`.

    Raises:
        ValueError: the log cannot be read or scored; names the file.
    """
    instances = read_log(path)
    try:
        return score(instances, num_bootstrap)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def table(scores: Sequence[Mapping[str, Any]]) -> Table:
    """A table for the terminal, one row per policy.

    Args:
        scores: what `score` returned, in the order of the rows.

    Returns:
        A rich table.
    """
    columns = _filled_columns(scores)
    result = Table(caption=_FOOTNOTE if _any_degenerate(scores) else None, caption_justify="left")
    result.add_column("policy", overflow="fold", min_width=12)
    for _, heading, _ in columns:
        result.add_column(heading, justify="right", no_wrap=True)
    for row in scores:
        result.add_row(*_cells(row, columns))
    return result


def markdown_table(scores: Sequence[Mapping[str, Any]]) -> str:
    """The same table in Markdown.

    Args:
        scores: what `score` returned, in the order of the rows.

    Returns:
        Lines that end in a newline each.
    """
    columns = _filled_columns(scores)
    rows = [
        ["policy", *(heading for _, heading, _ in columns)],
        ["---", *("---:" for _ in columns)],
        *(_cells(row, columns) for row in scores),
    ]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    if _any_degenerate(scores):
        lines += ["", _FOOTNOTE]
    return "\n".join(lines) + "\n"


def write_scores(path: str | Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """Writes scores.json: a list of objects, one per policy.

    Args:
        path: the file; it is replaced.
        scores: what `score` returned.
    """
    text = json.dumps([dict(row) for row in scores], indent=2, ensure_ascii=False, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _reference_words(instance: Instance) -> int | None:
    return None if instance.reference is None else len(instance.reference.split())


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else None


def _quality(instances: Sequence[Instance], num_bootstrap: int) -> Scores:
    references = [instance.reference for instance in instances if instance.reference is not None]
    if not references:
        return {"BLEU": None, "chrF": None}
    if len(references) < len(instances):
        index = next(instance.index for instance in instances if instance.reference is None)
        raise ValueError(
            f"{len(instances) - len(references)} of {len(instances)} instances have no reference "
            f"(the first is index {index}): give one to all or to none"
        )
    predictions = [instance.prediction for instance in instances]
    bleu = quality.bleu(predictions, references, num_bootstrap)
    chrf = quality.chrf(predictions, references, num_bootstrap)
    scores: Scores = {"BLEU": bleu.score, "chrF": chrf.score}
    if bleu.interval is not None:
        scores |= {"BLEU_ci": bleu.interval, "chrF_ci": chrf.interval}
    return scores | {"bleu_signature": bleu.signature, "chrf_signature": chrf.signature}


def _degeneracy(instances: Sequence[Instance]) -> Scores:
    found = latency.degeneracy(
        (instance.delays, instance.source_length, _reference_words(instance))
        for instance in instances
    )
    if found is None:
        return {"SWF": None, "EFSW": None, "degenerate": None}
    return {"SWF": found.swf, "EFSW": found.efsw, "degenerate": found.degenerate}


def _cost(instances: Sequence[Instance]) -> Scores:
    """Passes, tokens and milliseconds; each is left out where the log does not tell it."""
    scores: Scores = {}
    for name in ("forwards", "tokens"):
        counts = [getattr(instance, name) for instance in instances]
        if None not in counts:
            scores[name] = fmean(counts)
    first_ms = [i.first_token_ms for i in instances if i.first_token_ms is not None]
    if first_ms:
        scores["first_token_ms"] = fmean(first_ms)
        scores["first_token_ms_p50"] = float(np.percentile(first_ms, 50))
        scores["first_token_ms_p90"] = float(np.percentile(first_ms, 90))
    if all(instance.source_ms is not None for instance in instances):
        lags = [
            latency.length_adaptive_average_lagging(i.elapsed, i.source_ms, _reference_words(i))
            for i in instances
            if i.source_ms is not None
        ]
        scores["LAAL_CA_ms"] = _mean(lags)
    return scores


def _any_degenerate(scores: Sequence[Mapping[str, Any]]) -> bool:
    return any(row.get("degenerate") for row in scores)


def _filled_columns(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    return [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in scores)]


def _cells(row: Mapping[str, Any], columns: Sequence[tuple[str, str, int]]) -> list[str]:
    cells = [f"{row['policy']} {_MARK}" if row.get("degenerate") else str(row["policy"])]
    for key, _, decimals in columns:
        value, interval = row.get(key), row.get(f"{key}_ci")
        cell = "-" if value is None else f"{value:.{decimals}f}"
        cells.append(cell if interval is None else f"{cell} ± {interval:.{decimals}f}")
    return cells
