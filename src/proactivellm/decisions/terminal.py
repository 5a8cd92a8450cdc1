"""A trace on a terminal: a line per target word, with what was read before it and why it came."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proactivellm.decisions.trace import Probe, Trace
from proactivellm.output.printable import printable

_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR = 6  # cells of the bar of the entropy
_FULL = 5.0  # nats that fill it
_WIDTH = 80
_FORCED = {"max_lag": "max_lag", "source finished": "end"}


def terminal_view(trace: Trace) -> RenderableType:
    """The decisions of one instance in 80 columns.

    Args:
        trace: from `record` or `read_traces`.

    Returns:
        What `rich.print` shows: the spec, then for each word what was READ before it, the word,
        the entropy with which it was begun, the source word most attended to, and why it was
        written if there was no choice.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), width=_WIDTH, show_edge=False)
    table.add_column("READ", justify="right", style="cyan", ratio=10, overflow="fold")
    table.add_column("WRITE", style="bold green", ratio=6, overflow="fold")
    table.add_column("entropy", no_wrap=True, width=_BAR + 5)
    table.add_column("attends to", style="dim", ratio=7, no_wrap=True, overflow="ellipsis")
    table.add_column("forced", style="yellow", no_wrap=True, width=7)
    read = 0
    for row, word in enumerate(trace.words):
        first, delay = trace.deciding(row), trace.delays[row]
        cells = [_units(trace, read, delay), _plain(word), _entropy(first)]
        table.add_row(*cells, _most_attended(trace, row), _FORCED.get(first.reason, ""))
        read = delay
    if rest := trace.source[read : _last_read(trace)]:
        table.add_row(_plain(" ".join(rest)), Text("(end)", style="dim"), "", "", "")
    header = _plain(f"{trace.index}: {trace.policy}", style="bold")
    if not trace.words:
        nothing = f"{len(trace.source)} units were read and nothing was written"
        return Group(header, Text(nothing))
    return Group(header, table)


def _last_read(trace: Trace) -> int:
    return trace.probes[-1].units_read if trace.probes else 0


def _units(trace: Trace, first: int, last: int) -> Text:
    return _plain(" ".join(trace.source[first:last]))


def _entropy(probe: Probe) -> Text:
    """A bar in eighths of a cell, and the number."""
    eighths = round(min(1.0, probe.entropy / _FULL) * 8 * _BAR)
    bar = "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
    return Text(f"{bar:{_BAR}} {probe.entropy:.2f}")


def _most_attended(trace: Trace, row: int) -> Text:
    shares = trace.attention(row)
    if not shares:
        return Text("-")
    best = max(range(len(shares)), key=shares.__getitem__)
    return _plain(f"{shares[best]:.2f} {trace.source[best]}")


def _plain(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)
