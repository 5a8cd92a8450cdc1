"""One front end with several blocks: drawn in training, chosen when it listens."""

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
    return new_listener(160, positions=320, block=8, blocks=(8, 1, 24))


@pytest.fixture(scope="module")
def by_block():
    """For each block: the embeddings of one forward, units, and with which push each came."""
    front_end, found = new_front_end(), {}
    mel_TF = log_mel(SAMPLES, front_end.extractor)
    for block_ms in front_end.blocks_ms:
        front_end.hear_in_blocks(block_ms)
        with torch.inference_mode():
            whole_1EH = front_end(torch.from_numpy(mel_TF)[None], torch.tensor([len(mel_TF)]))
        stream, units, pushes = SpeechStream(front_end), [], []
        for number, block in enumerate(pieces(SAMPLES, RATE * UNIT_MS // 1000)):
            arrived = stream.push(block)
            units += arrived
            pushes += [number] * len(arrived)
        found[block_ms] = whole_1EH[0], [*units, *stream.finish()], pushes
    return found


def test_with_each_a_stream_hears_what_one_forward_does(by_block):
    assert list(by_block) == [20, 160, 480]
    outputs = [whole_EH for whole_EH, _, _ in by_block.values()]
    for whole_EH, units, _ in by_block.values():
        assert gap(torch.cat([unit.features for unit in units]), whole_EH) < 1e-4
    assert gap(outputs[0], outputs[1]) > 1e-2 and gap(outputs[1], outputs[2]) > 1e-2


def test_units_are_the_same_and_come_with_their_block(by_block):
    _, plain, _ = by_block[160]
    for _, units, _ in by_block.values():
        assert [len(u.features) for u in units] == [len(u.features) for u in plain]
    assert by_block[20][2] == by_block[160][2] == [*range(12)]
    assert by_block[480][2] == [2, 2, 2, 5, 5, 5, 8, 8, 8, 11, 11, 11]


@torch.no_grad()
def test_training_draws_one_for_each_batch_and_listening_none():
    mel_1TF, num_frames, options = (
        torch.from_numpy(random_mel(80))[None],
        torch.tensor([80]),
        (1, 4, 16),
    )
    expected = [new_encoder("whisper", block=block)(mel_1TF, num_frames) for block in options]
    encoder = new_encoder("whisper")
    encoder.attention = AttentionSettings(block=4, drawn=options)
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
    front_end.hear_in_blocks(480)
    assert front_end.identity != before  # logs of one are not continued with the other
    front_end.save(tmp_path, torch.float32)
    again = SpeechFrontEnd.load(tmp_path, 24)
    assert again.settings == SpeechSettings(hidden=16, block=24, blocks=(8, 1, 24))
    assert again.encoder.attention == front_end.encoder.attention


def test_what_it_was_not_made_for_is_refused():
    with pytest.raises(ValueError, match="hears in blocks of 20, 160, 480 ms, not 320"):
        new_front_end().hear_in_blocks(320)
    with pytest.raises(ValueError, match="hears in blocks of 160 ms, not 20"):
        new_listener(160).hear_in_blocks(20)
    with pytest.raises(ValueError, match=r"block = 0 is not among blocks = \[8\]"):
        SpeechSettings(blocks=(8,))
