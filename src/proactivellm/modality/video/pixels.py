"""Pictures as the vision encoders of Qwen2-VL and its successors take them.

What the image processor of transformers does with Pillow, in torch, and so on any device.
Legend: T = frames, C = 3 colours, N = patches, K = numbers in a patch, I = taps, X = lines of
pixels, O = those that become of them, M = pixels of a line, in all pictures.
"""

import functools
import math
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from proactivellm.files.toml import Strict

BITS = 22  # after the binary point of a weight in Pillow's filters
MOST_ASPECT = 200  # of a picture; beyond it, the processor of transformers refuses too


class PixelSettings(Strict):
    """How pictures become patches; the defaults are those of Qwen2.5-VL."""

    # Pixels of a frame, after it was made larger or smaller.
    min_pixels: int = Field(56 * 56, gt=0)
    max_pixels: int = Field(28 * 28 * 1280, gt=0)
    patch: int = Field(14, gt=0)  # pixels, on each side
    frames: int = Field(2, gt=0)  # in a patch
    merge: int = Field(2, gt=0)  # patches, on each side, that become one embedding
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


class Grid(NamedTuple):
    """How many patches there are."""

    time: int
    height: int
    width: int


def target_size(height: int, width: int, settings: PixelSettings) -> tuple[int, int]:
    """Height and width that a picture is brought to: whole merged patches, within the bounds.

    ValueError if one of them is more than MOST_ASPECT times the other.
    """
    factor = settings.patch * settings.merge
    if max(height, width) > MOST_ASPECT * min(height, width):
        raise ValueError(
            f"a frame of {width} x {height} pixels: one side may be {MOST_ASPECT} times the other"
        )
    new = [round(side / factor) * factor for side in (height, width)]
    if math.prod(new) > settings.max_pixels:
        beta = math.sqrt(height * width / settings.max_pixels)
        new = [max(factor, math.floor(side / beta / factor) * factor) for side in (height, width)]
    elif math.prod(new) < settings.min_pixels:
        beta = math.sqrt(settings.min_pixels / (height * width))
        new = [math.ceil(side * beta / factor) * factor for side in (height, width)]
    return new[0], new[1]


def resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures uint8 [..., H, W] at another height and width, by the bicubic filter of Pillow.

    It goes along one axis, then along the other, with whole levels in between. Pillow 13 begins
    with the columns where only the height shrinks, as this does, and of some tall pictures: those
    differ by a few levels at sharp edges. All others are the same to the bit.
    """
    height, width = size
    if height < frames.shape[-2] and width >= frames.shape[-1]:
        return _along(_along(frames, -2, height), -1, width)
    return _along(_along(frames, -1, width), -2, height)


def _along(frames: Tensor, axis: int, new: int) -> Tensor:
    old = frames.shape[axis]
    if old == new:
        return frames
    place_IO, weight_IO = (values.to(frames.device) for values in _bicubic(old, new))
    lines = frames.movedim(axis, 0)  # each of them, of all pictures, lies in one piece below
    lines_XM = lines.flatten(1)
    total_OM = lines_XM.new_full((new, lines_XM.shape[1]), 1 << (BITS - 1), dtype=torch.int32)
    for place_O, weight_O in zip(place_IO, weight_IO, strict=True):
        # A tap at a time: what all of them look at together is many times the picture.
        total_OM.addcmul_(lines_XM.index_select(0, place_O), weight_O[:, None])
    levels_OM = (total_OM >> BITS).clamp_(0, 255).to(torch.uint8)
    return levels_OM.unflatten(1, lines.shape[1:]).movedim(0, axis)


@functools.lru_cache(maxsize=64)
def _bicubic(old: int, new: int) -> tuple[Tensor, Tensor]:
    """Where each of `new` pixels looks among `old` ones, and how much each counts in 2 ** -BITS.

    int64 and int32 [taps, new]: `precompute_coeffs` of Pillow's Resample.c.
    """
    scale = old / new
    stretch = max(scale, 1.0)
    center_O = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    first_O = (center_O - 2 * stretch + 0.5).trunc().clamp(min=0)
    last_O = (center_O + 2 * stretch + 0.5).trunc().clamp(max=old)
    place_IO = first_O + torch.arange(2 * math.ceil(2 * stretch) + 1)[:, None]
    x = ((place_IO - center_O + 0.5) / stretch).abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    weight_IO = torch.where(x < 1, near, torch.where(x < 2, far, 0.0)) * (place_IO < last_O)
    weight_IO = weight_IO / weight_IO.sum(0) * (1 << BITS)
    whole_IO = (weight_IO + weight_IO.sign() * 0.5).trunc().int()
    return place_IO.clamp(max=old - 1).long(), whole_IO


def patches(frames_THWC: Tensor, settings: PixelSettings) -> tuple[Tensor, Grid]:
    """Patches float32 [N, K] of pictures uint8 [T, H, W, C], and how many of them there are.

    Of frames that are no whole patches in time, the last one is repeated.
    """
    size = target_size(frames_THWC.shape[1], frames_THWC.shape[2], settings)
    frames = resize(frames_THWC.movedim(-1, 1), size).float()
    mean, std = (torch.tensor(v, device=frames.device) for v in (settings.mean, settings.std))
    frames = (frames / 255 - mean[:, None, None]) / std[:, None, None]
    if missing := -len(frames) % settings.frames:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    patch, merge = settings.patch, settings.merge
    grid = Grid(len(frames) // settings.frames, size[0] // patch, size[1] // patch)
    split = frames.view(
        *(grid.time, settings.frames, frames.shape[1]),
        *(grid.height // merge, merge, patch),
        *(grid.width // merge, merge, patch),
    )
    # Patches that become one embedding lie side by side; in a patch: colours, frames, rows.
    ordered = split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return ordered.reshape(math.prod(grid), -1), grid
