"""Qwen3-VL: text around each moment, and features that later layers see, by the same rules."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.video_models import save_tiny_watcher
from transformers import Qwen3VLForConditionalGeneration

from proactivellm import load, parse_policy
from proactivellm.core.layout import LAYOUTS
from proactivellm.modality.video.pixels import patches
from proactivellm.modality.video.qwen_vl import video_prompt
from proactivellm.session.session import Session
from proactivellm.session.window import Window
from proactivellm.stream.media import opening_question

from .looking import (
    GRID,
    MOMENTS,
    WRITTEN,
    half_still,
    masked,
    noise,
    packed,
    seen,
    stepped,
    watching,
)

TIMES = ("<0.2 seconds>", "<1.2 seconds>", "<2.2 seconds>", "<3.0 seconds>")  # the last is cut


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_watcher(tmp_path_factory.mktemp("watcher"), family="qwen3_vl")


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


def texts(model) -> list[list[int]]:
    """Token ids before each moment."""
    opens = model.model.config.vision_start_token_id
    return [[*model.tokenizer.encode(t, add_special_tokens=False), opens] for t in TIMES]


@pytest.mark.parametrize("sizes", [(2, 2, 2, 1), (1,) * 7, (7,)])
def test_an_ear_gives_what_the_whole_becomes(model, sizes):
    *units, end = seen(model, noise(), sizes)
    assert [unit.grid.texts for unit in units] == [((len(ids), 1),) for ids in texts(model)]
    assert [unit.grid.seen for unit in units] == [GRID.size] * MOMENTS and end.is_end
    found = torch.cat([unit.features for unit in units])
    assert found.shape[1] == model.parts.width == 3 * 32
    assert torch.allclose(found, model.front_end.embed(noise()), atol=1e-5)


def test_text_is_seen_by_no_later_layer(model):
    unit = seen(model, noise())[1]
    ids = [*texts(model)[1], model.model.config.vision_end_token_id]
    text = unit.features[~unit.grid.rows_in_space()]
    assert torch.equal(text[:, :32], model.parts.embed(torch.tensor(ids)))
    assert not text[:, 32:].any() and unit.features[unit.grid.rows_in_space(), 32:].all()


@torch.inference_mode()
def test_the_whole_video_gives_the_logits_of_transformers(folder):
    """Ids, positions and features are its own; ours come unit by unit."""
    model = load(folder, layout="interleaved")
    units, prompt = seen(model, noise())[:-1], model.prompt
    after = [*prompt.source_tail, *prompt.target_head, *WRITTEN[:-1]]
    from proactivellm.forward.packed import packed_hidden

    media = torch.cat([unit.features for unit in units])
    found = packed_hidden(model, [packed(model, units, [MOMENTS] * len(WRITTEN))], [media])[0]
    whole = Qwen3VLForConditionalGeneration.from_pretrained(folder, trust_remote_code=False).eval()
    config = whole.config
    ids, pad, close = [*prompt.source_head], config.video_token_id, config.vision_end_token_id
    for before in texts(model):
        ids += [*before, *[pad] * GRID.size, close]
    ids = torch.tensor([[*ids, *after]])
    pixels, grid = patches(torch.from_numpy(noise()), model.front_end.settings.pixels)
    expected = whole(
        input_ids=ids,
        pixel_values_videos=pixels,
        video_grid_thw=torch.tensor([grid]),
        mm_token_type_ids=torch.where(ids == pad, 2, 0),
    ).logits[0]
    assert torch.allclose(model.parts.project(found), expected, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize(
    ("layout", "phi"),
    [("grouped", 0), ("grouped", 10000), ("overlapped", 0), ("interleaved", 0), ("thoughts", 0)],
)
@torch.inference_mode()
def test_the_law(model, layout, phi, dropped):
    """Moment by moment as in one masked forward; also where a moment keeps its text alone."""
    with watching(model, drop_tokens="feature:0.999" if dropped else None):
        units = seen(model, half_still() if dropped else noise(), (8 if dropped else 7,))[:-1]
    if dropped:
        assert [unit.grid.seen for unit in units] == [6, 0, 6, 0]
    before, model.layout = model.layout, LAYOUTS[layout](phi)
    try:
        found, expected = torch.cat(list(stepped(model, units))), masked(model, units)
    finally:
        model.layout = before
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_chunk_has_the_times_of_all_its_moments(model):
    with watching(model, chunk=3):
        whole, rest, _ = seen(model, noise(), (7,))
    each = [(len(ids), 1) for ids in texts(model)]
    assert whole.grid.texts == tuple(each[:3]) and rest.grid.texts == (each[3],)
    single = torch.cat([unit.features for unit in seen(model, noise())[:3]])
    assert torch.allclose(whole.features, single, atol=1e-5)


@torch.inference_mode()
def test_saved_in_the_middle_and_fed_anew(model, tmp_path):
    units, policy = seen(model, noise()), parse_policy("wait-k:1")
    session = Session(model, policy)
    session.push(units[:2])
    session.save(tmp_path / "saved")
    both = [session, Session.load(tmp_path / "saved", model, policy)]
    for each in both:
        each.push(units[2:])
    assert both[0].state.target == both[1].state.target and session.state.units_read == MOMENTS
    windowed = Session(model, policy, window=Window(source=60))
    windowed.push(units)
    assert windowed.state.dropped_units > 0 and windowed.state.units_read == MOMENTS


def test_its_own_settings(tmp_path):
    """Pixels are those of a frame, and a folder's of a whole video; the prompt is bare."""
    folder = save_tiny_watcher(tmp_path, chats=True, family="qwen3_vl")
    told = {
        "size": {"shortest_edge": 4096, "longest_edge": 25165824},
        "image_mean": [0.5, 0.4, 0.3],
    }
    (folder / "video_preprocessor_config.json").write_text(json.dumps(told))
    model = load(folder)
    pixels = model.front_end.settings.pixels
    assert (pixels.min_pixels, pixels.max_pixels) == (128 * 32**2, 768 * 32**2)
    assert pixels.mean == (0.5, 0.4, 0.3) and pixels.std == (0.5, 0.5, 0.5)
    bare, framed = (video_prompt(model.tokenizer, bare) for bare in (True, False))
    assert framed.source_open == bare.source_open + "<|vision_start|>"
    assert framed.source_tail == "<|vision_end|>" + bare.source_tail
    assert model.settings.prompt == bare
    # Nothing of the prompt follows a question, which stands in it all the same.
    assert bare.source_open == "" and model.prompt.num_open == 0
    question = opening_question(model, " What happens? ")
    assert model.prompt.opening(question) == [*model.prompt.source_head, *question]
    assert model.tokenizer.decode(question) == "What happens?"
    assert np.isfinite(model.front_end.embed(noise()).detach().numpy()).all()
