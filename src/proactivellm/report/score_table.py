"""Tables of scores, one row per policy: for the terminal and in Markdown."""

from collections.abc import Sequence

from rich.table import Table

from proactivellm.report.console import plain_table
from proactivellm.report.markdown import markdown_table
from proactivellm.report.points import ORACLE, Row, asked_for, decimals_of, family, split_family

_Column = tuple[str, str, int]
# Columns of the tables: key, heading, decimals. Columns that no score fills are left out.
_COLUMNS = (
    ("BLEU", "BLEU", 1),
    ("chrF", "chrF", 1),
    ("F1", "F1", 1),
    ("EM", "EM", 1),
    ("accuracy", "accuracy", 1),
    ("waited_tokens", "waited", 1),
    ("first_thought_s", "thought s", 2),
    ("answer_delay_s", "answer s", 2),
    ("thought_tokens", "thought", 1),
    ("integration_tokens", "integr.", 1),
    ("reflection_tokens", "reflect", 1),
    ("answer_tokens", "answer", 1),
    ("late_tokens", "late", 1),
    ("think_rate", "think", 2),
    ("think_rate_needed", "needed", 2),
    ("think_rate_filler", "filler", 2),
    ("evidence_delay_s", "delay s", 2),
    ("evidence_delay_s_p50", "median s", 2),
    ("end_delay_s", "at end s", 2),
    ("premature", "premature", 2),
    ("late_words", "late words", 1),
    ("silence", "silence", 2),
    ("ROUGE-L", "ROUGE-L", 1),
    ("ROUGE-1", "ROUGE-1", 1),
    ("ROUGE-2", "ROUGE-2", 1),
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
    ("misleading_time", "misleading", 2),
    ("first_token_ms_p50", "first ms", 0),
    ("final_token_ms_p50", "final ms", 0),
    ("LAAL_CA_ms", "LAAL ms", 0),
    ("RTF", "RTF", 3),
    ("forwards", "forwards", 1),
)
_MARK = "†"
_MANY = 0.1  # share of empty predictions that is worth a note
# Columns of the table of groups.
_OF_GROUPS = (
    *("F1", "EM", "accuracy"),
    *("evidence_delay_s", "end_delay_s", "premature", "late_words", "silence"),
)
# Columns whose interval the tables show; scores.json has all.
_WITH_INTERVAL = (
    *("BLEU", "chrF", "F1", "EM", "accuracy", "ROUGE-L", "WER", "CER"),
    *("LAAL", "LongYAAL", "LongLAAL", "StreamLAAL"),
    *("answer_delay_s", "late_tokens", "evidence_delay_s"),
)


def score_table(scores: Sequence[Row]) -> Table:
    """A table for the terminal, one row per policy, under the names that were asked for."""
    columns = _filled_columns(scores)
    result = plain_table(
        None,
        ["policy", *(column[1] for column in columns)],
        [_cells(asked_for(row), row, columns) for row in scores],
    )
    result.caption = "\n".join(_footnotes(scores)) or None
    return result


def scores_markdown(scores: Sequence[Row]) -> str:
    """The same table in Markdown, under canonical specs; ends in a newline."""
    columns = _filled_columns(scores)
    rows = [_cells(str(row["policy"]), row, columns) for row in scores]
    table = markdown_table(["policy", *(column[1] for column in columns)], rows)
    return "\n\n".join([table, *_groups_markdown(scores), *_footnotes(scores)]) + "\n"


def _groups_markdown(scores: Sequence[Row]) -> list[str]:
    """A second table, of the groups that scores are told apart by, if there are any."""
    rows = _group_rows(scores)
    columns = [column for column in _filled_columns(rows) if column[0] in _OF_GROUPS]
    if not rows:
        return []
    headings = ["policy", "group", "number", *(column[1] for column in columns)]
    cells = [
        [row["policy"], row["group"], str(row["num_instances"]), *_cells("", row, columns)[1:]]
        for row in rows
    ]
    return [markdown_table(headings, cells, num_texts=2)]


def _group_rows(scores: Sequence[Row]) -> list[Row]:
    return [
        {"policy": str(row["policy"]), "group": name, **found}
        for row in scores
        for name, found in row.get("by_group", {}).items()
    ]


def _is_hollow(row: Row) -> bool:
    return row.get("num_empty", 0) >= _MANY * row.get("num_instances", 1)


def _footnotes(scores: Sequence[Row]) -> list[str]:
    """What marks and intervals mean, as far as they occur."""
    notes = []
    if found := [row for row in scores if row.get("degenerate")]:
        numbers = "; ".join(
            f"{asked_for(row)}: SWF {row['SWF']:.0f}%, EFSW {row['EFSW']:.0f}%" for row in found
        )
        notes.append(
            f"{_MARK} degenerate: of the words, SWF came before the end of the source, where the "
            f"mean lag lets expect EFSW ({numbers})"
        )
    if any(split_family(family(row))[1] == ORACLE for row in scores):
        notes.append(f"{ORACLE}: decides with the whole source in view, a ceiling and no policy")
    notes += dict.fromkeys(row["counting_note"] for row in scores if row.get("counting_note"))
    if found := [row for row in scores if _is_hollow(row)]:
        numbers = "; ".join(
            f"{asked_for(row)}: {row['num_empty']} of {row['num_instances']}" for row in found
        )
        notes.append(f"many predictions are empty, and no lag counts them ({numbers})")
    resamples = sorted({row["num_bootstrap"] for row in scores if "num_bootstrap" in row})
    if any(row.get("latency_unit") == "ms" and "LAAL" in row for row in scores):
        notes.append(
            "AL, LAAL, YAAL, DAL, AIL of speech: ms of audio; LAAL ms: with the time of computing"
        )
    if any("late_tokens" in row for row in scores):
        notes.append(
            "waited: source tokens before the first thought, thought s: until it; answer s: from "
            "the end of the source to the answer; thought to answer: tokens by stage, late: those "
            "after the last sentence; think, needed, filler: share of such sentences with a thought"
        )
    if any("premature" in row for row in scores):
        notes.append(
            "delay: of right answers after their evidence, at end: of the same ones if they had "
            "waited for the end of the source; premature: share of answers with a word before its "
            "evidence; late words: written once the source had ended; silence: share of the time "
            "before the evidence in which nothing was written"
        )
    if resamples:
        numbers = " or ".join(map(str, resamples))
        notes.append(f"± half the width of the 95% bootstrap interval ({numbers} resamples)")
    return notes


def _filled_columns(scores: Sequence[Row]) -> list[_Column]:
    return [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in scores)]


def _cells(name: str, row: Row, columns: Sequence[_Column]) -> list[str]:
    cells = [f"{name} {_MARK}" if row.get("degenerate") else name]
    for key, _, decimals in columns:
        value = row.get(key)
        decimals = decimals_of(key, decimals, row)
        cell = "-" if value is None else f"{value:.{decimals}f}"
        interval = row.get(f"{key}_ci") if key in _WITH_INTERVAL else None
        cells.append(cell if interval is None else f"{cell} ± {interval:.{decimals}f}")
    return cells
