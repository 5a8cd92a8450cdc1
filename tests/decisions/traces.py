"""Traces made by hand, for tests of what shows them."""

from dataclasses import replace
from typing import Any

from proactivellm.decisions.trace import Probe, Trace

EVIL = "</script><script>alert(1)</script>"


def probe(units_read: int, word: int, text: str, **changes: Any) -> Probe:
    """A probe that WRITEs by the policy's rule, looking at its newest unit."""
    seen = Probe(
        units_read=units_read,
        word=word,
        token=7,
        text=text,
        decision="WRITE",
        reason="policy",
        entropy=0.5,
        max_prob=0.8,
        attention=[0.0] * (units_read - 1) + [1.0],
        statistic=0.25,
    )
    return replace(seen, **changes)


def small_trace(**changes: Any) -> Trace:
    """Four units and three words: a READ, a word of two tokens, and what is forced."""
    trace = Trace(
        index=3,
        model="tiny",
        policy="attention:threshold=0.3,min_lag=1",
        source=["Ich", "stehe", "um", "auf."],
        words=["I", "get", "up."],
        delays=[1, 4, 4],
        probes=[
            probe(1, 0, "I"),
            probe(1, 1, " stand", decision="READ", statistic=0.9, entropy=3.0),
            probe(3, 1, " g", reason="max_lag", statistic=0.6, attention=[0.2, 0.8, 0.0]),
            probe(4, 1, "et", reason="inside a word", attention=[0.0, 0.4, 0.0, 0.6]),
            probe(4, 2, " up.", reason="source finished"),
            probe(4, 3, "", reason="source finished"),
        ],
        prediction="I get up.",
        reference="I get up.",
        threshold=0.3,
    )
    return replace(trace, **changes)


def empty_trace() -> Trace:
    """Two units read, nothing written."""
    end = probe(2, 0, "", reason="source finished")
    nothing: dict[str, Any] = {"words": [], "delays": [], "prediction": ""}
    return small_trace(source=["Ja", "so"], probes=[end], **nothing)
