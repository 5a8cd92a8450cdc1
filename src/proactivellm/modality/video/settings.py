"""How a model sees videos: what the file `video/video.json` beside it says."""

from typing import Literal

from pydantic import Field, field_validator

from proactivellm.files.toml import Strict
from proactivellm.forward.controls import parse_control
from proactivellm.modality.video.dropping import Dropping
from proactivellm.modality.video.lens import LENS_FILE
from proactivellm.modality.video.pixels import PixelSettings

SETTINGS_FILE = "video.json"


class VideoSettings(Strict):
    """The file `video.json`."""

    fps: int = Field(2, gt=0)  # frames a second that are looked at, chosen by their times
    pixels: PixelSettings = PixelSettings()
    chunk: int = Field(1, gt=0)  # moments in a unit
    drop_tokens: str | None = None  # as `Dropping.parse` takes it; None: all are kept
    # What layers do with what is seen, as `parse_control` takes it; None: as with all else.
    look: str | None = None
    # Where text begins after a video: after its last moment, as the published checkpoints were
    # trained, or after its height or width, as transformers has it since 5.3.
    text_after: Literal["time", "space"] = "time"

    @field_validator("drop_tokens")
    @classmethod
    def _can_drop(cls, text: str | None) -> str | None:
        if text is None:
            return None
        if (dropping := Dropping.parse(text)).lens:
            raise ValueError(f"a lens lies beside video.json, as {LENS_FILE}: give {dropping.mode}")
        return str(dropping)

    @field_validator("look")
    @classmethod
    def _can_look(cls, text: str | None) -> str | None:
        return text if text is None else str(parse_control(text))

    @property
    def frames(self) -> int:
        """Frames in a unit."""
        return self.pixels.frames * self.chunk
