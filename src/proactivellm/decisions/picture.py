"""A trace as a picture: the READ/WRITE path with attention, entropy and the policy's statistic."""

from pathlib import Path

from proactivellm.decisions.trace import Trace
from proactivellm.metrics.plots import Bars, Evidence, read_write_path


def draw_trace(trace: Trace, path: str | Path) -> None:
    """Draws one instance; needs the extra `plot`.

    Args:
        trace: from `record` or `read_traces`.
        path: picture to write; its ending is the format (.png, .svg, .pdf).

    Raises:
        ValueError: nothing was read or nothing was written.
        ImportError: matplotlib is not installed.
    """
    if not trace.words:
        raise ValueError(f"source {trace.index}: nothing was written, so that there is no path")
    rows = range(len(trace.words))
    deciding = [trace.deciding(row) for row in rows]
    name = trace.statistic
    bars = [
        Bars("entropy, nats", [p.entropy for p in deciding], trace.threshold)
        if name == "entropy"
        else Bars("entropy, nats", [p.entropy for p in deciding])
    ]
    if trace.threshold is not None and name != "entropy":
        bars.insert(0, Bars(str(name), [p.statistic or 0.0 for p in deciding], trace.threshold))
    evidence = Evidence(
        attention=[trace.attention(row) for row in rows],
        forced=[trace.is_forced(row) for row in rows],
        bars=bars,
    )
    read_write_path(trace.source, trace.words, trace.delays, path, trace.policy, evidence)
