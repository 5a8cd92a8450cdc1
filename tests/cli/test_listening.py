"""`stream` of recordings: files, raw samples, a microphone; what it writes, logs and refuses."""

import io
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.cli.commands import Run, write_lines
from tests.modality.speech.signals import silence, voice
from tests.speech_models import UNIT_S, save_tiny_listener

from proactivellm.cli import listening
from proactivellm.modality.loading import load
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.output.log import Instance, read_log
from proactivellm.policy.spec import parse_policy
from proactivellm.stream import open_media, stream_units

RATE = 16_000
POLICY = ("--policy", "wait-k:2")


@pytest.fixture(scope="session")
def listener(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model that listens to everything."""
    folder = tmp_path_factory.mktemp("listening") / "model"
    return str(save_tiny_listener(folder, tokenizer="word_piece", max_new_tokens=6))


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model with a gate."""
    folder = tmp_path_factory.mktemp("gated") / "model"
    settings = GateSettings(pause_s=0.4)
    return str(save_tiny_listener(folder, settings, tokenizer="word_piece", max_new_tokens=6))


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(0.8), RATE)
    return path


def streamed(model: str, file: Path) -> tuple[str, Instance]:
    """What the library itself writes of a recording, and its log entry."""
    streaming = load(model)
    events = stream_units(streaming, parse_policy(POLICY[1]), open_media(streaming, [str(file)]))
    text = ""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return text, end.value
        text += event.text


def test_text_alone_goes_to_a_pipe(run: Run, listener: str, wav: Path, tmp_path: Path) -> None:
    other, log = tmp_path / "b.FLAC", tmp_path / "log"
    soundfile.write(other, voice(0.6, 22_050), 22_050)
    inputs = ("--input", wav, "--input", other, "--log", log)
    done = run("stream", "--model", listener, *POLICY, *inputs)
    texts, entries = zip(*(streamed(listener, file) for file in (wav, other)), strict=True)
    assert (done.code, done.out) == (0, "".join(f"{text}\n" for text in texts))
    assert texts[0] and texts[1] and texts[0] != texts[1]
    logged = read_log(log)
    assert [i.source for i in logged] == [str(wav), str(other)]
    assert [(i.index, i.task, i.source_type) for i in logged] == [
        (n, "asr", "speech") for n in (0, 1)
    ]
    assert [i.source_length for i in logged] == [800.0, 600.0]
    assert [i.delays for i in logged] == [entry.delays for entry in entries]
    assert logged[0].delays[0] == 1000 * 2 * UNIT_S
    (summary,) = done.err.splitlines()
    assert summary.startswith("2 recordings, 1.4 s, LAAL ") and " ms, RTF 0." in summary


