"""Reference segments of long recordings: their file, and to which recording each belongs."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from proactivellm.output.log import Instance


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What is said in a part of a recording: a word at least, else a ValueError."""

    audio: str  # the recording, as the log names it, or its file name
    start_s: float
    end_s: float
    text: str

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.end_s < math.inf:
            raise ValueError(
                f"a segment ends after it starts, at 0 s or later: found {self.start_s} to "
                f"{self.end_s} s"
            )
        if not self.text.strip():
            raise ValueError("a segment needs a text; leave out those in which nothing is said")


_SEGMENT = TypeAdapter(Segment)


def read_segments(path: str | Path) -> list[Segment]:
    """Reads JSON lines `{"audio", "start_s", "end_s", "text"}`; other keys are passed over.

    Raises a ValueError that names the file, and the line if one is no segment.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    segments = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            segments.append(_SEGMENT.validate_python(json.loads(line)))
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            key = ".".join(map(str, detail["loc"]))
            message = detail["msg"].removeprefix("Value error, ")
            raise ValueError(f"{path}: line {number}: {key + ': ' * bool(key)}{message}") from None
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: not JSON ({error})") from None
    return segments


def match_recordings(
    instances: Sequence[Instance], segments: Sequence[Segment]
) -> list[tuple[Instance, list[Segment]]]:
    """Each instance of a log of speech with its segments by start, in the order of the log.

    Recordings are found by path, or by file name if any path is unknown.

    Raises:
        ValueError: the log is not of speech, or a recording lacks segments, is not in the log or is
            there twice.
    """
    if any(instance.source_type == "text" for instance in instances):
        raise ValueError("segments are of recordings: the log is of text")
    # Test sets name their recordings by file name; a log has the path of this machine.
    sources = {instance.source for instance in instances}
    by_path = all(segment.audio in sources for segment in segments)
    parts_of = defaultdict(list)
    for segment in segments:
        parts_of[segment.audio if by_path else Path(segment.audio).name].append(segment)
    recordings = []
    for instance in instances:
        name = instance.source if by_path else Path(instance.source).name
        parts = parts_of.pop(name, None)
        if parts is None:
            raise ValueError(
                f"{instance.source!r} has no segments, or is in the log twice: give segments of "
                "every recording, and one instance each"
            )
        recordings.append((instance, sorted(parts, key=lambda part: part.start_s)))
    if parts_of:
        raise ValueError(f"segments of {', '.join(parts_of)[:80]!r}: no such recording in the log")
    return recordings
