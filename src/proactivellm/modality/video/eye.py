"""One video on its way through the front end, in stages that may overlap.

In: frames of a unit. Out: its embeddings, and how they lie in space. Each stage is called for one
unit after the other; only the last one remembers anything between them. Legend: T = frames, H and
W = their height and width, n = tokens of a unit.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from proactivellm.core.positions import Grid

if TYPE_CHECKING:
    from proactivellm.modality.video.front_end import VideoFrontEnd


class Prepared(NamedTuple):
    """Frames as the encoder takes them."""

    patches: Tensor  # float32 [N, K]
    grid: Grid  # of the embeddings that they become
    num_frames: int  # that there were; the last patch of an odd number repeats one


class Eye:
    """The stages, and what a video has shown so far."""

    def __init__(self, front_end: "VideoFrontEnd") -> None:
        self.front_end = front_end
        self._dropper = front_end.dropper()
        self._num_frames = 0

    def prepare(self, frames_THWC: np.ndarray) -> Prepared:
        """Frames uint8 [T, H, W, 3] in another size, and cut into patches."""
        return self.front_end.prepare(frames_THWC)

    @torch.inference_mode()
    def encode(self, prepared: Prepared) -> tuple[Tensor, Prepared]:
        """Embeddings of what was prepared."""
        return self.front_end.embed_patches(prepared), prepared

    @torch.inference_mode()
    def drop(self, encoded: tuple[Tensor, Prepared]) -> tuple[Tensor, Grid]:
        """What is kept of them, [n, W], with the text that belongs to it, and its grid."""
        features, prepared = encoded
        grid = prepared.grid
        if self._dropper is not None:
            shape = (grid.moments, grid.height * grid.width, -1)
            seen = features[:, : self.front_end.width].reshape(shape)
            keep = self._dropper.keep(seen, prepared.patches.reshape(shape)).flatten()
            kept = tuple(keep.nonzero()[:, 0].tolist())
            features, grid = features[keep], grid._replace(kept=kept)
        first, self._num_frames = self._num_frames, self._num_frames + prepared.num_frames
        return self.front_end.with_times(features, grid, first, prepared.num_frames)
