"""From instance logs to scores: one flat dictionary per policy, tables of them, scores.json."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from proactivellm.files.replace import write_text
from proactivellm.metrics.bootstrap import summarise
from proactivellm.metrics.counting import Counting, resolve
from proactivellm.metrics.measures import (
    QUALITIES_OF,
    common_policy,
    degeneracy,
    final_token_ms,
    latency_unit,
    measure,
)
from proactivellm.metrics.page import markdown_row
from proactivellm.metrics.points import decimals_of
from proactivellm.metrics.quality import signature
from proactivellm.metrics.transcripts import NORMALISER
from proactivellm.output.log import Instance, read_log

Scores = dict[str, Any]

# Columns of the tables: key, heading, decimals. Columns that no score fills are left out.
_COLUMNS = (
    ("BLEU", "BLEU", 1),
    ("chrF", "chrF", 1),
    ("F1", "F1", 1),
    ("EM", "EM", 1),
    ("WER", "WER", 2),
    ("CER", "CER", 2),
    ("insertions_per_min", "insertions/min", 1),
    ("AL", "AL", 2),
    ("LAAL", "LAAL", 2),
    ("YAAL", "YAAL", 2),
    ("LongYAAL", "LongYAAL", 0),
    ("LongLAAL", "LongLAAL", 0),
    ("StreamLAAL", "StreamLAAL", 0),
    ("DAL", "DAL", 2),
    ("AP", "AP", 2),
    ("RCO", "RCO", 2),
    ("AIL", "AIL", 2),
    ("NE", "NE", 2),
    ("first_token_ms_p50", "first ms", 0),
    ("final_token_ms_p50", "final ms", 0),
    ("LAAL_CA_ms", "LAAL ms", 0),
    ("RTF", "RTF", 3),
    ("forwards", "forwards", 1),
)
_MARK = "†"
_MANY = 0.1  # share of empty predictions that is worth a note
# Columns whose interval the tables show; scores.json has all.
_WITH_INTERVAL = (
    *("BLEU", "chrF", "F1", "EM", "WER", "CER"),
    *("LAAL", "LongYAAL", "LongLAAL", "StreamLAAL"),
)


def score(
    instances: Sequence[Instance], num_bootstrap: int = 0, counting: Counting | None = None
) -> Scores:
    """Scores the instances of one policy.

    Args:
        instances: the log of one policy.
        num_bootstrap: resamples for the intervals; 0 leaves the intervals out.
        counting: tokens of BLEU and unit of latency; by the script of the references if left out.

    Returns:
        A flat dictionary, ready for JSON, with None where a metric is undefined everywhere:
        `policy`, `num_instances`, `num_empty`: predictions without a word where one is wanted;
        `target_unit`: what lags count ("words", "characters" or "subwords of FILE"), and
        `counting_note` where the script decided for something else than words;
        `BLEU`, `chrF`, `bleu_signature`, `chrf_signature` where there are references, or, of
        answers to questions, `F1`, `EM`, or, of transcripts, `WER`, `CER` (both in %, the lower
        the better), `substitutions`, `deletions`, `insertions`, `wer_normaliser`,
        `insertions_per_min` where nothing is said;
        `AL`, `LAAL`, `YAAL`, `DAL`, `AIL`, `first_token_delay` in `latency_unit` ("source units",
        or "ms" of speech), `AP`, `RCO`, `NE`, each the mean over the instances where it is defined;
        `NE_corpus`: words taken back per word of all final texts;
        `forwards`, `tokens` (means), and in ms on the clock of `elapsed` `AL_CA_ms`, `LAAL_CA_ms`,
        `YAAL_CA_ms` (against the duration of the source), `first_token_ms` (since its begin) and
        `final_token_ms` (since its end), means, `..._p50` and `..._p90` the percentiles, where the
        log holds what they need;
        `RTF`, the real-time factor: time of computing per time of audio, of the corpus, of speech;
        `X_ci` of each of these X: half the width of its 95% bootstrap interval, and
        `num_bootstrap`; none of a single instance;
        `num_undefined`: how many instances each mean leaves out (an empty prediction has no lag;
        YAAL needs a word before the end of the source), metrics that leave out none omitted;
        `SWF`, `EFSW`, `degenerate`: see `latency.degeneracy`; None if nothing was written.

    Raises:
        ValueError: there are no instances, they are of several policies or tasks, only some have a
            reference, the reference of a translation is empty, or what is to be counted is not to
            be had.
    """
    scores: Scores = {"policy": common_policy(instances), "num_instances": len(instances)}
    counted = resolve(instances, counting)
    measured = measure(instances, counted)
    scores["num_empty"] = sum(map(_is_empty, instances))
    scores |= {"latency_unit": latency_unit(instances)} | counted.facts(instances[0].task)
    scores |= dict.fromkeys(QUALITIES_OF[instances[0].task]) | summarise(measured, num_bootstrap)
    if "BLEU" in measured:
        scores["bleu_signature"] = signature("BLEU", counted.tokenizer.name)
        scores["chrf_signature"] = signature("chrF")
    if "WER" in measured:
        scores["wer_normaliser"] = NORMALISER
    return scores | degeneracy(instances, counted.unit) | _percentiles(instances)


def score_log(path: str | Path, num_bootstrap: int = 0, counting: Counting | None = None) -> Scores:
    """Scores an instance log: the same numbers as `score` gave when it was written.

    Args:
        path: the log, ours, SimulEval's or simulstream's.
        num_bootstrap: resamples for the intervals; 0 leaves the intervals out.
        counting: as in `score`.

    Returns:
        See `score`.

    Raises:
        ValueError: the log cannot be read or scored; names the file.
    """
    instances = read_log(path)
    try:
        return score(instances, num_bootstrap, counting)
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
    result = Table(caption="\n".join(_footnotes(scores)) or None, caption_justify="left")
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
    lines = [markdown_row(cells) for cells in rows]
    for note in _footnotes(scores):
        lines += ["", note]
    return "\n".join(lines) + "\n"


def write_scores(path: str | Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """Writes scores.json: a list of objects, one per policy.

    Args:
        path: the file; it is replaced.
        scores: what `score` returned.
    """
    text = json.dumps([dict(row) for row in scores], indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _is_empty(instance: Instance) -> bool:
    wanted = instance.reference is None or any(map(str.isalnum, instance.reference))
    return wanted and not instance.prediction.strip()


def _is_hollow(row: Mapping[str, Any]) -> bool:
    return row.get("num_empty", 0) >= _MANY * row.get("num_instances", 1)


def _percentiles(instances: Sequence[Instance]) -> Scores:
    """P50 and P90 of the times that somebody waits for; left out where the log tells none."""
    scores: Scores = {}
    waits = {
        "first_token_ms": [instance.first_token_ms for instance in instances],
        "final_token_ms": [final_token_ms(instance) for instance in instances],
    }
    for name, values in waits.items():
        known = [value for value in values if value is not None]
        for percent in (50, 90) if known else ():
            scores[f"{name}_p{percent}"] = float(np.percentile(known, percent))
    return scores


def _footnotes(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """What marks and intervals mean, as far as they occur."""
    notes = []
    if found := [row for row in scores if row.get("degenerate")]:
        numbers = "; ".join(
            f"{row['policy']}: SWF {row['SWF']:.0f}%, EFSW {row['EFSW']:.0f}%" for row in found
        )
        notes.append(
            f"{_MARK} degenerate: of the words, SWF came before the end of the source, where the "
            f"mean lag lets expect EFSW ({numbers})"
        )
    notes += dict.fromkeys(row["counting_note"] for row in scores if row.get("counting_note"))
    if found := [row for row in scores if _is_hollow(row)]:
        numbers = "; ".join(
            f"{row['policy']}: {row['num_empty']} of {row['num_instances']}" for row in found
        )
        notes.append(f"many predictions are empty, and no lag counts them ({numbers})")
    resamples = sorted({row["num_bootstrap"] for row in scores if "num_bootstrap" in row})
    if any(row.get("latency_unit") == "ms" and "LAAL" in row for row in scores):
        notes.append(
            "AL, LAAL, YAAL, DAL, AIL of speech: ms of audio; LAAL ms: with the time of computing"
        )
    if resamples:
        numbers = " or ".join(map(str, resamples))
        notes.append(f"± half the width of the 95% bootstrap interval ({numbers} resamples)")
    return notes


def _filled_columns(scores: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    return [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in scores)]


def _cells(row: Mapping[str, Any], columns: Sequence[tuple[str, str, int]]) -> list[str]:
    cells = [f"{row['policy']} {_MARK}" if row.get("degenerate") else str(row["policy"])]
    for key, _, decimals in columns:
        value = row.get(key)
        decimals = decimals_of(key, decimals, row)
        cell = "-" if value is None else f"{value:.{decimals}f}"
        interval = row.get(f"{key}_ci") if key in _WITH_INTERVAL else None
        cells.append(cell if interval is None else f"{cell} ± {interval:.{decimals}f}")
    return cells
