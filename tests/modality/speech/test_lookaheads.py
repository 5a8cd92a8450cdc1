"""One front end with several look-aheads: drawn in training, chosen when it listens."""

import pytest
import torch
from tests.modality.speech.fronts import gap, new_encoder, new_listener, noise, pieces, random_mel

from proactivellm.modality.speech.encoder import AttentionSettings
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.settings import SpeechSettings
from proactivellm.modality.speech.speech_stream import SpeechStream

UNIT_MS = 160  # 8 steps of 20 ms
SAMPLES = noise(2 * RATE + 137)


def new_front_end() -> SpeechFrontEnd:
    return new_listener(160, positions=320, lookaheads=(0, 8, 24))


@pytest.fixture(scope="module")
def by_lookahead():
    """For each look-ahead: the embeddings of one forward, units, and with which push each came."""
    front_end, found = new_front_end(), {}
    mel_TF = log_mel(SAMPLES, front_end.extractor)
    for lookahead_ms in front_end.lookaheads_ms:
        front_end.look_ahead(lookahead_ms)
        with torch.inference_mode():
            whole_1EH = front_end(torch.from_numpy(mel_TF)[None], torch.tensor([len(mel_TF)]))
        stream, units, pushes = SpeechStream(front_end), [], []
        for number, block in enumerate(pieces(SAMPLES, RATE * UNIT_MS // 1000)):
            arrived = stream.push(block)
            units += arrived
            pushes += [number] * len(arrived)
        found[lookahead_ms] = whole_1EH[0], [*units, *stream.finish()], pushes
    return found


def test_with_each_a_stream_hears_what_one_forward_does(by_lookahead):
    assert list(by_lookahead) == [0, 160, 480]
    outputs = [whole_EH for whole_EH, _, _ in by_lookahead.values()]
    for whole_EH, units, _ in by_lookahead.values():
        assert gap(torch.cat([unit.features for unit in units]), whole_EH) < 1e-4
    assert gap(outputs[0], outputs[1]) > 1e-2 and gap(outputs[1], outputs[2]) > 1e-2


def test_units_are_the_same_and_come_later_by_the_look_ahead(by_lookahead):
    _, plain, first_pushes = by_lookahead[0]
    for lookahead_ms, (_, units, pushes) in by_lookahead.items():
        late = lookahead_ms // UNIT_MS
        assert [len(u.features) for u in units] == [len(u.features) for u in plain]
        assert pushes == [number + late for number in first_pushes[: len(pushes)]]
        assert len(first_pushes) - len(pushes) == late


@torch.no_grad()
def test_training_draws_one_for_each_batch_and_listening_none():
    mel_1TF, num_frames = torch.from_numpy(random_mel(80))[None], torch.tensor([80])
    options = (0, 4, 8)
    expected = [
        new_encoder("whisper", block=4, lookahead=ahead)(mel_1TF, num_frames) for ahead in options
    ]
    encoder = new_encoder("whisper", block=4)
    encoder.attention = AttentionSettings(block=4, lookahead=4, drawn=options)
    assert gap(encoder(mel_1TF, num_frames), expected[1]) < 1e-5
    encoder.train()
    torch.manual_seed(0)
    drawn = [encoder(mel_1TF, num_frames) for _ in range(12)]
    which = [[gap(each, one) < 1e-5 for one in expected].index(True) for each in drawn]
    assert set(which) == {0, 1, 2}
    torch.manual_seed(0)  # a run that goes on from a checkpoint draws what it would have drawn
    assert torch.equal(encoder(mel_1TF, num_frames), drawn[0])


def test_it_is_kept_with_the_model(tmp_path):
    front_end = new_front_end()
    before = front_end.identity
    front_end.look_ahead(480)
    assert front_end.identity != before  # logs of one are not continued with the other
    front_end.save(tmp_path, torch.float32)
    again = SpeechFrontEnd.load(tmp_path, 24)
    assert again.settings == SpeechSettings(hidden=16, lookahead=24, lookaheads=(0, 8, 24))
    assert again.encoder.attention == front_end.encoder.attention


def test_what_it_was_not_made_for_is_refused():
    with pytest.raises(ValueError, match="with a look-ahead of 0, 160, 480 ms, not 320"):
        new_front_end().look_ahead(320)
    with pytest.raises(ValueError, match="with a look-ahead of 60 ms, not 0"):
        new_listener(160, lookahead=3).look_ahead(0)
    with pytest.raises(ValueError, match="look-ahead of 3 steps is no multiple of units of 8"):
        new_listener(160, lookaheads=(0, 3))
    with pytest.raises(ValueError, match=r"lookahead = 0 is not among lookaheads = \[8\]"):
        SpeechSettings(lookaheads=(8,))
