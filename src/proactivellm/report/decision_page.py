"""Traces as one HTML file: the READ/WRITE grid, the probes behind each word, and a replay."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from proactivellm.decisions.trace import Trace
from proactivellm.files.replace import write_text
from proactivellm.output.scripts import together
from proactivellm.report.decisions import SENTENCES, explained, held, title
from proactivellm.report.page import fill_page, html_table


def decision_page(traces: Sequence[Trace], path: str | Path) -> None:
    """Writes a page with one or several instances to choose from; it needs no network.

    Raises:
        ValueError: there are no traces.
    """
    if not traces:
        raise ValueError("there are no traces to show: record one at least")
    data = {"traces": [_with_words(trace) for trace in traces], "reasons": SENTENCES}
    rows = [[str(t.index), t.policy, _text(t), t.prediction] for t in traces]
    static = html_table(["index", "policy", "source", "target"], rows)
    heading = "READ and WRITE decisions"
    write_text(path, fill_page("decisions.html", heading, data, static))


def _with_words(trace: Trace) -> dict[str, Any]:
    """A trace with the sums over each of its words, so that the script need not add up."""
    rows = range(len(trace.words))
    place = {id(probe): number for number, probe in enumerate(trace.probes)}
    sums = {
        "title": title(trace),
        "text": _text(trace),
        "statistic": trace.statistic,
        "attention": [trace.attention(row) for row in rows],
        "forced": [trace.is_forced(row) for row in rows],
        "deciding": [place[id(trace.deciding(row))] for row in rows],
        "held": [[place[id(probe)] for probe in held(trace, row)] for row in rows],
        "why": [explained(trace, row) for row in rows],
    }
    return {**asdict(trace), **sums}


def _text(trace: Trace) -> str:
    """The source as one text."""
    return together(" ".join(trace.source))
