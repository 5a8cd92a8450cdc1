"""Inputs read ahead: a bounded number of pieces, errors with their place, threads that end."""

import threading
import time
from collections.abc import Iterator

import pytest

from proactivellm.cli import read_ahead
from proactivellm.cli.live_lines import LiveLine
from proactivellm.cli.read_ahead import Input, Piece

PATIENCE_S = 60.0


def take(source: Input, arrived: threading.Event) -> Piece | None:
    """The next piece, waited for; None at the end."""
    while (piece := source.take()) is None and not source.ended:
        assert arrived.wait(PATIENCE_S)
        arrived.clear()
    return piece


def wait_until_gone(name: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while any(thread.name == name for thread in threading.enumerate()):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_MAX_CHARACTERS", 4)
    lines = [LiveLine("f, line 1", iter(["ein Haus", "", "!"])), LiveLine("f, line 2", iter([""]))]
    arrived = threading.Event()
    source = Input("f", iter(lines), arrived)
    pieces = [*iter(lambda: take(source, arrived), None)]
    assert pieces == [
        *(Piece("f, line 1", text, False) for text in ("ein ", "Haus", "!")),
        Piece("f, line 1", "", True),
        Piece("f, line 2", "", True),
    ]
    assert source.ended and source.take() is None


def test_stays_ahead_by_a_bounded_number_of_pieces() -> None:
    num_read = 0

    def endless() -> Iterator[LiveLine]:
        nonlocal num_read
        while True:
            num_read += 1
            yield LiveLine(f"f, line {num_read}", iter([]))

    arrived = threading.Event()
    source = Input("endless", endless(), arrived)
    for number in (1, 2, 3):
        piece = take(source, arrived)
        assert piece and piece.where == f"f, line {number}"
    end_s = time.monotonic() + PATIENCE_S
    while num_read < 3 + read_ahead._MAX_PIECES and time.monotonic() < end_s:
        time.sleep(0.01)
    time.sleep(0.05)
    assert num_read <= 3 + read_ahead._MAX_PIECES + 1  # one more waits for room
    source.close()
    assert source.ended and source.take() is None
    wait_until_gone("endless")


def failing(error: Exception) -> Iterator[LiveLine]:
    def arriving() -> Iterator[str]:
        yield "ein "
        raise error

    yield LiveLine("f, line 7", arriving())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no text"), ValueError("f, line 7: no text")),
        (OSError(5, "Input/output error"), ValueError("f: Input/output error")),
        (RuntimeError("a bug"), RuntimeError("a bug")),  # keeps its type, and so its traceback
    ],
)
def test_errors_come_after_what_was_read(error: Exception, expected: Exception) -> None:
    arrived = threading.Event()
    source = Input("f", failing(error), arrived)
    assert take(source, arrived) == Piece("f, line 7", "ein ", False)
    with pytest.raises(type(expected)) as raised:
        take(source, arrived)
    assert str(raised.value) == str(expected) and source.ended
