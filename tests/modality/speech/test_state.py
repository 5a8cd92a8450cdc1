"""An encoder fed frame by frame against one forward over all frames."""

import pytest
import torch
from tests.modality.speech.fronts import gap, new_encoder, pieces, random_mel

from proactivellm.modality.speech.encoder_stream import EncoderStream

TOLERANCE = 1e-4
SIZES = (5, 16, 64, None)  # frames per push; None = ragged
ATTENTIONS = [
    {"block": 1},
    {"block": 8},
    {"block": 8, "offset": 1},
    {"block": 8, "offset": 3, "lookahead": 2},
    {"block": 1, "lookahead": 3},
    {"block": 4, "offset": 7, "lookahead": 6},  # looks further ahead than a block
    {"block": 3, "offset": 2},  # blocks of Qwen2-Audio that cut outputs in two
]


def run(encoder, mel_TF, size):
    stream = EncoderStream(encoder)
    parts = [stream.push(piece) for piece in pieces(mel_TF, size)]
    return torch.cat([*parts, stream.finish(mel_TF[:0])])


def whole(encoder, mel_TF):
    with torch.inference_mode():
        return encoder(torch.from_numpy(mel_TF)[None], torch.tensor([len(mel_TF)]))[0]


@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
@pytest.mark.parametrize("kind", ["whisper", "qwen2-audio"])
def test_however_frames_arrive_the_outputs_are_those_of_one_forward(kind, attention):
    encoder = new_encoder(kind, **attention)
    for num_frames in (201, 202):
        mel_TF = random_mel(num_frames)
        expected = whole(encoder, mel_TF)
        for size in SIZES:
            assert gap(run(encoder, mel_TF, size), expected) < TOLERANCE, (num_frames, size)


@pytest.mark.parametrize("num_frames", range(1, 20))
def test_short_recordings(num_frames):
    encoder = new_encoder(block=4, offset=1, lookahead=1)
    mel_TF = random_mel(num_frames)
    assert gap(run(encoder, mel_TF, 3), whole(encoder, mel_TF)) < TOLERANCE


def test_an_empty_recording_has_no_outputs():
    encoder = new_encoder(block=4, offset=1)
    assert run(encoder, random_mel(0), 1).shape == (0, encoder.width)


