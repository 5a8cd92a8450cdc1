"""A trace on a terminal: a line per target word, with what was read before it and why it came."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proactivellm.decisions.trace import Probe, Trace
from proactivellm.output.printable import printable
from proactivellm.output.scripts import together
from proactivellm.report.decisions import numbers, readable, title, why

_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR = 6  # cells of the bar of the entropy
_FULL = 5.0  # nats that fill it
_WIDTH = 80


def terminal_view(trace: Trace) -> RenderableType:
    """The decisions of one instance in 80 columns, for `rich.print`.

    The policy and its spec, then for each word: what was READ before it, the word, the policy's
    statistic where the word was held back and where it was written (of policies without one the
    entropy), the source word most attended to, and what made the word wait, or come.
    """
    header = [_plain(f"{trace.index}: {title(trace)}", style="bold")]
    if title(trace) != readable(trace.policy):
        header.append(_plain(trace.policy, style="dim"))
    if not trace.words:
        nothing = f"{len(trace.source)} units were read and nothing was written"
        return Group(*header, Text(nothing))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), width=_WIDTH, show_edge=False)
    table.add_column("READ", justify="right", style="cyan", ratio=9, overflow="fold")
    table.add_column("WRITE", style="bold green", ratio=6, overflow="fold")
    table.add_column(trace.statistic or "entropy", no_wrap=True, width=max(_BAR + 5, 11))
    table.add_column("attends to", style="dim", ratio=7, no_wrap=True, overflow="ellipsis")
    table.add_column("why then", style="yellow", ratio=8, overflow="fold")
    read = 0
    for row, word in enumerate(trace.words):
        delay = trace.delays[row]
        number = Text(numbers(trace, row)) if trace.statistic else _entropy(trace.deciding(row))
        cells = [_units(trace, read, delay), _plain(word), number]
        table.add_row(*cells, _most_attended(trace, row), Text(why(trace, row)))
        read = delay
    if rest := trace.source[read : _last_read(trace)]:
        table.add_row(_plain(together(" ".join(rest))), Text("(end)", style="dim"), "", "", "")
    return Group(*header, table)


def _last_read(trace: Trace) -> int:
    return trace.probes[-1].units_read if trace.probes else 0


def _units(trace: Trace, first: int, last: int) -> Text:
    return _plain(together(" ".join(trace.source[first:last])))


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
