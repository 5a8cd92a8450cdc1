"""The bundled speech model with pauses, at low levels, off zero, and without any pause.

Recordings of speakers it never heard; the default policy of the command line.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

import proactivellm
from proactivellm.cli.policies import choose_policy
from proactivellm.modality.loading import load
from proactivellm.modality.speech.files import read_audio
from proactivellm.modality.speech.resample import RATE
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, MediaUnits, run_streams, stream_units

SAMPLE = Path(proactivellm.__file__).parent / "assets/speech-sample"
PAUSES = Path(__file__).parents[1] / "data/listening/pauses.flac"


@pytest.fixture(scope="module")
def model():
    return load("speech-en")


def written(model, samples: np.ndarray) -> str:
    blocks = (samples[at : at + 5120] for at in range(0, len(samples), 5120))
    policy = choose_policy(model, None, listens=True)
    events = stream_units(model, policy, MediaUnits(model, blocks, RATE), Sampling())
    return "".join(event.text for event in events if event.kind == "WRITE").strip()


def test_in_pauses_nothing_is_written_that_nobody_said(model):
    assert written(model, read_audio(str(PAUSES))) == "nine zero nine nine six"
    (recorded,) = run_streams(
        model,
        choose_policy(model, None, listens=True),
        [Job(index=0, source="", media=(str(PAUSES),), task="asr")],
        sampling=Sampling(),
    )
    assert recorded.prediction == "nine zero nine nine six"


def test_quiet_and_off_zero_speech_is_heard_like_the_rest(model):
    usual = read_audio(str(PAUSES))
    expected = written(model, usual)
    assert written(model, usual * np.float32(10**-1.5)) == expected
    assert written(model, usual + np.float32(0.01)) == expected


def test_speech_without_a_pause_is_heard_to_its_end(model):
    """Twenty-two words in one breath: most were lost after some six seconds."""
    digits = [read_audio(str(SAMPLE / f"digits-{name}.flac")) for name in ("1", "3")]
    samples = np.concatenate(list(itertools.islice(itertools.cycle(digits), 5)))
    assert len(written(model, samples).split()) >= 18
