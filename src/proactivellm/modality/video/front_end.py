"""The front end for video: moments of two frames become embeddings that lie in a grid.

In: the vision encoder of a checkpoint of the Qwen-VL family, as transformers has it, and settings.
Out: a unit for each moment. Its weights are kept with those of the language model; the folder
`video/` beside them holds `video.json` alone. Legend: T = frames, n = embeddings, D = LM width.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from proactivellm.core.positions import Grid
from proactivellm.core.unit import Unit
from proactivellm.files.replace import replacing_in, write_text
from proactivellm.files.toml import Strict
from proactivellm.modality.base import Media
from proactivellm.modality.video.decoding import Video
from proactivellm.modality.video.pixels import PixelSettings, patches

KIND = "video"  # also the name of its folder inside that of the model
SETTINGS_FILE = "video.json"


class VideoSettings(Strict):
    """The file `video.json`."""

    fps: int = Field(2, gt=0)  # frames a second that are looked at, chosen by their times
    pixels: PixelSettings = PixelSettings()
    # Where text begins after a video: after its last moment, as the published checkpoints were
    # trained, or after its height or width, as transformers has it since 5.3.
    text_after: Literal["time", "space"] = "time"


class VideoFrontEnd(nn.Module):
    """Frames to embeddings of a language model.

    Args:
        tower: takes patches and their grid, and never looks from one moment at another.
        positions_per_s: how fast positions go on in time.
    """

    kind = KIND
    conditions: Mapping[str, Any] = {}

    def __init__(self, tower: nn.Module, settings: VideoSettings, positions_per_s: float) -> None:
        super().__init__()
        self.tower = tower
        self.settings = settings
        self.step = positions_per_s * self.unit_s

    @property
    def unit_s(self) -> float:
        return self.settings.pixels.frames / self.settings.fps

    @property
    def identity(self) -> str:
        return str(self.settings.model_dump(mode="json"))

    def read(self, files: Sequence[str]) -> Media:
        """Opens videos, one after another, in blocks of a moment; see `Video`."""
        return Media(self.settings.fps, self._blocks(files))

    def _blocks(self, files: Sequence[str]) -> Iterator[np.ndarray]:
        for file in files:
            with Video(file, pictures_per_s=self.settings.fps) as video:
                waiting: list[np.ndarray] = []
                for frame in video.frames(self.settings.fps):
                    # A camera may go on in another size.
                    whole = len(waiting) == self.settings.pixels.frames
                    if waiting and (whole or waiting[0].shape != frame.image.shape):
                        yield np.stack(waiting)
                        waiting = []
                    waiting.append(frame.image)
                if waiting:
                    yield np.stack(waiting)

    def open(self, rate: int) -> "VideoEar":
        """An ear for one video of so many frames a second, which must be those of the settings."""
        if rate != self.settings.fps:
            raise ValueError(f"{rate} frames a second: the front end takes {self.settings.fps}")
        return VideoEar(self)

    def embed(self, media: np.ndarray) -> Tensor:
        """Embeddings [n, D] of a whole video, uint8 [T, H, W, 3]."""
        return self.look(media)[0]

    def look(self, frames: np.ndarray) -> tuple[Tensor, Grid]:
        """Embeddings [n, D] of frames uint8 [T, H, W, 3], and the grid of each moment of them."""
        weight = next(self.tower.parameters())
        pixels = self.settings.pixels
        found, grid = patches(torch.from_numpy(frames).to(weight.device), pixels)
        output = self.tower(found.to(weight), grid_thw=torch.tensor([grid], device=weight.device))
        place = Grid(
            grid.height // pixels.merge,
            grid.width // pixels.merge,
            self.step,
            timed=self.settings.text_after == "time",
        )
        return output.pooler_output, place

    def save(self, model_folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Writes the settings; the weights are in the folder already, with the LM's."""
        with replacing_in(Path(model_folder) / KIND) as folder:
            stored = json.dumps(self.settings.model_dump(mode="json"), indent=2)
            write_text(folder / SETTINGS_FILE, stored + "\n")

    @classmethod
    def load(cls, model_folder: str | Path, width: int, device: str = "cpu") -> Self:
        """Refuses (ValueError): its weights are part of the LM's files, and loaded with them."""
        raise ValueError(
            f"{model_folder} has settings of a front end for video, and no model that brings its "
            "weights: give the folder of a whole vision-language model"
        )


class VideoEar:
    """The front end at work on one video."""

    def __init__(self, front_end: VideoFrontEnd) -> None:
        self.front_end = front_end
        self._waiting: list[np.ndarray] = []  # frames of a moment that is not whole
        self._began_s = 0.0

    def push(self, block: np.ndarray, now_s: float) -> list[Unit]:
        """Takes frames uint8 [T, H, W, 3] of one size."""
        units: list[Unit] = []
        for frame in block:
            if self._waiting and self._waiting[0].shape != frame.shape:
                units += self._moment(now_s)  # nothing more of its size will come
            self._waiting.append(frame)
            if len(self._waiting) == self.front_end.settings.pixels.frames:
                units += self._moment(now_s)
        return units

    def finish(self, now_s: float) -> list[Unit]:
        """The last frame of an odd number is looked at as if it had been shown for longer."""
        return [*self._moment(now_s), Unit.end(now_s)]

    @torch.inference_mode()
    def _moment(self, now_s: float) -> list[Unit]:
        if not self._waiting:
            return []
        features, grid = self.front_end.look(np.stack(self._waiting))
        unit = Unit(features=features, start_s=self._began_s, end_s=now_s, grid=grid)
        self._waiting, self._began_s = [], now_s
        return [unit]
