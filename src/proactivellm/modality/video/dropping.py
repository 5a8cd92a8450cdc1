"""Token dropping: what a moment of a video repeats, or what says nothing, is left out.

One stage between vision encoder and language model. What is kept keeps its positions. Legend: T =
moments, N = tokens of a moment, D = LM width, P = numbers in the patches of a token.
"""

from collections.abc import Callable
from typing import Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from proactivellm.files.toml import Strict
from proactivellm.modality.video.lens import ALIVE, DEAD
from proactivellm.modality.video.pixels import PixelSettings

Mode = Literal[
    "chunk-intra", "feature", "pixel", "relative-feature", "relative-pixel", "dead", "useless"
]
MODES = get_args(Mode)
BY_LENS = ("dead", "useless")
_USUAL = {"chunk-intra": 0.25, "feature": 0.5}  # of the papers


class Dropping(Strict):
    """What is dropped.

    `chunk-intra` is that of ViCoStream (arXiv 2606.19849), as released: the first moment of a chunk
    is kept whole, and a place is kept in all others of it if the cosine of its embeddings in two
    moments that follow each other is below the threshold anywhere in the chunk.

    The others are those of TimeChat-Online (arXiv 2504.17343), which compare each moment with the
    one before it, across chunks: `feature` drops a token if the cosine of its embedding with that
    at the same place is above the threshold; `pixel`, if the levels of its last frame differ from
    those of the first frame of the moment before by less than the threshold on average, in [0, 1];
    `relative-...` drop this share of a moment, what is most alike. The reference is the moment
    before, whatever was kept of it: what changes slowly enough is dropped for ever.

    Two look at each token for itself, through the lens of the model (EmbedLens, arXiv 2603.00510):
    `dead` drops those that are dead, `useless` sinks as well.
    """

    mode: Mode
    threshold: float | None = None  # None: by a lens
    lens: str | None = None  # the file of a lens; None: that of the model

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of MODE, MODE:THRESHOLD or, by a lens, MODE:FILE.

        ValueError if it is none of them, or out of range.
        """
        mode, _, number = text.partition(":")
        if mode not in MODES:
            raise ValueError(f"token dropping {text!r}: give one of {', '.join(MODES)}")
        if mode in BY_LENS:
            return cls(mode=mode, lens=number or None)
        lowest = -1.0 if mode in ("chunk-intra", "feature") else 0.0
        try:
            threshold = float(number) if number else _USUAL[mode]
            if not lowest <= threshold <= 1:
                raise ValueError
        except (KeyError, ValueError):
            raise ValueError(
                f"token dropping {text!r}: give {mode}:X, with X from {lowest:g} to 1"
            ) from None
        return cls(mode=mode, threshold=threshold)

    def __str__(self) -> str:
        return self.mode if self.threshold is None else f"{self.mode}:{self.threshold:g}"


class Dropper:
    """Token dropping at work on one video.

    Args:
        classify: features [N, D] to their classes [N], see `Lens.classify`; for modes by a lens.
    """

    def __init__(
        self,
        dropping: Dropping,
        pixels: PixelSettings,
        classify: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.dropping = dropping
        self._classify = classify
        self._pixels = pixels
        self._before: Tensor | None = None  # what the next moment is compared with

    def keep(self, features_TND: Tensor, patches_TNP: Tensor) -> Tensor:
        """Which tokens of the next chunk are kept: bool [T, N].

        Args:
            features_TND: embeddings as the language model takes them.
            patches_TNP: what they were made of.
        """
        if self._classify is not None:
            class_TN = self._classify(features_TND.flatten(0, 1)).view(features_TND.shape[:2])
            return class_TN != DEAD if self.dropping.mode == "dead" else class_TN == ALIVE
        if self.dropping.mode == "chunk-intra":
            return _within_chunk(features_TND, self._threshold)
        if self.dropping.mode.endswith("pixel"):
            first_TNX, last_TNX = self._levels(patches_TNP)
            return self._keep(last_TNX, first_TNX, lambda a, b: (a - b).abs().mean(-1))
        return self._keep(features_TND, features_TND, lambda a, b: -_cosine(a, b))

    def _keep(self, now_TNX: Tensor, then_TNX: Tensor, change: Callable[..., Tensor]) -> Tensor:
        """Compares each moment with the one before it, by how much a place changes."""
        kept = torch.ones(now_TNX.shape[:2], dtype=torch.bool, device=now_TNX.device)
        for moment, now_NX in enumerate(now_TNX):
            before = self._before
            if before is not None and before.shape == now_NX.shape:  # else a camera has changed
                kept[moment] = self._changed(change(before, now_NX))
            self._before = then_TNX[moment]
        return kept

    @property
    def _threshold(self) -> float:
        assert self.dropping.threshold is not None, "no threshold, and no lens"
        return self.dropping.threshold

    def _changed(self, change_N: Tensor) -> Tensor:
        threshold = self._threshold
        if not self.dropping.mode.startswith("relative"):
            return change_N >= (-threshold if self.dropping.mode == "feature" else threshold)
        kept = torch.ones_like(change_N, dtype=torch.bool)
        kept[change_N.topk(int(len(change_N) * threshold), largest=False).indices] = False
        return kept

    def _levels(self, patches_TNP: Tensor) -> tuple[Tensor, Tensor]:
        """Colours in [0, 1] of the first and of the last frame of each moment, [T, N, X]."""
        pixels = self._pixels
        shape = (pixels.merge**2, 3, pixels.frames, pixels.patch**2)
        levels = patches_TNP.unflatten(-1, shape)
        std = torch.tensor(pixels.std, device=levels.device)  # the mean falls out of differences
        levels = levels * std[:, None, None]
        return levels[..., 0, :].flatten(2), levels[..., -1, :].flatten(2)


def _within_chunk(features_TND: Tensor, threshold: float) -> Tensor:
    kept = torch.ones(features_TND.shape[:2], dtype=torch.bool, device=features_TND.device)
    kept[1:] = (_cosine(features_TND[:-1], features_TND[1:]) < threshold).any(0)
    return kept


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a.float(), b.float(), dim=-1)
