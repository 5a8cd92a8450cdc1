"""The causal encoder against the unmodified encoders of transformers."""

import copy
from functools import partial

import pytest
import torch
from tests.modality.speech.fronts import gap, new_encoder, random_mel
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

TOLERANCE = 1e-5
POSITIONS = 40  # the unmodified encoders take recordings of exactly so many steps
KINDS = ("whisper", "qwen2-audio")
EVERYTHING = 10**6


def whole(encoder, mel_BTF, lengths=None):
    num_frames_B = torch.tensor(lengths or [mel_BTF.shape[1]] * len(mel_BTF))
    with torch.inference_mode():
        return encoder(mel_BTF, num_frames_B)


def unmodified(encoder, mel_BTF, visible_SS=None):
    """The forward of transformers; a mask goes in by way of the attention function alone."""
    tower = copy.deepcopy(encoder.tower)

    def masked(module, query, key, value, attention_mask, mask, **kwargs):
        return sdpa_attention_forward(module, query, key, value, mask, **kwargs)

    if visible_SS is not None:
        AttentionInterface.register("test-masked", partial(masked, mask=visible_SS[None, None]))
        tower.set_attn_implementation("test-masked")
    with torch.inference_mode():
        return tower(mel_BTF.transpose(1, 2)).last_hidden_state


@pytest.fixture(scope="module")
def mel_BTF():
    return torch.stack([torch.from_numpy(random_mel(2 * POSITIONS, seed)) for seed in (0, 1)])


@pytest.mark.parametrize("kind", KINDS)
def test_without_blocks_it_is_the_unmodified_encoder(kind, mel_BTF):
    encoder = new_encoder(kind, POSITIONS, block=EVERYTHING)
    assert gap(whole(encoder, mel_BTF), unmodified(encoder, mel_BTF)) < TOLERANCE


@pytest.mark.parametrize("block, offset", [(1, 0), (8, 0), (8, 1), (5, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_with_blocks_it_is_the_unmodified_encoder_under_a_causal_mask(kind, block, offset, mel_BTF):
    encoder = new_encoder(kind, POSITIONS, block=block, offset=offset)
    block_S = (torch.arange(POSITIONS) + offset) // block
    expected = unmodified(encoder, mel_BTF, block_S[:, None] >= block_S)
    outputs = whole(encoder, mel_BTF)
    assert gap(outputs, expected) < TOLERANCE
    assert gap(outputs, unmodified(encoder, mel_BTF)) > 1e-2, "the mask should matter"


def test_qwen2_audio_takes_the_mask_as_an_argument_too(mel_BTF):
    encoder = new_encoder("qwen2-audio", POSITIONS, block=4)
    block_S = torch.arange(POSITIONS) // 4
    mask = torch.where(block_S[:, None] >= block_S, 0.0, torch.finfo(torch.float32).min)
    with torch.inference_mode():
        expected = encoder.tower(mel_BTF.transpose(1, 2), mask[None, None]).last_hidden_state
    assert gap(whole(encoder, mel_BTF), expected) < TOLERANCE


@pytest.mark.parametrize("lookahead", [1, 3, 9])
def test_looking_ahead_does_not_add_up_over_layers(lookahead, mel_BTF):
    """An output depends on the frames of its block's look-ahead, and on none after them."""
    encoder = new_encoder("whisper", POSITIONS, block=4, lookahead=lookahead)
    end = 16  # of the fourth block
    last = 2 * (end + lookahead - 1) + 2  # the last frame that the convolutions show it
    expected = whole(encoder, mel_BTF)[:, :end]
    later = mel_BTF.clone()
    later[:, last + 1 :] += 3
    assert gap(whole(encoder, later)[:, :end], expected) < TOLERANCE
    later[:, last] += 3
    assert gap(whole(encoder, later)[:, :end], expected) > 1e-3


def test_a_block_with_look_ahead_is_what_it_would_be_at_the_end_of_the_recording(mel_BTF):
    """One block and what it looks ahead to attend to each other as one block of both."""
    ahead = new_encoder("whisper", POSITIONS, block=8, lookahead=4)
    longer = new_encoder("whisper", POSITIONS, block=12)
    assert gap(whole(ahead, mel_BTF)[:, :8], whole(longer, mel_BTF)[:, :8]) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(60, 80), (79, 33), (1, 2)])
def test_recordings_beside_it_change_nothing(kind, lengths, mel_BTF):
    encoder = new_encoder(kind, POSITIONS, block=8, offset=1, lookahead=2)
    together = whole(encoder, mel_BTF, list(lengths))
    for row, length in enumerate(lengths):
        count = encoder.num_outputs(length)
        alone = whole(encoder, mel_BTF[row : row + 1, :length])
        assert alone.shape[1] == count
        if count:
            assert gap(together[row, :count], alone[0]) < TOLERANCE


def test_what_the_position_embeddings_do_not_reach_is_refused():
    encoder = new_encoder("whisper", POSITIONS)
    with pytest.raises(ValueError, match="41 encoder steps, and the encoder has 40 positions: cut"):
        whole(encoder, torch.from_numpy(random_mel(2 * POSITIONS + 1))[None])


def test_it_can_be_trained(mel_BTF):
    encoder = new_encoder("whisper", POSITIONS, block=4, lookahead=1)
    encoder(mel_BTF, torch.tensor([80, 50])).square().sum().backward()
    grads = {name: p.grad for name, p in encoder.named_parameters() if p.requires_grad}
    assert grads and all(grad is not None for grad in grads.values())
