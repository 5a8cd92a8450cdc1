"""What Ctrl-C and SIGTERM do: the first one ends a command in order, the second one at once."""

import functools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn, TypeVar

import typer

from proactivellm.cli.messages import warn

T = TypeVar("T")
INTERRUPTED = 130  # how a command exits that was stopped, by whatever signal: see `Stops.code`
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"  # a drawing hides it


@dataclass
class Stops:
    """Whether the user wants an end, and how a command takes it."""

    number: int | None = None  # of the first signal that came
    # Whether a signal is only noted while something is computed, so that what was heard and written
    # can be kept. Otherwise, and where input is waited for, it raises KeyboardInterrupt.
    noted: bool = False
    told: str = ""  # what is said when a signal is noted, where the end may take a while

    @property
    def came(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    @property
    def code(self) -> int:
        """The exit code of a command that was stopped, as shells have it."""
        return 128 + (self.number or signal.SIGINT)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Takes a signal."""
        if self.came:
            if sys.__stdout__ is not None and sys.__stdout__.isatty():
                os.write(sys.__stdout__.fileno(), _SHOW_CURSOR.encode())
            os._exit(128 + number)
        self.number = number
        if not self.noted:
            raise KeyboardInterrupt
        if self.told:  # not by `warn`: the file may be in use below
            with suppress(OSError):  # nobody may be reading: that must not end the work
                os.write(2, f"\n{self.told}\n".encode())

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Listens to the signals; one that is ignored, as of a job in the background, stays so."""
        before = {}
        _free_children()
        try:
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    before[number] = signal.signal(number, self.handle)
        except ValueError:  # signals are for the main thread
            pass
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def noting(self, told: str = "") -> Iterator[None]:
        """Signals are only noted in here, and `told` is said of them."""
        self.noted, self.told = True, told
        try:
            yield
        finally:
            self.noted, self.told = False, ""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Signals raise in here: something is waited for that may never come."""
        before, self.noted = self.noted, False
        try:
            if self.came:
                raise KeyboardInterrupt
            yield
        finally:
            self.noted = before

    def until_stopped(self, items: Iterator[T]) -> Iterator[T]:
        """Ends a source when a signal comes, also while it is waited for; no item is lost."""
        while not self.came:
            try:
                with self.waiting():
                    item = next(items, None)
            except KeyboardInterrupt:
                return
            if item is None:
                return
            yield item

    def until_noted(self, items: Iterator[T]) -> Iterator[T]:
        """Ends a source, which another thread reads, with the item in which a signal has come."""
        for item in items:
            yield item
            if self.came:
                return


def end_interrupted(what_stays: str) -> NoReturn:
    """Ends a command that Ctrl-C or SIGTERM stopped, and says what its work is not lost in.

    Raises:
        typer.Exit: always.
    """
    warn(f"interrupted: {what_stays}")
    raise typer.Exit(INTERRUPTED)


@functools.cache  # once: it cannot be taken back
def _free_children() -> None:
    """Processes that are forked off die of a signal, as a pool that ends its workers expects.

    A pool may end a worker right after the fork. What came before its handlers are those of the
    system would be noted and lost, and the pool would wait for ever: hence signals are held back.
    """
    masks: list[set[signal.Signals]] = []

    def hold() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS))  # type: ignore[arg-type]

    def go_on() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def go_on_by_default() -> None:
        _by_default()
        go_on()

    os.register_at_fork(before=hold, after_in_parent=go_on, after_in_child=go_on_by_default)


def _by_default() -> None:
    for number in _SIGNALS:
        if isinstance(getattr(signal.getsignal(number), "__self__", None), Stops):
            signal.signal(number, signal.SIG_DFL)
