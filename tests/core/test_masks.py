"""Masks against tables drawn by hand: one row per query, x = may attend."""

import pytest
import torch
from tests.two_groups import sample_of, views_of

from proactivellm.core.layout import grouped, interleaved
from proactivellm.core.masks import PADDING, SHARED, layer_masks, visibility, within_window
from proactivellm.core.packing import Packed, pack

# One prompt token, units of two tokens and one; a target of head, two tokens and the end.
SAMPLE = sample_of([[5], [10, 11], [20]], [3], [40, 41, 2])


def tokens_of(packed: Packed) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([getattr(packed, name)]) for name in ("group", "arrival", "view")}


def drawn(mask: torch.Tensor) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask[0, 0].tolist()]


def test_grouped_source_is_causal_and_blind_to_the_target():
    tokens = tokens_of(pack(SAMPLE, views_of([[1, 2, 2]]), grouped()))
    assert drawn(visibility(grouped(), tokens, tokens)) == [
        "x......",  # prompt
        "xx.....",  # unit 1
        "xxx....",
        "xxxx...",  # unit 2
        "xxx.x..",  # predicts 40: prompt and unit 1
        "xxxxxx.",  # predicts 41
        "xxxxxxx",  # predicts the end
    ]


def test_interleaved_source_sees_the_target_written_before_it():
    tokens = tokens_of(pack(SAMPLE, views_of([[1, 2, 2]]), interleaved()))
    assert drawn(visibility(interleaved(), tokens, tokens)) == [
        "x......",
        "xx.....",
        "xxx....",
        "xxxxx..",  # unit 2 arrives after the first target row
        "xxx.x..",
        "xxxxxx.",
        "xxxxxxx",
    ]


def test_views_share_the_source_and_nothing_else():
    tokens = tokens_of(pack(SAMPLE, views_of([[2, 2, 2], [1, 1, 2]]), grouped()))
    assert tokens["view"].tolist() == [[SHARED] * 4 + [0] * 3 + [1] * 3]
    assert drawn(visibility(grouped(), tokens, tokens))[4:] == [
        "xxxxx.....",
        "xxxxxx....",
        "xxxxxxx...",
        "xxx....x..",
        "xxx....xx.",
        "xxxx...xxx",
    ]


def test_packed_views_of_the_interleaved_layout_have_a_source_each():
    tokens = tokens_of(pack(SAMPLE, views_of([[2, 2, 2], [1, 1, 2]]), interleaved()))
    mask = visibility(interleaved(), tokens, tokens)[0, 0]
    assert tokens["view"].tolist() == [[0] * 7 + [1] * 7]
    assert not mask[:7, 7:].any() and not mask[7:, :7].any()
    assert mask[:7, :7].any(-1).all() and mask[7:, 7:].any(-1).all()


def test_padding_sees_itself_and_is_seen_by_nothing_else():
    tokens = {
        "group": torch.tensor([[0, 1, 0]]),
        "arrival": torch.tensor([[1, 2, 0]]),
        "view": torch.tensor([[SHARED, 0, PADDING]]),
    }
    assert drawn(visibility(grouped(), tokens, tokens)) == ["x..", "xx.", "..x"]


def test_queries_and_keys_may_differ():
    tokens = tokens_of(pack(SAMPLE, views_of([[1, 2, 2]]), grouped()))
    last = {name: value[:, -2:] for name, value in tokens.items()}
    whole = visibility(grouped(), tokens, tokens)
    assert torch.equal(visibility(grouped(), last, tokens), whole[:, :, -2:])


def test_window_is_a_distance_of_positions_in_either_direction():
    near = within_window(torch.tensor([[0, 5]]), torch.tensor([[0, 2, 3, 7, 8]]), 3)
    assert drawn(near) == ["xx...", "..xx."]


def test_layer_masks_follow_the_layer_types():
    tokens = tokens_of(pack(SAMPLE, views_of([[1, 2, 2]]), grouped()))
    mask = visibility(grouped(), tokens, tokens)
    position = torch.tensor([[0, 1, 2, 3, 0, 1, 2]])
    assert torch.equal(layer_masks(mask, position, position, {"all": None}), mask)
    windowed = layer_masks(mask, position, position, {"all": 2})
    assert torch.equal(windowed, mask & within_window(position, position, 2))
    by_type = layer_masks(mask, position, position, {"full_attention": None, "sliding": 2})
    assert isinstance(by_type, dict)
    assert torch.equal(by_type["full_attention"], mask)
    assert torch.equal(by_type["sliding"], windowed)


@pytest.mark.parametrize("layout", [grouped(), interleaved(), grouped(64)])
@pytest.mark.parametrize("window", [1, 3, None])
def test_no_row_is_empty(layout, window):
    packed = pack(SAMPLE, views_of([[2, 2, 2], [1, 1, 2]]), layout)
    tokens, position = tokens_of(packed), torch.tensor([packed.position])
    mask = visibility(layout, tokens, tokens)
    assert layer_masks(mask, position, position, {"all": window}).any(-1).all()


def test_what_arrived_before_is_hidden_where_the_table_says_so():
    """A source token that follows a target token sees it when interleaved, and not when grouped."""
    tokens = {"group": torch.tensor([[1, 0]]), "arrival": torch.tensor([[0, 1]])}
    assert visibility(grouped(), tokens, tokens)[0, 0].tolist() == [[True, False], [False, True]]
    assert visibility(interleaved(), tokens, tokens)[0, 0].tolist() == [[True, False], [True, True]]
