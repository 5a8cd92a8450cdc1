"""THE LAW FOR AUDIO: samples pushed in chunks through encoder and session give the logits of one
masked forward over [embeddings of the whole recording | target].

Chunks of {80, 320, 640, 1000 ms, ragged}, {wait-k, fixed trace, offline} x {grouped, interleaved},
with blocks and without, with look-ahead, with Whisper's hop and a longer one, and Qwen2-Audio.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.laws import streams
from tests.laws.streams import END, PROMPT, TOLERANCE, Recorder, gap
from tests.modality.speech.fronts import new_listener, noise, pieces, save_qwen2_audio
from tests.tokenizers import build
from tests.two_groups import sample_of, views_of
from torch import Tensor

from proactivellm.core import schedule
from proactivellm.core.packing import pack
from proactivellm.core.schedule import Schedule
from proactivellm.forward.attention import ATTENTION
from proactivellm.modality.loading import load
from proactivellm.modality.speech.features import log_mel
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.resample import RATE
from proactivellm.modality.speech.speech_stream import SpeechStream
from proactivellm.policy.base import Policy
from proactivellm.policy.fixed import Fixed, Offline, WaitK
from proactivellm.session.session import Session
from proactivellm.train.block_attention import PACKED_ATTENTION, register
from proactivellm.train.views import collate, packed_output, view_rows

CHUNKS_MS = (80, 320, 640, 1000, None)  # None = ragged
SAMPLES = noise(round(3.14 * RATE))
NUM_TARGET = 8  # the end of the target comes on top
HEARD = 5  # an id in place of which an embedding of the recording stands
LISTENERS = {
    "blocks": {"hop": 320},
    "causal": {"hop": 320, "block": 1},
    "look-ahead": {"hop": 320, "lookahead": 3},
    "whisper": {"hop": 160, "unit": 16, "stack": 1, "lookahead": 1},
}

Folder = Callable[..., Path]


def new_front_end(name: str, model: Recorder) -> SpeechFrontEnd:
    width = model.model.config.get_text_config().hidden_size
    return new_listener(lm_width=width, positions=320, **LISTENERS[name])


def streams_under(num_source: int) -> list[tuple[Policy, Schedule]]:
    """Policies, each with the schedule that it makes of the target."""
    trace = schedule.multinomial(
        num_source, NUM_TARGET, np.random.default_rng(5), first_share=(0.1, 0.1)
    )
    return [
        (WaitK(k=3), schedule.wait_k(3, num_source, NUM_TARGET + 1)),
        (Fixed(trace=tuple(trace)), [*trace, num_source]),
        (Offline(), schedule.offline(num_source, NUM_TARGET + 1)),
    ]


def masked_logits(
    model: Recorder, front_end: SpeechFrontEnd, target: Sequence[int], g: Schedule
) -> Tensor:
    """Logits [N, V]: the recording encoded whole, then one forward under the block mask."""
    mel_TF = log_mel(SAMPLES, front_end.extractor)
    sizes, prompt = front_end.unit_sizes(len(mel_TF)), model.prompt
    units = [list(prompt.source_head), *([HEARD] * size for size in sizes)]
    units[-1] = [*units[-1], *prompt.source_tail]
    sample = sample_of(units, prompt.target_head, target)
    batch = collate([pack(sample, views_of([g]), model.layout)])
    start = len(prompt.source_head)  # the source comes first in a packed sequence
    register()
    model.model.set_attn_implementation(PACKED_ATTENTION)
    try:
        with torch.inference_mode():
            heard_1EH = front_end(torch.from_numpy(mel_TF)[None], torch.tensor([len(mel_TF)]))
            embeddings_1SH = model.model.get_input_embeddings()(batch["input_ids"])
            assert (batch["input_ids"][0, start : start + sum(sizes)] == HEARD).all()
            embeddings_1SH[:, start : start + sum(sizes)] = heard_1EH
            hidden_1SH = packed_output(
                model.model, batch, model.layout, model.windows, embeddings_1SH
            ).last_hidden_state
            return model.parts.project(view_rows(hidden_1SH, batch)[0])[0]
    finally:
        model.model.set_attn_implementation(ATTENTION)


def streamed(
    model: Recorder,
    front_end: SpeechFrontEnd,
    policy: Policy,
    target: Sequence[int],
    chunk_ms: int | None,
) -> Tensor:
    """Logits [N, V] of a session that hears the recording in chunks; its target is forced."""
    model.forced = {0: target}
    session, stream = Session(model, policy), SpeechStream(front_end)
    for chunk in pieces(SAMPLES, chunk_ms and chunk_ms * RATE // 1000):
        session.push(stream.push(chunk))
    session.push(stream.finish())
    assert session.state.finished and not session.state.truncated
    assert session.state.target == [*model.prompt.target_head, *target]
    return model.recorded(len(target))


def new_target() -> list[int]:
    return [*streams.random_ids(NUM_TARGET, len(build("byte_level")), seed=3), END]


@pytest.mark.parametrize("layout", ["grouped", "interleaved"])
@pytest.mark.parametrize("listener", LISTENERS)
def test_chunk_by_chunk_equals_one_masked_forward(
    folder_of: Folder, listener: str, layout: str
) -> None:
    model = streams.load(folder_of("qwen3"), PROMPT, layout=layout, phi=5, boundary="token")
    front_end, target = new_front_end(listener, model), new_target()
    num_frames = -(-len(SAMPLES) // front_end.extractor.hop_length)
    for policy, g in streams_under(len(front_end.unit_sizes(num_frames))):
        expected = masked_logits(model, front_end, target, g)
        for chunk_ms in CHUNKS_MS if isinstance(policy, WaitK) else CHUNKS_MS[-2:]:
            logits = streamed(model, front_end, policy, target, chunk_ms)
            assert gap(logits, expected) <= TOLERANCE, (policy.spec, chunk_ms)


@pytest.mark.parametrize("family", ["gemma3_text", "mistral"])
def test_with_sliding_windows_too(folder_of: Folder, family: str) -> None:
    model = streams.load(folder_of(family), PROMPT, phi=2, boundary="token")
    front_end, target = new_front_end("blocks", model), new_target()
    (policy, g), *_ = streams_under(10)
    expected = masked_logits(model, front_end, target, g)
    for chunk_ms in (80, 1000):
        assert gap(streamed(model, front_end, policy, target, chunk_ms), expected) <= TOLERANCE


def test_for_qwen2_audio_too(tmp_path: Path) -> None:
    listening = load(save_qwen2_audio(tmp_path))
    front_end = listening.front_end
    settings = listening.settings.model_copy(update={"boundary": "token"})
    model, target = Recorder(listening.model, listening.tokenizer, settings), new_target()
    num_units = len(front_end.unit_sizes(-(-len(SAMPLES) // 160)))
    g = schedule.wait_k(3, num_units, NUM_TARGET + 1)
    expected = masked_logits(model, front_end, target, g)
    for chunk_ms in CHUNKS_MS:
        assert gap(streamed(model, front_end, WaitK(k=3), target, chunk_ms), expected) <= TOLERANCE


class TestTheLawCanFail:
    """What another encoder mask, or a unit more, costs: far more than the tolerance."""

    FAILS = 1e-2

    def test_with_another_block(self, folder_of: Folder) -> None:
        model = streams.load(folder_of("qwen3"), PROMPT, boundary="token")
        target, g = new_target(), schedule.wait_k(3, 10, NUM_TARGET + 1)
        expected = masked_logits(model, new_front_end("blocks", model), target, g)
        logits = streamed(model, new_front_end("causal", model), WaitK(k=3), target, 320)
        assert gap(logits, expected) > self.FAILS

    def test_with_one_unit_more(self, folder_of: Folder) -> None:
        model = streams.load(folder_of("qwen3"), PROMPT, boundary="token")
        front_end, target = new_front_end("blocks", model), new_target()
        g = schedule.wait_k(4, 10, NUM_TARGET + 1)
        logits = streamed(model, front_end, WaitK(k=3), target, 320)
        assert gap(logits, masked_logits(model, front_end, target, g)) > self.FAILS
