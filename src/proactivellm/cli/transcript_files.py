"""Files of what was written of recordings, with times: subtitles (SRT, WebVTT) and JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proactivellm.files.replace import write_json, write_text
from proactivellm.output.log import Instance
from proactivellm.stream.timed import Timeline, srt, verbose, vtt

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, kw_only=True)
class TranscriptFiles:
    """Where each goes: a file of one recording, or a folder of files named after several."""

    srt: Path | None = None
    vtt: Path | None = None
    json: Path | None = None

    @property
    def wanted(self) -> bool:
        """Whether there is any."""
        return any(vars(self).values())

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError if transcripts of all these recordings cannot go there."""
        for kind, path in vars(self).items():
            if path is None:
                continue
            if len(names) > 1 and not path.is_dir():
                raise ValueError(
                    f"--{kind} {path} is one file, and there are {len(names)} recordings: give a "
                    "folder that exists"
                )
            places = [_place(path, kind, name) for name in names]
            for name, place in zip(names, places, strict=True):
                if places.count(place) > 1:
                    raise ValueError(
                        f"--{kind}: two recordings are called {Path(name).stem}, and {place} is "
                        "one file: stream them apart"
                    )
                if not place.parent.is_dir():
                    raise ValueError(f"--{kind} {place}: there is no folder {place.parent}")

    def write(self, name: str, timeline: Timeline, instance: Instance, encode: Encode) -> None:
        """Writes those of one recording, each whole or not at all."""
        if self.srt is not None:
            write_text(_place(self.srt, "srt", name), srt(timeline))
        if self.vtt is not None:
            write_text(_place(self.vtt, "vtt", name), vtt(timeline))
        if self.json is not None:
            write_json(_place(self.json, "json", name), _told(timeline, instance, encode))


def _place(path: Path, kind: str, name: str) -> Path:
    stem = "standard-input" if name == "-" else Path(name).stem
    return path / f"{stem}.{kind}" if path.is_dir() else path


def _told(timeline: Timeline, instance: Instance, encode: Encode) -> dict[str, Any]:
    """As the server's `verbose_json`."""
    told = {"text": instance.prediction.strip(), "task": "transcribe", "language": "und"}
    duration = {"duration": round(float(instance.source_length) / 1000, 3)}
    return told | duration | verbose(timeline, ("segment", "word"), encode)
