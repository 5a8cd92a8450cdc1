"""The front end for video: moments of two frames become embeddings that lie in a grid.

In: the vision encoder of a checkpoint of the Qwen-VL family, as transformers has it, and settings.
Out: a unit for each chunk of moments. Its weights are kept with those of the language model; the
folder `video/` beside them holds `video.json`, and maybe `lens.json`. Legend: T = frames, n =
tokens, D = LM width, V = words, W = width of the LM's input, which is D or, where later layers see
too, a multiple of it.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from proactivellm.core.packing import MEDIA_ID
from proactivellm.core.positions import Grid
from proactivellm.files.replace import replacing_in, write_text
from proactivellm.forward.controls import parse_control
from proactivellm.modality.base import Media
from proactivellm.modality.video.decoding import Video
from proactivellm.modality.video.dropping import BY_LENS, Dropper, Dropping
from proactivellm.modality.video.ear import VideoEar
from proactivellm.modality.video.eye import Prepared
from proactivellm.modality.video.lens import LENS_FILE, Lens
from proactivellm.modality.video.pixels import patches
from proactivellm.modality.video.settings import SETTINGS_FILE, VideoSettings
from proactivellm.modality.video.timestamps import Timestamps

KIND = "video"  # also the name of its folder inside that of the model
CHUNK = 4  # moments in a chunk of ViCoStream


class VideoFrontEnd(nn.Module):
    """Frames to embeddings of a language model.

    Args:
        tower: takes patches and their grid, and never looks from one moment at another.
        positions_per_s: how fast positions go on in time.
        timestamps: what puts text around moments; None = nothing does.
        words: gives the module with the LM's input embeddings, which a lens looks at.
        lens: tells which tokens are dead; None = the model has none.
    """

    kind = KIND

    def __init__(
        self,
        tower: nn.Module,
        settings: VideoSettings,
        positions_per_s: float,
        timestamps: Timestamps | None = None,
        words: Callable[[], Any] | None = None,
        lens: Lens | None = None,
    ) -> None:
        super().__init__()
        self.tower = tower
        config: Any = tower.config
        self.width: int = config.out_hidden_size
        self.timestamps = timestamps
        self._words = words
        self.lens = lens
        self.settings = settings
        self.positions_per_s = positions_per_s

    @property
    def unit_s(self) -> float:
        return self.settings.frames / self.settings.fps

    @property
    def conditions(self) -> Mapping[str, Any]:
        said = {"chunk": self.settings.chunk, "drop_tokens": self.settings.drop_tokens}
        return said if self.settings.look is None else said | {"look": self.settings.look}

    def watch(
        self, chunk: int | None = None, drop_tokens: str | None = None, look: str | None = None
    ) -> None:
        """Changes how many moments are a unit, and what is dropped of them; None leaves it.

        So with how the layers look at them, of which the model is told by `StreamingCausalLM.look`.

        `chunk-intra` has chunks of 4 moments, as in ViCoStream, if nothing else is said. A lens
        that is named there becomes that of the model. ValueError if one of them cannot be.
        """
        lens = self.lens
        if drop_tokens is not None:
            drop_tokens = str(dropping := Dropping.parse(drop_tokens))
            lens = Lens.load(dropping.lens) if dropping.lens else lens
            if dropping.mode in BY_LENS:
                self._looking_through(lens)
            if chunk is None and dropping.mode == "chunk-intra" and self.settings.chunk == 1:
                chunk = CHUNK
        if chunk is not None and chunk < 1:
            raise ValueError(f"a chunk of {chunk} moments: give 1 or more")
        look = look if look is None else str(parse_control(look))
        given = {"chunk": chunk, "drop_tokens": drop_tokens, "look": look}
        changed = {name: value for name, value in given.items() if value is not None}
        self.lens = lens
        self.settings = self.settings.model_copy(update=changed)

    @property
    def identity(self) -> str:
        settings = str(self.settings.model_dump(mode="json"))
        return settings if self.lens is None else f"{settings} {self.lens.model_dump(mode='json')}"

    @property
    def words_VD(self) -> Tensor:
        """The input embeddings of the LM."""
        if self._words is None:
            raise ValueError("the front end has no LM whose words it could look at")
        weight: Tensor = self._words().weight
        return weight

    def read(self, files: Sequence[str]) -> Media:
        """Opens videos, one after another, in blocks of a moment; see `Video`."""
        return Media(self.settings.fps, self._blocks(files))

    def _blocks(self, files: Sequence[str]) -> Iterator[np.ndarray]:
        for file in files:
            with Video(file, pictures_per_s=self.settings.fps) as video:
                waiting: list[np.ndarray] = []
                for frame in video.frames(self.settings.fps):
                    # A camera may go on in another size.
                    whole = len(waiting) == self.settings.frames
                    if waiting and (whole or waiting[0].shape != frame.image.shape):
                        yield np.stack(waiting)
                        waiting = []
                    waiting.append(frame.image)
                if waiting:
                    yield np.stack(waiting)

    def open(self, rate: int) -> VideoEar:
        """An ear for one video of so many frames a second, which must be those of the settings."""
        if rate != self.settings.fps:
            raise ValueError(f"{rate} frames a second: the front end takes {self.settings.fps}")
        return VideoEar(self)

    def embed(self, media: np.ndarray) -> Tensor:
        """Embeddings [n, W] of a whole video, uint8 [T, H, W, 3]; nothing is dropped."""
        prepared = self.prepare(media)
        return self.with_times(self.embed_patches(prepared), prepared.grid, 0, len(media))[0]

    def prepare(self, frames: np.ndarray) -> Prepared:
        """Frames uint8 [T, H, W, 3] in another size, and cut into patches."""
        pixels, device = self.settings.pixels, next(self.tower.parameters()).device
        found, grid = patches(torch.from_numpy(frames).to(device), pixels)
        place = Grid(
            grid.height // pixels.merge,
            grid.width // pixels.merge,
            self.positions_per_s * pixels.frames / self.settings.fps,
            timed=self.settings.text_after == "time",
            moments=grid.time,
        )
        return Prepared(found, place, len(frames))

    def embed_patches(self, prepared: Prepared) -> Tensor:
        """Embeddings [n, W] of the places of a grid."""
        weight, (found, place, _) = next(self.tower.parameters()), prepared
        merge = self.settings.pixels.merge
        size = [place.moments, place.height * merge, place.width * merge]
        output = self.tower(found.to(weight), grid_thw=torch.tensor([size], device=weight.device))
        deep = getattr(output, "deepstack_features", None) or ()
        return torch.cat([output.pooler_output, *deep], dim=-1)

    def with_times(
        self, features: Tensor, grid: Grid, first: int, num_frames: int
    ) -> tuple[Tensor, Grid]:
        """A unit with the text around its moments, if the model has any.

        Args:
            first: number of its first frame.
            num_frames: of the unit.
        """
        if self.timestamps is None:
            return features, grid
        return self.timestamps.put(features, grid, self._times_s(grid, first, num_frames))

    def _times_s(self, grid: Grid, first: int, num_frames: int) -> list[float]:
        """Of the moments of a unit: half way between the first and the last frame of each."""
        size, last = self.settings.pixels.frames, num_frames - 1
        middles = [(k * size + min((k + 1) * size - 1, last)) / 2 for k in range(grid.moments)]
        return [(first + middle) / self.settings.fps for middle in middles]

    # What training asks for, see `TrainedFrontEnd`. Legend: A = videos, M = moments, h and w =
    # places in height and width of a moment, X = numbers in the patches of a place.

    def cut(self, frames: np.ndarray) -> tuple[np.ndarray, Grid]:
        """Frames uint8 [T, H, W, 3] as `encode` takes them, [M, h, w, X], and their grid."""
        prepared = self.prepare(frames)
        grid = prepared.grid
        shape = (grid.moments, grid.height, grid.width, -1)
        return prepared.patches.reshape(shape).numpy(), grid

    def ids(self, grid: Grid, first: int, num_frames: int) -> tuple[list[int], Grid]:
        """Token ids of a unit and its grid, as `with_times` has them; MEDIA_ID is what is seen."""
        if self.timestamps is None:
            return [MEDIA_ID] * grid.size, grid
        return self.timestamps.around(grid, self._times_s(grid, first, num_frames))

    def encode(self, features: Tensor, num_frames_A: Tensor) -> Tensor:
        """Embeddings [A, M * h * w, W] of videos [A, M, h, w, X] of so many moments; 0 after them.

        The encoder looks at all moments of all videos at once.
        """
        num_moments, height, width = features.shape[1:4]
        place_M = torch.arange(num_moments, device=num_frames_A.device)
        there_AM = place_M < num_frames_A[:, None]
        grid = Grid(height, width, moments=int(there_AM.sum()))
        side = self.settings.pixels.merge**2
        seen = features[there_AM].flatten(0, 2).unflatten(-1, (side, -1)).flatten(0, 1)
        embedded = self.embed_patches(Prepared(seen, grid, 0)).unflatten(0, (-1, height * width))
        whole = embedded.new_zeros(*there_AM.shape, *embedded.shape[1:])
        whole[there_AM] = embedded
        return whole.flatten(1, 2)

    def num_outputs(self, num_frames_A: Tensor) -> Tensor:
        """Refuses (ValueError): what is seen is not said, so that nothing can be aligned to it."""
        raise ValueError("ctc_weight aligns speech with its text: leave it out of [video]")

    def embed_outputs(self, outputs_APW: Tensor, num_frames_A: Tensor) -> Tensor:
        """Embeddings [A, P, W], which outputs are already."""
        return outputs_APW

    def set_attention(self, name: str) -> None:
        """Keeps that of transformers: an encoder sees by moments, and not by views."""
        tower: Any = self.tower
        tower.set_attn_implementation("sdpa")

    def dropper(self) -> Dropper | None:
        """What drops tokens of one video; None: all are kept.

        ValueError if it needs a lens, and the model has none.
        """
        if self.settings.drop_tokens is None:
            return None
        dropping = Dropping.parse(self.settings.drop_tokens)
        classify = self._looking_through(self.lens) if dropping.mode in BY_LENS else None
        return Dropper(dropping, self.settings.pixels, classify)

    def _looking_through(self, lens: Lens | None) -> Callable[[Tensor], Tensor]:
        """What classifies features [N, D]; ValueError if there is no lens, or it does not fit."""
        if lens is None:
            raise ValueError(
                f"the model has no {KIND}/{LENS_FILE}, which tells dead tokens: make it with "
                "`proactivellm lens`, or name a file, as in --drop-tokens dead:FILE"
            )
        lens.check(self.words_VD)
        return lambda features_ND: lens.classify(features_ND, self.words_VD)

    def save(
        self,
        model_folder: str | Path,
        dtype: torch.dtype = torch.float16,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Writes the settings; the weights are in the folder already, with the LM's."""
        with replacing_in(Path(model_folder) / KIND) as folder:
            stored = json.dumps(self.settings.model_dump(mode="json"), indent=2)
            write_text(folder / SETTINGS_FILE, stored + "\n")
            if self.lens is not None:
                self.lens.save(folder / LENS_FILE)

    @classmethod
    def load(cls, model_folder: str | Path, width: int, device: str = "cpu") -> Self:
        """Refuses (ValueError): its weights are part of the LM's files, and loaded with them."""
        raise ValueError(
            f"{model_folder} has settings of a front end for video, and no model that brings its "
            "weights: give the folder of a whole vision-language model"
        )
