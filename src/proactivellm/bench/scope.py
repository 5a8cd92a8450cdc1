"""What a benchmark measures, and how much of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proactivellm.session.limits import Sight

HERE = ("alone", "sessions", "window", "capacity")  # measured in this process
SUITES = (*HERE, "serve", "video")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Sizes of the streams, and how long each of them is looked at."""

    suites: Sequence[str] = HERE
    source: int = 60  # units of a stream, of one token each
    target: int = 60  # tokens written for it
    k: int = 5  # units read before the first token
    long: int = 400  # units and tokens where the prefix is encoded again and again; 0 leaves it out
    repeats: int = 5  # of every measurement that is compared with another, by turns
    sessions: Sequence[int] = (1, 32)  # at once; the first is what the others are compared with
    steps: int = 300  # measured, of every number of sessions and every repeat
    window: int = 256  # tokens in view of source and target, each, in suite `window`
    units: tuple[int, int] = (800, 8000)  # read where a stream is young, and where it is old
    deadline_ms: float = 300.0  # from the arrival of a unit to the token that it allows
    unit_ms: float = 400.0  # between the units of a session
    seconds: float = 5.0  # of every number of sessions in suites `capacity` and `serve`
    max_sessions: int = 1024  # tried in suites `capacity` and `serve`
    seed: int = 0  # of the ids of the sources
    # Of suite `video`: files, for how many seconds each is shown again and again (once, if there
    # are none), and how they are watched (see `VideoFrontEnd.watch`).
    clips: Sequence[str] = ()
    loop: Sequence[int] = ()
    chunk: int | None = None
    drop_tokens: str | None = None
    look: str | None = None
    sight: Sight | None = None

    def __post_init__(self) -> None:
        unknown = [suite for suite in self.suites if suite not in SUITES]
        if unknown or not self.suites:
            wish = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"suite {wish}: choose from {', '.join(SUITES)}")
        for name in ("source", "target", "k", "repeats", "steps", "max_sessions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give 1 or more")
        for name in ("deadline_ms", "unit_ms", "seconds"):
            if not 0 < getattr(self, name) < 1e9:
                raise ValueError(f"{name}={getattr(self, name):g}: give a positive number")
        if "video" in self.suites and not self.clips:
            raise ValueError("the suite video measures clips: give --clip FILE")
        if any(seconds < 1 for seconds in self.loop):
            raise ValueError(f"loop={min(self.loop)}: give seconds of video, 1 or more")
        if self.long < 0:
            raise ValueError(f"long={self.long}: give 0 or more")
        if not self.sessions or min(self.sessions) < 1:
            raise ValueError("sessions: give numbers of 1 or more, such as 1,32")
        near, far = self.units
        if self.window < 16 or not self.window < near < far:
            raise ValueError(
                f"units={near},{far} with window={self.window}: give a window of 16 or more, and "
                "two numbers of units beyond it, such as 800,8000"
            )


def parse_numbers(text: str, name: str) -> tuple[int, ...]:
    """Whole numbers joined by commas, such as `1,32`; of others a ValueError names the option."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("-?[0-9]{1,9}", part) for part in parts):
        raise ValueError(
            f"{name} {text!r}: give whole numbers joined by commas, such as 1,32, of 9 digits at "
            "most"
        )
    return tuple(map(int, parts))
