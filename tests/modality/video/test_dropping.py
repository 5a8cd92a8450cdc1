"""Token dropping: what the released codes keep, places by places."""

import numpy as np
import pytest
import torch

from proactivellm.core.layout import make_layout
from proactivellm.core.positions import Grid
from proactivellm.modality.video.dropping import Dropper, Dropping
from proactivellm.modality.video.pixels import PixelSettings, patches

PIXELS = PixelSettings(min_pixels=56 * 84, max_pixels=56 * 84)  # 2 x 3 tokens


def embeddings(*turns):
    """Embeddings [T, N, 2] of so many degrees: their cosines are those of the differences."""
    angle = torch.tensor(turns, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], -1)


def keep(text, *chunks, pixels=None):
    dropper = Dropper(Dropping.parse(text), PIXELS)
    none = torch.zeros(1)
    found = [
        dropper.keep(e, none if pixels is None else p)
        for e, p in zip(chunks, pixels or chunks, strict=True)
    ]
    return torch.cat(found).int().tolist()


class TestChunkIntra:
    def test_a_place_that_changes_anywhere_stays_in_all_later_moments(self):
        # cos 60 = .5: the second place changes from the third moment to the fourth alone.
        chunk = embeddings([0, 0, 0], [0, 0, 90], [0, 0, 90], [0, 61, 90])
        assert keep("chunk-intra:0.5", chunk) == [[1, 1, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1]]
        assert keep("chunk-intra:0.48", chunk)[3] == [0, 0, 1]

    def test_each_chunk_begins_anew(self):
        chunk = embeddings([0, 0], [0, 0])
        assert keep("chunk-intra", chunk, chunk, chunk[:1]) == [[1, 1], [0, 0]] * 2 + [[1, 1]]


class TestTimeChat:
    def test_features_are_compared_with_the_moment_before(self):
        """Slow drift is dropped for ever: each step is small, whatever the sum."""
        drift = embeddings(*([angle, 0] for angle in range(0, 181, 20)))
        found = keep("feature:0.9", drift[:1], drift[1:4], drift[4:])
        assert found == [[1, 1]] + [[0, 0]] * 9
        jump = embeddings([0, 0], [0, 61], [0, 61])
        assert keep("feature:0.5", jump) == [[1, 1], [0, 1], [0, 0]]

    def test_a_share_of_each_moment(self):
        moments = embeddings([0, 0, 0, 0], [10, 40, 20, 30], [10, 40, 20, 30])
        found = keep("relative-feature:0.5", moments)
        assert found[:2] == [[1, 1, 1, 1], [0, 1, 0, 1]] and sum(found[2]) == 2
        assert sum(keep("relative-feature:0.7", moments)[1]) == 2  # 2.8 are 2 that go

    @pytest.mark.parametrize(
        ("text", "kept"), [("pixel:0.1", [2]), ("relative-pixel:0.5", [2, 1, 5])]
    )
    def test_pixels_of_its_last_frame_against_the_first_of_the_moment_before(self, text, kept):
        frames = torch.full((4, 56, 84, 3), 100, dtype=torch.uint8)
        frames[3, :28, 56:] = 200  # place 2 in the last frame
        frames[1] = 0  # neither frame is compared
        frames[2] = 0
        frames[3, :28, 28:56] = frames[3, 28:, 56:] = 110  # places 1 and 5, by 10 of 255
        found = patches(frames, PIXELS)[0].view(2, 6, -1)
        grid = keep(text, embeddings([0] * 6, [0] * 6), pixels=[found])
        assert [place for place in range(6) if grid[1][place]] == sorted(kept)


def test_a_still_scene_keeps_less_than_a_tenth():
    """The first moment alone; of chunk-intra, the first of each chunk."""
    still = embeddings(*[[0] * 8] * 20)
    assert sum(map(sum, keep("feature:0.5", still[:7], still[7:]))) == 8  # of 160
    assert sum(map(sum, keep("chunk-intra", *still.split(4)))) == 5 * 8


def test_another_size_is_kept_whole():
    assert keep("feature:0.5", embeddings([0, 0]))[0] == [1, 1]
    dropper = Dropper(Dropping.parse("feature:0.5"), PIXELS)
    for moment in (embeddings([0, 0]), embeddings([0, 0, 0])):
        assert dropper.keep(moment, moment).all()


def test_what_is_kept_keeps_its_positions():
    whole, some = Grid(2, 3, 4 / 3, moments=4), (0, 1, 2, 3, 4, 5, 8, 20)
    layout, places = make_layout("grouped"), []
    for grid in (whole, whole._replace(kept=some)):
        numbers = layout.numbers({})
        layout.positions(0, 2, numbers)
        first = layout.positions(0, grid.size, numbers, grid)
        second = layout.positions(0, 24, numbers, whole)
        places.append((first, second, layout.positions(0, 1, numbers)))
    assert np.array_equal(places[0][0][:, some], places[1][0])
    assert all(map(np.array_equal, places[0][1:], places[1][1:]))


@pytest.mark.parametrize("text", ["chunk", "pixel", "feature:2", "pixel:-0.1", "relative-pixel:x"])
def test_what_cannot_be(text):
    with pytest.raises(ValueError, match=f"token dropping '{text}': give "):
        Dropping.parse(text)
