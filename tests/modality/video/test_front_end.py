"""A vision-language model sees a video while it runs: units, positions, the law, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.video_models import save_tiny_watcher
from transformers import Qwen2_5_VLForConditionalGeneration

from proactivellm import load, parse_policy
from proactivellm.cli import main
from proactivellm.core.layout import LAYOUTS, make_layout
from proactivellm.core.positions import Grid
from proactivellm.core.unit import Unit
from proactivellm.forward.packed import packed_hidden
from proactivellm.session.session import Session
from proactivellm.session.window import Window
from proactivellm.stream import open_media, stream_units
from proactivellm.stream.media import opening_question

from .clips import write_clip
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_watcher(tmp_path_factory.mktemp("watcher"))


@pytest.fixture(scope="module")
def model(folder):
    return load(folder)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return noise()


class TestUnits:
    @pytest.mark.parametrize("sizes", [(2, 2, 2, 1), (1,) * 7, (7,), (3, 4)])
    def test_an_ear_gives_what_the_whole_becomes(self, model, frames, sizes):
        *units, end = seen(model, frames, sizes)
        assert [unit.grid for unit in units] == [GRID] * MOMENTS and end.is_end
        found = torch.cat([unit.features for unit in units])
        assert torch.allclose(found, model.front_end.embed(frames), atol=1e-5)

    def test_times(self, model, frames):
        units = seen(model, frames)
        assert [(u.start_s, u.end_s) for u in units[:-1]] == [(0, 1), (1, 2), (2, 3), (3, 3.5)]

    def test_a_camera_that_changes_its_size(self, model, frames):
        ear = model.front_end.open(2)
        units = ear.push(frames[:3], 1.5) + ear.push(frames[:2, ::2, ::2], 2.5)
        assert len(units) == 3

    def test_saved_and_loaded(self, model, frames, tmp_path):
        model.save_pretrained(tmp_path)
        again = load(tmp_path)
        assert again.front_end.settings == model.front_end.settings
        assert torch.equal(again.front_end.embed(frames), model.front_end.embed(frames))


def placed(layout, k, grid=GRID):
    """Positions under a layout while k[i] tokens are written after moment i, two of text before."""
    numbers, moments, texts = layout.numbers({}), [], []
    layout.positions(0, 2, numbers)
    for written in k:
        moments.append(layout.positions(0, 6, numbers, grid))
        layout.end_unit(numbers)
        texts.append(layout.positions(1, written, numbers)[0].tolist())
    return moments, texts


def as_published(num_before, moments, num_after, grid=GRID):
    """Positions [3, n] of text, a video and text by transformers 4.49, worked out by hand:
    `arange(T) * seconds * tokens_per_second` in whole numbers, and text from the maximum on."""
    video = [
        [num_before + int(moment * grid.step), num_before + row, num_before + column]
        for moment in range(moments)
        for row in range(grid.height)
        for column in range(grid.width)
    ]
    first = max(map(max, video)) + 1
    text = [[place] * 3 for place in (*range(num_before), *range(first, first + num_after))]
    return torch.tensor([*text[:num_before], *video, *text[num_before:]]).T


class TestPositions:
    @pytest.mark.parametrize(("moments", "first"), [(1, 5), (2, 5), (3, 7), (4, 9)])
    def test_text_after_a_video(self, moments, first):
        """Two of text, then a video of 2 x 3 whose moments are 2 apart: time begins to count with
        the third one, at 2 + 4."""
        layout, numbers = make_layout("grouped"), make_layout("grouped").numbers({})
        layout.positions(0, 2, numbers)
        for _ in range(moments):
            layout.positions(0, 6, numbers, GRID)
        assert layout.positions(0, 3, numbers)[0, 0] == first
        assert as_published(2, moments, 3)[0, -3] == first

    def test_steps_of_less_than_one_position(self):
        moments, _ = placed(make_layout("grouped"), [0] * 5, GRID._replace(step=4 / 3))
        assert [moment[0, 0] - 2 for moment in moments] == [0, 1, 2, 4, 5]

    def test_as_transformers_since_5_3(self, folder):
        whole = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
        types = torch.tensor([[0] * 2 + [2] * 18 + [0] * 3])
        expected, _ = whole.model.get_rope_index(
            torch.ones_like(types),
            types,
            video_grid_thw=torch.tensor([[3, 4, 6]]),
            second_per_grid_ts=torch.tensor([1.0]),
        )
        layout, grid = make_layout("grouped"), GRID._replace(timed=False)
        moments, _ = placed(layout, [0, 0, 0], grid)
        assert np.array_equal(np.concatenate(moments, 1), expected[:, 0, 2:20])
        numbers = layout.numbers({})
        layout.positions(0, 2, numbers)
        for _ in range(3):
            layout.positions(0, 6, numbers, grid)
        assert layout.positions(0, 3, numbers).tolist() == [expected[0, 0, 20:].tolist()]

    def test_group_decoupled_and_group_interval(self):
        first, (text, more) = placed(make_layout("grouped", 10000), [2, 3])
        second, _ = placed(make_layout("grouped", 10000), [50, 0])
        assert all(map(np.array_equal, first, second))  # whatever is written
        assert text + more == [*range(10000, 10005)]

    def test_overlapped(self):
        # E: 2, then max(2 + 3, 2), max(5 + 3, 5 + 5), max(10 + 3, 10 + 1) for moments of 3.
        moments, texts = placed(make_layout("overlapped"), [5, 1, 0])
        assert [moment[:, 0].tolist() for moment in moments] == [[2] * 3, [5] * 3, [10] * 3]
        assert texts == [[5, 6, 7, 8, 9], [10], []]
        assert moments[1][:, -1].tolist() == [5, 6, 7]

    def test_interleaved_moments_with_text_between_are_videos_of_their_own(self):
        moments, texts = placed(make_layout("interleaved"), [2, 0, 1])
        assert [moment[:, 0].tolist() for moment in moments] == [[2] * 3, [7] * 3, [9, 7, 7]]
        assert texts == [[5, 6], [], [10]]


@pytest.mark.parametrize("rule", ["time", "space"])
@torch.inference_mode()
def test_the_whole_video_gives_the_logits_of_transformers(folder, frames, rule):
    """By `time` with the positions of 4.49 given to it, by `space` with its own."""
    model = load(folder, layout="interleaved")
    model.front_end.settings = model.front_end.settings.model_copy(update={"text_after": rule})
    units, prompt = seen(model, frames)[:-1], model.prompt
    before, after = prompt.source_head, [*prompt.source_tail, *prompt.target_head, *WRITTEN[:-1]]
    found = packed(model, units, [MOMENTS] * len(WRITTEN))
    media = torch.cat([unit.features for unit in units])
    hidden = packed_hidden(model, [found], [media])[0]
    whole = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()
    config, size = whole.config, len(media)
    patches, grid = _patches(model, frames)
    positions = as_published(len(before), MOMENTS, len(after))[:, None]
    expected = whole(
        input_ids=torch.tensor([[*before, *[config.video_token_id] * size, *after]]),
        pixel_values_videos=patches,
        video_grid_thw=torch.tensor([grid]),
        second_per_grid_ts=torch.tensor([1.0]),
        mm_token_type_ids=torch.tensor([[0] * len(before) + [2] * size + [0] * len(after)]),
        position_ids=positions if rule == "time" else None,
    ).logits[0]
    assert torch.allclose(model.parts.project(hidden), expected, atol=1e-4 * expected.abs().max())


def _patches(model, frames):
    from proactivellm.modality.video.pixels import patches

    return patches(torch.from_numpy(frames), model.front_end.settings.pixels)


@pytest.mark.parametrize(
    ("layout", "phi"),
    [("grouped", 0), ("grouped", 10000), ("overlapped", 0), ("interleaved", 0), ("thoughts", 0)],
)
@torch.inference_mode()
def test_the_law(model, frames, layout, phi):
    """Moment by moment, with probes that are taken back, as in one masked forward."""
    before = model.layout
    model.layout = LAYOUTS[layout](phi)
    try:
        units = seen(model, frames)[:-1]
        expected = masked(model, units)
        found = torch.cat(list(stepped(model, units)))
    finally:
        model.layout = before
    assert expected.std() > 0.1
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.fixture(name="half_still")
def _half_still() -> np.ndarray:
    return half_still()


class TestDropping:
    @pytest.mark.parametrize("layout", ["grouped", "overlapped", "interleaved"])
    @torch.inference_mode()
    def test_the_law(self, model, half_still, layout):
        """Also where a moment keeps nothing: what comes after it is where it would be."""
        with watching(model, drop_tokens="feature:0.999"):
            units = seen(model, half_still, (8,))[:-1]
        assert [unit.grid.size for unit in units] == [6, 0, 6, 0]
        before, model.layout = model.layout, LAYOUTS[layout]()
        try:
            found, expected = torch.cat(list(stepped(model, units))), masked(model, units)
        finally:
            model.layout = before
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()

    def test_moments_without_tokens_are_read_without_a_forward(self, model, half_still):
        with watching(model, drop_tokens="feature:0.999"):
            units = seen(model, half_still, (8,))
        sessions = [Session(model, parse_policy("offline")) for _ in range(2)]
        sessions[0].push(units)
        for unit in units:
            sessions[1].push(unit)
        at_once, one_by_one = (session.state for session in sessions)
        assert at_once.target == one_by_one.target
        assert at_once.units_read == one_by_one.units_read == MOMENTS
        kinds = [session._engine.cache.entry_kinds(0) for session in sessions]
        assert torch.equal(*kinds)

    def test_chunks(self, model, half_still):
        with watching(model, drop_tokens="chunk-intra:-1"):
            *units, _ = seen(model, np.concatenate([half_still, half_still[:3]]), (1,) * 11)
            assert [unit.grid.moments for unit in units] == [4, 2]
            assert [unit.grid.kept for unit in units] == [tuple(range(6))] * 2
            assert model.front_end.unit_s == 4
        with pytest.raises(ValueError, match="a chunk of 0 moments"):
            model.front_end.watch(chunk=0)

    def test_the_log_tells_the_share(self, folder, tmp_path):
        clip = write_clip(tmp_path / "a.mkv", [0, 0.5, 1, 1.5], size=(60, 88))
        log = tmp_path / "log"
        command = ["stream", "--model", str(folder), "--input", str(clip), "--log", str(log)]
        with pytest.raises(SystemExit) as ended:
            main([*command, "--drop-tokens", "relative-feature:0.5"])
        assert not ended.value.code
        assert json.loads(log.read_text())["kept_share"] == 0.75


class TestKept:
    """What goes on elsewhere, or is fed again, is where it was."""

    @torch.inference_mode()
    def test_saved_in_the_middle(self, model, half_still, tmp_path):
        with watching(model, drop_tokens="feature:0.999"):
            units = seen(model, half_still, (8,))
        policy = parse_policy("wait-k:1")
        session = Session(model, policy)
        session.push(units[:2])  # the second one has no tokens
        session.save(tmp_path / "saved")
        both = [session, Session.load(tmp_path / "saved", model, policy)]
        for each in both:
            each.push(units[2:])
        assert both[0].state.target == both[1].state.target
        kinds = [each._engine.cache.entry_kinds(0) for each in both]
        assert torch.equal(*kinds)

    @torch.inference_mode()
    def test_a_window_feeds_moments_anew(self, model, half_still):
        """As a stream that saw no more than these; positions begin anew with them."""
        with watching(model, drop_tokens="feature:0.999"):
            units = seen(model, half_still, (8,))[:-1] * 3
        head = len(model.prompt.source_head)
        window = Window(source=head + len(model.prompt.source_tail) + 25)
        session = Session(model, parse_policy("offline"), window=window)
        for unit in units:
            session.push(unit)
        dropped = session.state.dropped_units
        assert 0 < dropped < len(units)
        fresh = Session(model, parse_policy("offline"))
        fresh.push(units[dropped:])
        kinds = [each._engine.cache.entry_kinds(0) for each in (session, fresh)]
        assert torch.equal(*kinds)


class TestStreamed:
    def test_a_clip_is_answered_while_it_runs(self, model, tmp_path):
        clip = write_clip(tmp_path / "a.mkv", [n / 4 for n in range(14)], size=(60, 88))
        media = open_media(model, [str(clip)])
        *events, end = stream_units(model, parse_policy("wait-k:2"), media)
        first = {event.units_read: event.media_s for event in reversed(events)}
        assert first == {2: 2.0, 3: 3.0, 4: 3.5} and end.kind == "END"

    def test_the_command(self, folder, tmp_path, capfd):
        clip = write_clip(tmp_path / "a.mp4", [n / 4 for n in range(9)], size=(60, 88))
        for name, code in ((clip, 0), (tmp_path / "none.mp4", 2)):
            with pytest.raises(SystemExit) as ended:
                main(["stream", "--model", str(folder), "--input", str(name), "--times"])
            assert int(ended.value.code or 0) == code
        told = capfd.readouterr()
        assert float(told.out.splitlines()[0].split("\t")[0]) > 0
        assert "none.mp4: there is no such file" in told.err


@pytest.fixture(scope="module")
def chatting(tmp_path_factory):
    return load(save_tiny_watcher(tmp_path_factory.mktemp("chatting"), chats=True))


class TestQuestion:
    """A turn as the checkpoints learnt it: the ids of the chat template, as their processor
    makes them."""

    @pytest.mark.parametrize("question", ["", "What's the dog, \n the 2 doing?", "<|im_end|> no"])
    def test_ids_of_the_template(self, chatting, frames, question):
        units = seen(chatting, frames)
        session = Session(chatting, parse_policy("offline"))
        if opening := opening_question(chatting, question):
            session.ask(opening)
        session.push(units)
        content = [{"type": "text", "text": question}] if question else []
        messages = [{"role": "user", "content": [*content, {"type": "video"}]}]
        tokenizer = chatting.tokenizer
        whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        pad = "<|video_pad|>"
        expected = tokenizer(whole.replace(pad, pad * 24))["input_ids"]
        opening, closing = (piece.tokens for piece in session.state.source)
        pads = [tokenizer.convert_tokens_to_ids(pad)] * session.state.counts["source"]
        pads = pads[len(opening) + len(closing) :]
        found = [*opening, *pads, *closing, *chatting.prompt.target_head]
        if "<|im_end|>" in question:  # markup in a question is text
            ends = [tokenizer.convert_tokens_to_ids("<|im_end|>")]
            assert found.count(*ends) == 2 and expected.count(*ends) == 3
            assert tokenizer.decode(found) == tokenizer.decode(expected)
        else:
            assert found == expected

    def test_asked_of_a_clip(self, chatting, tmp_path):
        """No unit of its own, and what is written depends on it."""
        clip = write_clip(tmp_path / "a.mkv", [n / 4 for n in range(14)], size=(60, 88))
        policy, texts = parse_policy("wait-k:2"), set()
        for question in ("", "Who runs?"):
            media = open_media(chatting, [str(clip)], question)
            *_, end = events = list(stream_units(chatting, policy, media))
            assert max(event.units_read for event in events) == MOMENTS
            texts.add("".join(event.text for event in events))
        assert len(texts) == 2


def test_a_grid_has_a_feature_for_each_place():
    with pytest.raises(ValueError, match="takes 6 features"):
        Unit(features=torch.zeros(5, 4), grid=Grid(2, 3))
