"""Traces as one HTML file: the READ/WRITE grid, the probes behind each word, and a replay."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from proactivellm.decisions.trace import Trace
from proactivellm.files.replace import write_text
from proactivellm.metrics.page import fill_page, html_table

_REASONS = {
    "policy": "the policy's rule",
    "min_lag": "min_lag: too little was read",
    "max_lag": "max_lag: it was overdue",
    "inside a word": "inside a word",
    "source finished": "the source is finished",
    "end held": "it would have ended here, and the source goes on",
    "length limit": "the length limit",
}


def decision_page(traces: Sequence[Trace], path: str | Path) -> None:
    """Writes a page with one or several instances to choose from; it needs no network.

    Args:
        traces: from `record` or `read_traces`; at least one.
        path: the file, replaced.

    Raises:
        ValueError: there are no traces.
    """
    if not traces:
        raise ValueError("there are no traces to show: record one at least")
    data = {"traces": [_with_words(trace) for trace in traces], "reasons": _REASONS}
    rows = [[str(t.index), t.policy, " ".join(t.source), t.prediction] for t in traces]
    static = html_table(["index", "policy", "source", "target"], rows)
    title = "READ and WRITE decisions"
    write_text(path, fill_page("decisions.html", title, data, static))


def _with_words(trace: Trace) -> dict[str, Any]:
    """A trace with what its words sum up, so that the script adds up nothing."""
    rows = range(len(trace.words))
    sums = {
        "statistic": trace.statistic,
        "attention": [trace.attention(row) for row in rows],
        "forced": [trace.is_forced(row) for row in rows],
        "deciding": [trace.probes.index(trace.deciding(row)) for row in rows],
    }
    return {**asdict(trace), **sums}
