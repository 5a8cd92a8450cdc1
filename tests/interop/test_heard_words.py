"""Block by block in, whole words out: the words and delays of the log of the same recording."""

from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.modality.speech.signals import silence, voice
from tests.speech_models import save_tiny_listener
from tools.simuleval_speech import agree, compare, join_pieces, lags

from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.interop.heard_words import HeardWords
from proactivellm.modality.loading import load
from proactivellm.modality.speech.files import Recording
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.output.log import Instance
from proactivellm.output.scripts import characters
from proactivellm.policy.spec import parse_policy
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, run_streams

RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> StreamingCausalLM:
    folder = tmp_path_factory.mktemp("heard") / "model"
    gate = GateSettings(pause_s=0.4)
    return load(save_tiny_listener(folder, gate, "metaspace", max_new_tokens=20))


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two turns; the recording ends within the second one."""
    path = tmp_path_factory.mktemp("audio") / "a.wav"
    turns = [silence(0.1), voice(0.6), silence(0.6), voice(0.5)]
    soundfile.write(path, np.concatenate(turns), RATE)
    return path


def block_by_block(
    model: StreamingCausalLM, spec: str, wav: Path, unit: str = "word"
) -> tuple[list[tuple[str, float]], int]:
    """Words and the ms that had arrived with each, as SimulEval counts; how many are rests."""
    with Recording(wav) as recording:
        heard = HeardWords(model, parse_policy(spec), recording.rate, unit)
        blocks = list(recording.blocks(model.front_end.unit_s))
    words, num_samples = [], 0
    for number, block in enumerate(blocks, start=1):
        num_samples += len(block)
        news = heard.hear(block, finished=number == len(blocks))
        words += [(word, 1000 * num_samples / RATE) for word in news]
    return words, heard.num_lengthened


@pytest.mark.parametrize("spec", ["wait-k:2", "local-agreement:2"])
def test_words_and_delays_are_those_of_the_log(
    model: StreamingCausalLM, wav: Path, spec: str
) -> None:
    job = Job(index=0, source="", media=(str(wav),), task="asr")
    (logged,) = run_streams(model, parse_policy(spec), [job], sampling=Sampling())
    words, num_lengthened = block_by_block(model, spec, wav)
    assert len(words) - num_lengthened == logged.prediction_length > 2
    theirs = entry(" ".join(word for word, _ in words), [delay for _, delay in words])
    joined = join_pieces(logged, theirs)
    assert joined is not None and joined.delays == pytest.approx(logged.delays, abs=1e-3)


def test_characters_and_delays_are_those_of_the_log(model: StreamingCausalLM, wav: Path) -> None:
    job = Job(index=0, source="", media=(str(wav),), task="asr")
    (logged,) = run_streams(model, parse_policy("wait-k:2"), [job], sampling=Sampling())
    letters, num_lengthened = block_by_block(model, "wait-k:2", wav, "char")
    assert not num_lengthened and len({delay for _, delay in letters}) > 2
    assert [letter for letter, _ in letters] == characters(logged.prediction)
    ends = accumulate(map(len, logged.prediction.split()))
    assert [letters[end - 1][1] for end in ends] == pytest.approx(logged.delays, abs=1e-3)


def test_silence_has_no_words(model: StreamingCausalLM, tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, silence(0.5), RATE)
    assert block_by_block(model, "wait-k:1", path) == ([], 0)


def test_pieces_of_a_word_are_joined() -> None:
    ours = entry("cats and dogs", [100.0, 300.0, 400.0])
    theirs = entry("cat s and dogs", [100.0, 200.0, 300.0, 400.0])
    joined = join_pieces(ours, theirs)
    assert joined is not None
    assert (joined.prediction, joined.delays) == ("cats and dogs", [200.0, 300.0, 400.0])
    assert join_pieces(ours, entry("cats and", [1.0, 2.0])) is None
    assert join_pieces(ours, entry("cats and dogs x", [1.0, 2.0, 3.0, 4.0])) is None
    assert join_pieces(ours, entry("ca tsand dogs", [1.0, 2.0, 3.0])) is None


def test_a_disagreement_of_more_than_1_ms_is_seen() -> None:
    ours = entry("cats and dogs", [100.0, 300.0, 400.0])
    row = {name: f"{value:.3f}" for name, value in lags(ours).items() if name != "YAAL"}
    assert compare(ours, ours, row).agrees
    assert compare(ours, ours, {**row, "AL": f"{float(row['AL']) + 0.9:.3f}"}).agrees
    assert not compare(ours, ours, {**row, "AL": f"{float(row['AL']) + 1.1:.3f}"}).agrees
    assert not compare(ours, ours, {**row, "AP": f"{float(row['AP']) + 0.1:.3f}"}).agrees
    assert not compare(ours, ours, {**row, "DAL": ""}).agrees  # undefined there only
    assert not compare(ours, entry("cats and dog", [100.0, 300.0, 400.0]), row).agrees
    cut = compare(ours, entry("cat s and dogs", [90.0, 100.0, 300.0, 400.0]), {})
    assert cut.agrees and cut.joined is not None and not agree(cut.ours, cut.theirs)
    late = compare(ours, entry("cat s and dogs", [90.0, 104.0, 300.0, 400.0]), {})
    assert late.same_text and not late.agrees


def entry(prediction: str, delays: list[float]) -> Instance:
    return Instance(
        **{"index": 0, "source": "a.wav", "source_type": "speech", "source_length": 400.0},
        **{"prediction": prediction, "prediction_length": len(delays), "delays": delays},
        **{"elapsed": [0.0] * len(delays), "token_delays": delays, "policy": "wait-k:1"},
        **{"forwards": None, "tokens": None},
    )
