"""The table [video] of a recipe: how videos are seen, and on what the model is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, Field, field_validator, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.backbone.folder import CONFIG_FILE, read_object
from proactivellm.backbone.prompt import Prompt
from proactivellm.core.positions import Grid
from proactivellm.forward.controls import parse_control
from proactivellm.modality.base import Example, Examples, FrontEndTable
from proactivellm.modality.video.dropping import BY_LENS
from proactivellm.modality.video.front_end import KIND, VideoFrontEnd
from proactivellm.modality.video.pixels import PixelSettings
from proactivellm.modality.video.qwen_vl import (
    FAMILIES,
    Family,
    apart,
    lens_of,
    load_qwen_vl,
    shape_of,
    timestamps_of,
    video_prompt,
    video_settings,
)
from proactivellm.modality.video.settings import VideoSettings

KEPT_MIB = 1024  # of frames, which are decoded anew where there are more


class Clips:
    """The `Examples` of video, of one size; frames are kept as far as KEPT_MIB go."""

    kind = KIND
    length_per_s = 50.0

    def __init__(self, front_end: VideoFrontEnd) -> None:
        self.front_end = front_end
        self._size: tuple[int, int] | None = None  # places of the first clip
        self._units_of: dict[tuple[tuple[str, ...], ...], list[list[int]]] = {}
        self._frames: dict[str, list[np.ndarray]] = {}
        self._room = KEPT_MIB << 20  # bytes

    @property
    def unit_s(self) -> float:
        """Seconds in a unit."""
        return self.front_end.unit_s

    def read(
        self, sources: Sequence[tuple[str, ...]], rng: np.random.Generator | None = None
    ) -> Example:
        """Patches of clips, joined; nothing is augmented."""
        files = [file for source in sources for file in source]
        frames = [block for file in files for block in self._of(file)]
        if len({block.shape[1:] for block in frames}) > 1:
            raise ValueError(f"{' and '.join(files)}: frames of several sizes cannot be trained on")
        moments, grid = self.front_end.cut(np.concatenate(frames))
        if (size := (grid.height, grid.width)) != (self._size or size):
            raise ValueError(
                f"{files[0]}: it becomes {size} places a frame, and the clips before it "
                f"{self._size}: bring all clips to one size"
            )
        self._size = size
        num_frames = sum(map(len, frames))
        units, grids = zip(*self._units(grid, num_frames), strict=True)
        return Example(moments, [*units], grids)

    def longest(self, sources: Sequence[tuple[str, ...]]) -> list[list[int]]:
        """The units, which are always the same."""
        key = tuple(sources)
        if key not in self._units_of:  # a clip is asked about more than once
            self._units_of[key] = self.read(sources).units
        return self._units_of[key]

    def _of(self, file: str) -> list[np.ndarray]:
        """Frames of a clip, uint8 [T, H, W, 3] in blocks."""
        if file in self._frames:
            return self._frames[file]
        blocks = [*self.front_end.read([file]).blocks]
        size = sum(block.nbytes for block in blocks)
        if size <= self._room:
            self._room -= size
            self._frames[file] = blocks
        return blocks

    def _units(self, grid: Grid, num_frames: int) -> Iterator[tuple[list[int], Grid]]:
        """Token ids and grid of each unit of a video of so many frames."""
        settings = self.front_end.settings
        for start in range(0, grid.moments, settings.chunk):
            part = grid._replace(moments=min(settings.chunk, grid.moments - start))
            first = start * settings.pixels.frames
            yield self.front_end.ids(part, first, min(settings.frames, num_frames - first))


def _family(model_type: str) -> Family:
    """That of a type that can be trained; ValueError if it cannot."""
    if model_type not in FAMILIES:
        able = " or ".join(FAMILIES)
        raise ValueError(f"[video] trains a backbone of the type {able}, not {model_type!r}")
    return FAMILIES[model_type]


def _of(said: dict[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """The keys that settings of a kind have."""
    return {name: value for name, value in said.items() if name in kind.model_fields}


class Video(FrontEndTable):
    """The vision encoder of a backbone that has one, and how it looks at videos."""

    inside: ClassVar[str] = "model.visual"
    fps: int = Field(2, gt=0)  # frames a second that are looked at
    chunk: int = Field(1, gt=0)  # moments in a unit
    # Pixels of a frame, after it was made larger or smaller; those of the family if left out.
    min_pixels: int | None = Field(None, gt=0)
    max_pixels: int | None = Field(None, gt=0)
    look: str | None = None  # what layers do with what is seen, as `parse_control` takes it
    # Else it stays as the backbone has it, or all but its last layer, which makes embeddings of the
    # LM of what is seen (`merger`); under [lora] it always does.
    train_encoder: bool | Literal["merger"] = True

    @field_validator("look")
    @classmethod
    def _can_be_trained(cls, text: str | None) -> str | None:
        if text is not None and not parse_control(text).trains:
            raise ValueError(f"{text}: it is for models as they are, and none is trained so")
        return text

    @model_validator(mode="after")
    def _is_a_part_of_the_backbone(self) -> Self:
        if self.pretrained is not None:
            raise ValueError("`pretrained`: the encoder is that of the backbone, leave it out")
        if getattr(self, "ctc_weight", 0.0):  # a key of an objective, which recipes add
            raise ValueError("ctc_weight aligns speech with its text: leave it out")
        return self

    def load_backbone(self, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The whole model of a checkpoint, encoder included."""
        _family(str(read_object(folder / CONFIG_FILE).get("model_type")))
        lm, tokenizer, *_ = load_qwen_vl(folder, device="cpu", dtype=torch.float32)
        return lm, tokenizer

    def make_prompt(self, lm_type: str, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        """That of the chat template, with a place for a question before the frames."""
        return video_prompt(tokenizer, bare=_family(lm_type).has_times)

    def make_front_end(
        self, lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> VideoFrontEnd:
        """The encoder of the LM, whose weights it shares.

        Where it is pretrained, it sees as its folder says, but for what the table says.
        """
        family = _family(str(lm.config.model_type))
        adapted = hasattr(lm, "get_base_model")
        whole: Any = lm.get_base_model() if adapted else lm
        vision = lm.config.vision_config
        lens = None
        if lm.name_or_path:
            stored = video_settings(Path(lm.name_or_path), vision, family)
            # Under adapters, encoder and words stay as they are; else anchors are searched anew.
            lens = lens_of(Path(lm.name_or_path)) if adapted else None
            if lens is None and stored.drop_tokens in BY_LENS:
                stored = stored.model_copy(update={"drop_tokens": None})
        elif family.has_times:
            raise ValueError(
                f"{lm.config.model_type} has tokens around what it sees, which a new tokenizer "
                "lacks: give `pretrained`, or the type qwen2_5_vl"
            )
        else:
            stored = VideoSettings(pixels=PixelSettings(**shape_of(vision, family)))
        said = self.model_dump(include=self.model_fields_set, exclude_none=True)
        pixels = stored.pixels.model_dump() | _of(said, PixelSettings)
        told = stored.model_dump() | _of(said, VideoSettings) | {"pixels": pixels}
        settings = VideoSettings.model_validate(told)
        tower = apart(whole.model.visual)
        for name, weight in tower.named_parameters():
            learns = "merger" in name if self.train_encoder == "merger" else self.train_encoder
            weight.requires_grad_(bool(learns) and not adapted)
        times = timestamps_of(whole, tokenizer) if family.has_times else None
        per_s = getattr(vision, "tokens_per_second", 1)
        return VideoFrontEnd(tower, settings, per_s, times, whole.get_input_embeddings, lens)

    def make_examples(self, front_end: VideoFrontEnd) -> Examples:
        """Clips as they are."""
        return Clips(front_end)
