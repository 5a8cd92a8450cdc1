"""Pictures become the patches that the image processor of transformers makes of them."""

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as reference

from proactivellm.modality.video.pixels import PixelSettings, patches, target_size

LIMITS = {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 24}
SETTINGS = PixelSettings(**LIMITS)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Two noisy pictures with edges."""
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 255, 2 * 120 * 200 * 3).reshape(2, 120, 200, 3)
    noisy = smooth + rng.normal(0, 40, smooth.shape)
    noisy[:, 30:60, 50:90] = 255
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(120, 200), (97, 131), (40, 30), (112, 140), (5, 200), (120, 90)])
def test_as_transformers_with_pillow(pictures, size):
    frames = pictures[:, : size[0], : size[1]]
    found, grid = patches(torch.from_numpy(frames), SETTINGS)
    processor = reference.Qwen2VLImageProcessorPil(**LIMITS)
    expected = processor([*frames], return_tensors="np")
    assert expected["image_grid_thw"].tolist() == [[1, *grid[1:]]] * 2 and grid.time == 1
    # Of one picture, it makes a patch of the same frame twice.
    each = expected["pixel_values"].reshape(2, len(found), 3, 2, -1)
    wrong = np.abs(found.view(len(found), 3, 2, -1).numpy() - np.stack(each[:, :, :, 0], axis=2))
    assert wrong.max() < 1e-5  # the order of a division: no level is another one
    assert found.std() > 0.5


@pytest.mark.parametrize("size", [(1080, 1920), (4320, 7680), (1, 30), (28, 28), (31, 57), (9, 9)])
def test_size(size):
    limits = SETTINGS.min_pixels, SETTINGS.max_pixels
    assert target_size(*size, SETTINGS) == reference.smart_resize(*size, 28, *limits)


def test_a_frame_that_is_left_alone_is_shown_twice(pictures):
    frames = torch.from_numpy(pictures)
    assert torch.equal(patches(frames[:1], SETTINGS)[0], patches(frames[[0, 0]], SETTINGS)[0])
    three, grid = patches(frames[[0, 1, 1]], SETTINGS)
    assert grid.time == 2
    assert torch.equal(three[: len(three) // 2], patches(frames, SETTINGS)[0])


def test_a_strip_is_refused():
    with pytest.raises(ValueError, match="2 x 1000 pixels"):
        target_size(1000, 2, SETTINGS)
