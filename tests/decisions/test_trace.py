"""Traces: what their words sum up, and that a file gives back what was saved."""

from pathlib import Path

import pytest
from tests.decisions.traces import empty_trace, probe, small_trace

from proactivellm.decisions.trace import read_traces, write_traces


def test_what_the_words_sum_up() -> None:
    trace = small_trace()
    assert trace.statistic == "attention"
    assert [probe.text for probe in trace.writes(1)] == [" g", "et"]
    assert trace.deciding(1).entropy == 0.5
    assert [trace.is_forced(row) for row in range(3)] == [False, True, True]
    # The mean over the tokens of the word; what one of them had not read counts 0.
    assert trace.attention(1) == pytest.approx([0.1, 0.6, 0.0, 0.3])


def test_without_threshold_or_attention() -> None:
    trace = small_trace(threshold=None)
    blind = [type(p)(**{**vars(p), "attention": []}) for p in trace.probes]
    assert trace.statistic is None and small_trace(probes=blind).attention(1) == []


def test_a_token_of_several_words_stands_for_all_of_them() -> None:
    probes = [probe(1, 0, "I"), probe(2, 1, " was to"), probe(3, 3, " get"), probe(4, 4, "")]
    trace = small_trace(words=["I", "was", "to", "get"], probes=probes)
    assert [trace.deciding(row).text for row in range(4)] == ["I", " was to", " was to", " get"]


def test_file(tmp_path: Path) -> None:
    traces = [small_trace(), empty_trace()]
    write_traces(tmp_path / "traces.json", traces)
    assert read_traces(tmp_path / "traces.json") == traces


@pytest.mark.parametrize("text", ["{", '[{"index": 0}]', "[1]"])
def test_a_file_of_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x.json holds no traces .* show --json"):
        read_traces(path)