@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
def test_outputs_come_as_soon_as_their_block_is_complete(attention):
    """Step s needs frames up to 2 s + 2; a block needs its steps and those it looks ahead to."""
    encoder = new_encoder(**attention)
    block, offset = attention["block"], attention.get("offset", 0)
    stream, emitted = EncoderStream(encoder), 0
    for count, frame in enumerate(random_mel(80), start=1):
        emitted += len(stream.push(frame[None]))
        known = max(0, (count - 1) // 2 - attention.get("lookahead", 0))
        assert emitted == max(0, (known + offset) // block * block - offset)


class TestALongRecording:
    """More steps than positions: the stream starts anew, again and again."""

    POSITIONS = 40

    def started_anew(self, encoder, mel_TF, origin, first):
        """Outputs from step `first` on, of all steps from `origin` on taken for a recording."""
        with torch.inference_mode():
            steps_1SD = encoder._convolve(
                torch.from_numpy(mel_TF)[None], torch.tensor([len(mel_TF)])
            )[:, origin : origin + self.POSITIONS]
            stop, block = origin + steps_1SD.shape[1], encoder.attention.block
            rows = encoder.rows(origin, stop, stop, block)
            hidden_1SD = steps_1SD[:, rows.step_S - origin]
            hidden_1SD = hidden_1SD + encoder.tower.embed_positions(rows.step_S - origin)
            for layer in encoder.tower.layers:
                hidden_1SD = layer(hidden_1SD, rows.visible()[None, None])
            return encoder.close(hidden_1SD[:, first - origin : rows.num_steps])[0]

    @pytest.mark.parametrize("size", [16, None, 500])
    @pytest.mark.parametrize("kind", ["whisper", "qwen2-audio"])
    def test_it_goes_on_from_the_newest_half(self, kind, size):
        encoder = new_encoder(kind, self.POSITIONS, block=8, offset=2)
        pool = encoder.pool
        mel_TF = random_mel(300)  # 150 steps
        outputs = run(encoder, mel_TF, size)
        assert len(outputs) == 150 // pool
        # Blocks end at 6, 14, 22, 30, 38; with the next one there would be 46 steps. Of the 38,
        # 16 are kept (two blocks: half of the positions): it goes on with origin 22, and so on.
        assert gap(outputs[: 38 // pool], whole(encoder, mel_TF[:80])[: 38 // pool]) < TOLERANCE
        for origin, first, stop in ((22, 38, 62), (46, 62, 86), (70, 86, 110)):
            expected = self.started_anew(encoder, mel_TF, origin, first)
            actual = outputs[first // pool : stop // pool]
            assert gap(actual, expected[: len(actual)]) < TOLERANCE, origin

    def test_with_look_ahead_too(self):
        encoder = new_encoder("whisper", self.POSITIONS, block=4, lookahead=3)
        mel_TF = random_mel(400)
        outputs = run(encoder, mel_TF, 16)
        assert len(outputs) == 200
        for size in (1, 500):
            assert gap(run(encoder, mel_TF, size), outputs) < TOLERANCE
        # 36 steps and 3 ahead fit, 40 and 3 do not: it goes on with the newest 20 of 36.
        expected = self.started_anew(encoder, mel_TF, 16, 36)[:12]
        assert gap(outputs[36:48], expected) < TOLERANCE

    def test_a_block_may_be_as_long_as_there_are_positions(self):
        encoder = new_encoder("whisper", self.POSITIONS, block=self.POSITIONS)
        mel_TF = random_mel(400)
        outputs = run(encoder, mel_TF, 50)
        assert gap(outputs[40:80], self.started_anew(encoder, mel_TF, 40, 40)) < TOLERANCE

    @pytest.mark.parametrize("attention", [{"block": 1}, {"block": 8, "lookahead": 2}], ids=str)
    def test_what_is_kept_does_not_grow(self, attention):
        encoder = new_encoder("whisper", self.POSITIONS, **attention)
        stream = EncoderStream(encoder)
        kept = []
        for seed in range(60):
            stream.push(random_mel(16, seed))
            kept.append(_size(stream.state_dict()))
        assert max(kept[15:]) <= max(kept[:15])

    def test_a_block_longer_than_the_positions_is_refused(self):
        encoder = new_encoder("whisper", self.POSITIONS, block=38, lookahead=3)
        with pytest.raises(ValueError, match="a block of 41 encoder steps .* 40 positions"):
            EncoderStream(encoder)


def _size(state):
    if isinstance(state, dict):
        return _size(list(state.values()))
    if isinstance(state, list | tuple):
        return sum(map(_size, state))
    return state.untyped_storage().nbytes() if isinstance(state, torch.Tensor) else 0


class TestTheStateIsAValue:
    ENCODER = {"kind": "qwen2-audio", "positions": 40, "block": 3, "offset": 2, "lookahead": 1}

    @pytest.mark.parametrize("cut", [0, 1, 50, 97, 131])
    def test_a_clone_goes_on_by_itself(self, cut):
        encoder, mel_TF = new_encoder(**self.ENCODER), random_mel(180)
        stream = EncoderStream(encoder)
        before = stream.push(mel_TF[:cut])
        twin = stream.clone()
        other = torch.cat([stream.push(random_mel(70, 3)), stream.finish(mel_TF[:0])])
        parts = [before, twin.push(mel_TF[cut:]), twin.finish(mel_TF[:0])]
        assert gap(torch.cat(parts), run(encoder, mel_TF, 16)) < TOLERANCE
        assert len(other)

    def test_it_is_saved_and_loaded(self, tmp_path):
        encoder, mel_TF = new_encoder(**self.ENCODER), random_mel(180)
        stream = EncoderStream(encoder)
        before = stream.push(mel_TF[:93])
        torch.save(stream.state_dict(), tmp_path / "state.pt")
        stream.push(random_mel(30, 1))
        again = EncoderStream(encoder)
        again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        parts = [before, again.push(mel_TF[93:]), again.finish(mel_TF[:0])]
        assert gap(torch.cat(parts), run(encoder, mel_TF, 16)) < TOLERANCE

    def test_two_streams_loaded_from_one_state_do_not_share_it(self):
        encoder, mel_TF = new_encoder(**self.ENCODER), random_mel(120)
        stream = EncoderStream(encoder)
        stream.push(mel_TF[:60])
        state = stream.state_dict()
        results = []
        for _ in range(2):
            again = EncoderStream(encoder)
            again.load_state_dict(state)
            results.append(again.push(mel_TF[60:]))
            again.push(random_mel(30, 1))
        assert torch.equal(*results)


def test_no_model_code_is_replaced():
    """The layers are those of transformers; a stream leaves them with another attention only."""
    encoder = new_encoder(block=4)
    before = {name: type(module) for name, module in encoder.tower.named_modules()}
    EncoderStream(encoder)
    assert before == {name: type(module) for name, module in encoder.tower.named_modules()}
    assert all("forward" not in vars(module) for module in encoder.tower.modules())