def test_each_word_with_its_second(run: Run, listener: str, wav: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run("stream", "--model", listener, *POLICY, "--input", wav, "--times", "--log", log)
    (logged,) = read_log(log)
    pairs = zip(logged.delays, logged.prediction.split(), strict=True)
    lines = [f"{delay / 1000:.2f}\t{word}\n" for delay, word in pairs]
    assert done.code == 0 and lines and done.out == "".join([*lines, "\n"])


def test_silence_costs_nothing_behind_a_gate(run: Run, gated: str, tmp_path: Path) -> None:
    """Turns are separate: each of the two is as it would be alone."""
    path, log = tmp_path / "turns.wav", tmp_path / "log"
    sound = [silence(0.5), voice(0.7), silence(1.0), voice(0.7), silence(0.6)]
    soundfile.write(path, np.concatenate(sound), RATE)
    command = ("stream", "--model", gated, *POLICY, "--log", log)
    done = run(*command, "--input", path, "--times")
    (logged,) = read_log(log)
    # The model writes Chinese, too, after which a turn begins without a space.
    written = logged.prediction.replace(" ", "")
    middle = len(written) // 2
    assert done.code == 0 and written and written[:middle] == written[middle:]
    half = logged.prediction_length // 2
    assert logged.delays[half - 1] < 2200 < logged.delays[half]

    soundfile.write(path, silence(0.6), RATE)
    done = run(*command, "--input", path)
    assert (done.code, done.out) == (0, "\n")
    assert done.err.startswith("1 recording, 0.6 s, LAAL -, RTF 0.")
    assert read_log(log)[0].forwards == 0
    assert run(*command, "--input", path, "--no-gate").out != "\n"


def test_a_question_is_read_before_it(run: Run, listener: str, wav: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ("stream", "--model", listener, *POLICY, "--input", wav, "--log", log)
    plain = run(*command).out
    assert run(*command, "--question", "Was ist das?").out != plain
    (logged,) = read_log(log)
    assert (logged.source, logged.task) == (f"{wav} Was ist das?", "qa")


def test_real_time(run: Run, listener: str, wav: Path) -> None:
    command = ("stream", "--model", listener, *POLICY, "--input", wav)
    plain = run(*command).out
    started = time.monotonic()
    assert run(*command, "--real-time").out == plain
    assert time.monotonic() - started >= 0.8


class _Piped:
    """Standard input with bytes in it."""

    def __init__(self, data: bytes, is_terminal: bool = False) -> None:
        self.buffer, self._is_terminal = io.BytesIO(data), is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize("sample_format", ["s16le", "f32le"])
def test_raw_samples(
    run: Run, listener: str, wav: Path, monkeypatch: pytest.MonkeyPatch, sample_format: str
) -> None:
    samples, _ = soundfile.read(wav, dtype="float32")
    stereo = np.stack([samples, samples], axis=1)
    kind = (32768 * stereo).astype("<i2") if sample_format == "s16le" else stereo.astype("<f4")
    monkeypatch.setattr(sys, "stdin", _Piped(kind.tobytes()))
    command = ("stream", "--model", listener, *POLICY)
    raw = run(*command, "--pcm", sample_format, "--pcm-channels", 2)
    assert raw.code == 0 and raw.out == run(*command, "--input", wav).out


def test_a_microphone_ends_with_ctrl_c(
    run: Run, listener: str, wav: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was heard until then is written, logged and summed up."""
    samples, _ = soundfile.read(wav, dtype="float32")

    def blocks(rate: int, channels: int) -> Iterator[np.ndarray]:
        assert (rate, channels) == (RATE, 1)
        yield from np.split(samples, 8)
        signal.raise_signal(signal.SIGINT)
        yield samples

    monkeypatch.setattr(listening, "microphone_blocks", blocks)
    log = tmp_path / "log"
    command = ("stream", "--model", listener, *POLICY)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background: ignored
    try:
        done = run(*command, "--input", "mic", "--log", log)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 0 and done.out == run(*command, "--input", wav).out
    assert done.err.startswith("listening; Ctrl-C ends\n1 recording, 0.8 s, LAAL ")
    (logged,) = read_log(log)
    assert (logged.source, logged.source_length) == ("mic", 800.0)


def test_mistakes(
    run: Run,
    listener: str,
    model: str,
    wav: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All but the last are told before a model is loaded."""
    text, missing = write_lines(tmp_path / "a.txt", "Der Hund"), tmp_path / "no.wav"
    broken, old = write_lines(tmp_path / "b.ogg", "no audio"), write_lines(tmp_path / "c.m4a", "x")

    def error(*arguments: object, refuse: bool = True) -> str:
        command = ("stream", "--model", tmp_path / "nothing" if refuse else model)
        return run(*command, *arguments).error

    assert "is text and --input" in error("--input", wav, "--input", text)
    assert "raw samples need --pcm" in error("--input", wav, "--input", "-")
    assert f"{missing}: there is no such file" in error("--input", wav, "--input", missing)
    assert "cannot be read as audio" in error("--input", broken)
    assert "cannot be read as audio" in error("--input", old) and "ffmpeg" in error("--input", old)
    assert "--rate 90 is for text" in error("--input", wav, "--rate", 90)
    assert "--real-time" in error("--input", wav, "--rate", 90)
    for flag in ("--times", "--real-time", "--no-gate"):
        assert f"{flag} is for recordings" in error("--input", text, flag)
    assert "--block is for recordings" in error("--input", text, "--block", 320)
    assert "--pcm mp3: give one of s16le, f32le" in error("--pcm", "mp3")
    assert "give --input - with it" in error("--input", wav, "--pcm", "s16le")
    assert "give --pcm as well" in error("--input", wav, "--pcm-rate", 8000)
    assert "--input mic is live: give it alone" in error("--input", "mic", "--input", wav)
    monkeypatch.setattr(sys, "stdin", _Piped(b"", is_terminal=True))
    assert "pipe raw samples in" in error("--pcm", "s16le")
    assert "give one that does (bundled: speech-en)" in error("--input", wav, refuse=False)


def test_a_policy_for_recordings(run: Run, listener: str, wav: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run("stream", "--model", listener, "--input", wav, "--log", log).code == 0
    assert read_log(log)[0].policy == "wait-k:k=2,stride=2"
