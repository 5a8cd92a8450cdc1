"""A trace as a picture: the READ/WRITE path with attention, the policy's statistic and reasons."""

from collections.abc import Callable
from pathlib import Path

from proactivellm.decisions.trace import Probe, Trace
from proactivellm.report.decisions import explained, held, title
from proactivellm.report.path import Evidence, Heading, Strip, read_write_path


def draw_trace(trace: Trace, path: str | Path) -> None:
    """Draws one instance; needs the extra `plot`.

    The ending of `path` is the format (.png, .svg, .pdf).

    Raises:
        ValueError: nothing was read or nothing was written.
        ImportError: matplotlib is not installed.
    """
    if not trace.words:
        raise ValueError(f"source {trace.index}: nothing was written, so that there is no path")
    rows = range(len(trace.words))
    entropy = _strip(trace, "entropy, nats", lambda probe: probe.entropy)
    strips = [entropy]
    if trace.threshold is not None:
        name = str(trace.statistic)
        own = _strip(trace, name, lambda probe: probe.statistic or 0.0)
        own = own._replace(threshold=trace.threshold)
        strips = [own._replace(name="entropy, nats")] if name == "entropy" else [own, entropy]
    evidence = Evidence(
        attention=[trace.attention(row) for row in rows],
        forced=[trace.is_forced(row) for row in rows],
        strips=strips,
        reasons=[explained(trace, row) for row in rows],
    )
    heading = Heading(
        title=title(trace), below=" | ".join(filter(None, [trace.policy, trace.model]))
    )
    read_write_path(trace.source, trace.words, trace.delays, path, heading, evidence)


def _strip(trace: Trace, name: str, number: Callable[[Probe], float]) -> Strip:
    rows = range(len(trace.words))
    waits = [[number(probe) for probe in held(trace, row)] for row in rows]
    return Strip(name, waits, [number(trace.deciding(row)) for row in rows])
