"""THE LAW FOR SPOKEN WORDS: what a session decides on is the evidence of the whole recording.

However a recording arrives, units carry what a CTC head finds in the outputs of one masked forward,
and the policy `ctc` writes as a schedule that is made of these; the law of audio holds for that.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import PROMPT, TOLERANCE, gap
from tests.laws.test_speech import (
    LISTENERS,
    NUM_TARGET,
    SAMPLES,
    masked_logits,
    new_front_end,
    new_target,
    streamed,
)
from tests.modality.speech.fronts import pieces
from torch import Tensor

from proactivellm.core.schedule import Schedule
from proactivellm.modality.speech.ctc import NUM_CLASSES, CtcHead, CtcWords
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.speech_stream import SpeechStream
from proactivellm.policy.spec import parse_policy

Folder = Callable[..., Path]


def random_head(outputs_PD: Tensor) -> CtcHead:
    """It hears blanks, spaces and two letters in these outputs, each now and then."""
    weight = torch.zeros(NUM_CLASSES, outputs_PD.shape[1])
    bias = torch.full((NUM_CLASSES,), -30.0)
    for row, each in enumerate([0, ord(" ") + 1, ord("a") + 1, ord("b") + 1]):
        generator = torch.Generator().manual_seed(row)
        weight[each] = torch.randn(outputs_PD.shape[1], generator=generator)
        bias[each] = -float(weight[each] @ outputs_PD.mean(0))  # else one of them is always best
    return CtcHead(weight, bias)


@torch.inference_mode()
def outputs_of_whole(front_end: SpeechFrontEnd) -> Tensor:
    """Of one masked forward, [P, D]."""
    mel_TF = torch.from_numpy(log_mel(SAMPLES, front_end.extractor))
    outputs_PD: Tensor = front_end.encode(mel_TF[None], torch.tensor([len(mel_TF)]))[0]
    return outputs_PD


def spoken_of(outputs_PD: Tensor, front_end: SpeechFrontEnd) -> list[tuple[float, bool]]:
    """Words that are over after each unit, and whether it is silent."""
    assert front_end.ctc is not None
    size, words, told = front_end.settings.unit, CtcWords(front_end.ctc), []
    for start in range(-front_end.offset, len(outputs_PD), size):
        words.push(outputs_PD[max(0, start) : start + size])
        told.append((words.spoken, words.silent))
    return told


def schedule_of(spoken: list[tuple[float, bool]], threshold: float) -> Schedule:
    """Units read before each token, each of them a word, of which the first needs one unit."""
    g = []
    for token in range(NUM_TARGET + 1):
        heard = [i for i, (words, _) in enumerate(spoken, 1) if words - token >= threshold]
        earliest = max([token + 1, *g[-1:]])  # min_lag = 1
        g.append(next((i for i in heard if i >= earliest), len(spoken)))
    return g[:-1] + [len(spoken)]  # the end of the target waits for that of its source


@pytest.mark.parametrize("listener", LISTENERS)
def test_decisions_are_those_of_the_whole_recording(folder_of: Folder, listener: str) -> None:
    model = streams.load(folder_of("qwen3"), PROMPT, phi=5, boundary="token")
    front_end, target = new_front_end(listener, model), new_target()
    outputs_PD = outputs_of_whole(front_end)
    model.front_end, front_end.ctc = front_end, random_head(outputs_PD)
    spoken = spoken_of(outputs_PD, front_end)
    for chunk in (1280, 16000, None):
        stream = SpeechStream(front_end)
        units = [unit for piece in pieces(SAMPLES, chunk) for unit in stream.push(piece)]
        units += stream.finish()
        assert [unit.silent for unit in units] == [silent for _, silent in spoken]
        heard = torch.tensor([unit.spoken for unit in units])
        assert gap(heard, torch.tensor([words for words, _ in spoken])) <= TOLERANCE
    for threshold in (0.45, 1.0):
        g = schedule_of(spoken, threshold)
        assert len({*g}) > 2, "the evidence has to decide something"
        expected = masked_logits(model, front_end, target, g)
        policy = parse_policy(f"ctc:{threshold}")
        assert gap(streamed(model, front_end, policy, target, 320), expected) <= TOLERANCE
