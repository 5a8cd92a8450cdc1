"""`stream` of recordings: several at once, and files with times."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tests.cli.commands import Run
from tests.modality.speech.signals import silence, voice
from tests.speech_models import save_tiny_listener

from proactivellm.decisions.trace import read_traces
from proactivellm.modality.loading import load
from proactivellm.modality.speech.ctc import NUM_CLASSES
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.output.log import read_log

RATE = 16_000
POLICY = ("--policy", "wait-k:2")


@pytest.fixture(scope="session")
def turned(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model with a gate."""
    folder = tmp_path_factory.mktemp("turned") / "model"
    settings = GateSettings(pause_s=0.4)
    return str(save_tiny_listener(folder, settings, tokenizer="word_piece", max_new_tokens=6))


@pytest.fixture
def wavs(tmp_path: Path) -> list[Path]:
    """One of two turns, one of one turn at another rate, one in which nobody speaks."""
    parts = [silence(0.6), voice(0.9), silence(1.0), voice(0.7)]
    sounds = {"a": (np.concatenate(parts), RATE), "b": (voice(0.8, 22_050), 22_050)}
    sounds["c"] = silence(1.0), RATE
    paths = []
    for name, (samples, rate) in sounds.items():
        paths.append(tmp_path / f"{name}.wav")
        soundfile.write(paths[-1], samples, rate)
    return paths


def test_several_at_once_write_what_each_writes_alone(
    run: Run, turned: str, wavs: list[Path], tmp_path: Path
) -> None:
    command = ("stream", "--model", turned, *POLICY)
    alone = run(*command, *(part for wav in wavs for part in ("--input", wav)))
    texts = alone.out.split("\n")[:-1]
    assert alone.code == 0 and len(texts) == 3 and texts[0] and texts[1] and not texts[2]
    broken = tmp_path / "d.wav"
    broken.write_bytes(b"RIFF no recording")
    log, folder = tmp_path / "log", tmp_path / "times"
    folder.mkdir()
    for lanes in (2, 8):
        inputs = [part for wav in wavs for part in ("--input", wav)]
        files = ("--log", log, "--srt", folder, "--vtt", folder, "--json", folder)
        done = run(*command, *inputs, "--lanes", lanes, *files)
        wanted = {f"{wav}\t{text}" for wav, text in zip(wavs, texts, strict=True)}
        assert (done.code, {*done.out.split("\n")[:-1]}) == (0, wanted)
        assert done.err.startswith("3 recordings, ") and " steps, " in done.err
        logged = {instance.source: instance for instance in read_log(log)}
        assert {*logged} == {str(wav) for wav in wavs}
        assert {path.name for path in folder.iterdir()} == {
            f"{name}.{kind}" for name in "abc" for kind in ("srt", "vtt", "json")
        }
    refused = run(*command, "--input", wavs[0], "--input", broken, "--lanes", 2)
    assert refused.code == 2 and refused.err.count("error: ") == 1 and "d.wav" in refused.err


def test_files_tell_when_it_was_said(
    run: Run, turned: str, wavs: list[Path], tmp_path: Path
) -> None:
    command = ("stream", "--model", turned, *POLICY, "--input", wavs[0])
    told = {}
    for lanes in ((), ("--lanes", 1)):
        files = [tmp_path / f"{len(lanes)}.{kind}" for kind in ("srt", "vtt", "json")]
        done = run(*command, *lanes, "--srt", files[0], "--vtt", files[1], "--json", files[2])
        assert done.code == 0
        told[lanes] = [file.read_text(encoding="utf-8") for file in files]
    assert told[()] == told["--lanes", 1], "one by one or together, it is the same"
    as_srt, as_vtt, as_json = told[()]
    assert as_srt.startswith("1\n00:00:0") and as_vtt.startswith("WEBVTT\n\n00:00:0")
    record = json.loads(as_json)
    assert record["text"] == " ".join(record["text"].split()) and record["duration"] == 3.2
    words = [word["word"] for word in record["words"]]
    assert "".join(words) == record["text"].replace(" ", "") and len(words) > 4
    starts = [segment["start"] for segment in record["segments"]]
    # The turns begin with their voices: before them, as much as the gate lets through of silence.
    assert len(starts) == 2 and 0.3 < starts[0] < 0.6 and 2.1 < starts[1] < 2.5


def test_show_tells_why_each_turn_was_written(
    run: Run, turned: str, wavs: list[Path], tmp_path: Path
) -> None:
    width = 16  # of the encoder of the tiny model
    weight = torch.randn(NUM_CLASSES, width, generator=torch.Generator().manual_seed(1))
    listener = shutil.copytree(turned, tmp_path / "model")
    torch.save({"weight": weight, "bias": torch.zeros(NUM_CLASSES)}, listener / "ctc.pt")
    traces = tmp_path / "traces.json"
    command = ("show", "--model", listener, "--policy", "ctc:1", "--json", traces)
    done = run(*command, "--source-file", wavs[0])
    assert done.code == 0 and done.out.strip()
    first, second = read_traces(traces)
    assert (first.index, second.index, first.statistic) == (0, 1, "ctc")
    assert first.source[0].endswith("s") and first.probes and first.threshold == 1.0
    assert all(probe.statistic is not None for probe in first.probes)
    # What a model was trained with goes along when it is saved.
    load(listener).save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/ctc.pt").read_bytes() == (listener / "ctc.pt").read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--lanes", 2, "--real-time"), "--real-time is for one recording at a time"),
        (("--lanes", 2, "--times"), "--times is for one recording at a time"),
        (("--srt", "nowhere/a.srt"), "there is no folder nowhere"),
        (("--input", "b.wav", "--srt", "a.srt"), "is one file, and there are 2 recordings"),
    ],
)
def test_mistakes_are_told(
    run: Run, turned: str, wavs: list[Path], flags: tuple[object, ...], message: str
) -> None:
    given = [wavs[1] if flag == "b.wav" else flag for flag in flags]
    done = run("stream", "--model", turned, *POLICY, "--input", wavs[0], *given)
    assert done.code == 2 and message in " ".join(done.err.split())


def test_they_are_for_recordings(run: Run, turned: str, tmp_path: Path) -> None:
    (tmp_path / "a.de").write_text("Hallo.\n", encoding="utf-8")
    for flag in (("--lanes", 2), ("--vtt", "a.vtt")):
        done = run("stream", "--model", turned, "--input", tmp_path / "a.de", *flag)
        assert done.code == 2 and f"{flag[0]} is for recordings" in done.err
