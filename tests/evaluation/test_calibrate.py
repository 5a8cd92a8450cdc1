"""Calibration where words are no units: strides, word error rates, recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tests.laws import streams
from tests.laws.streams import Recorder
from tests.models import save_tiny

from proactivellm.evaluation.calibrate import Grid, calibrate
from proactivellm.evaluation.calibrate import Recorder as RecordingPolicy
from proactivellm.modality.loading import load
from proactivellm.modality.speech.making import new_front_end
from proactivellm.modality.speech.settings import SpeechSettings
from proactivellm.policy.endogenous import Entropy
from proactivellm.policy.fixed import WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.stream import Job

SAMPLE = Path(__file__).parents[2] / "src/proactivellm/assets/tatoeba-sample"
GRID = Grid(quantiles=(0.2, 0.8), min_lags=(0,), max_lags=(4,))


def test_the_statistic_is_recorded_along_a_path_of_the_same_stride() -> None:
    recorder = RecordingPolicy(
        inner=Entropy(threshold=1.0, stride=1.5), path=WaitK(k=3, stride=1.5)
    )
    assert [recorder.required_units(words) for words in range(4)] == [3, 5, 6, 8]


def test_a_given_stride_stays_and_errors_lower_the_quality() -> None:
    model = load("tatoeba-de-en")
    lines = [
        (SAMPLE / f"test.{end}").read_text(encoding="utf-8").splitlines()[:8]
        for end in ("de", "en")
    ]
    jobs = [
        Job(index=index, source=source, reference=reference, task="asr")
        for index, (source, reference) in enumerate(zip(*lines, strict=True))
    ]
    grid = Grid(quantiles=(0.2, 0.8), min_lags=(0,), max_lags=(2,))
    table = calibrate(model, jobs, ["entropy:stride=1.5", "entropy"], grid=grid)
    assert [point.options["stride"] for point in table.points] == [1.5, 1.5, 1.0, 1.0]
    by_stride = {
        stride: [p.LAAL for p in table.points if p.options["stride"] == stride]
        for stride in (1.0, 1.5)
    }
    assert min(by_stride[1.5]) > min(by_stride[1.0])  # a larger stride reads more
    assert all(0 < point.quality < 100 for point in table.points)
    wanted = min(by_stride[1.5])
    policy = parse_policy(f"entropy:laal={wanted},stride=1.5", table)
    assert (policy.stride, policy.max_lag) == (1.5, 2)


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """A random model that hears units of 160 ms."""
    model = streams.load(save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"), "word_piece"))
    encoder = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2}
    encoder |= {"encoder_ffn_dim": 64, "max_source_positions": 300}
    settings = SpeechSettings(unit=8, stack=4, hidden=16)
    torch.manual_seed(0)
    width = model.model.config.hidden_size
    model.front_end = new_front_end(encoder, {"feature_size": 80}, settings, width).eval()
    return model


def recordings(folder: Path) -> list[Job]:
    """Noise that swells and falls, of 1.3 to 2.2 s."""
    drawn, jobs = np.random.default_rng(0), []
    for index in range(4):
        size = 20_800 + 4800 * index
        swell = np.abs(np.sin(np.arange(size) / 3000))
        file = folder / f"{index}.wav"
        soundfile.write(file, 0.3 * drawn.standard_normal(size) * swell, 16_000)
        jobs.append(Job(index=index, source="", reference="a b c", task="asr", media=(str(file),)))
    return jobs


def test_targets_of_recordings_are_in_ms(listener: Recorder, tmp_path: Path) -> None:
    table = calibrate(listener, recordings(tmp_path), ["entropy:stride=2"], grid=GRID)
    laals = sorted(point.LAAL for point in table.points)
    assert len(laals) == 2 and 100 < laals[0] < laals[1] < 2200
    assert all(point.quality <= 100 for point in table.points)
    # What a random model hears may be nothing, which makes a point degenerate: no matter here.
    useful = [point.model_copy(update={"degenerate": False}) for point in table.points]
    table = table.model_copy(update={"points": tuple(useful)})
    policy = parse_policy(f"entropy:laal={round(sum(laals) / 2)}", table)
    low, high = sorted(point.threshold for point in table.points)
    assert low < policy.options["threshold"] < high and policy.stride == 2
    with pytest.raises(
        ValueError, match=r"entropy:laal=3 is outside the calibrated range, laal \d+ to"
    ):
        parse_policy("entropy:laal=3", table)


def test_heads_are_chosen_from_recordings(listener: Recorder, tmp_path: Path) -> None:
    table = calibrate(listener, recordings(tmp_path), ["attention:stride=2"], grid=GRID)
    config = listener.model.config
    assert len(set(table.attention_heads)) == 4
    for layer, head in table.attention_heads:
        assert layer < config.num_hidden_layers and head < config.num_attention_heads
    assert table.points and all(point.options["heads"] != "all" for point in table.points)
