"""`evaluate` and `calibrate` of recordings: manifests and lists, scores in ms."""

import json
from pathlib import Path

import pytest
import soundfile
from tests.cli.commands import Run, write_lines
from tests.modality.speech.signals import voice
from tests.speech_models import save_tiny_listener

from proactivellm.modality.speech.gate import GateSettings
from proactivellm.output.log import read_log

RATE = 16_000
POLICY = ("--policy", "wait-k:2")
TEXTS = ["D 们 b", "D b", "们"]


@pytest.fixture(scope="session")
def listener(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny model with a gate."""
    folder = tmp_path_factory.mktemp("evaluate-speech") / "model"
    settings = GateSettings(threshold=0.99, min_speech_s=5.0)  # lets nothing through
    return str(save_tiny_listener(folder, settings, tokenizer="word_piece", max_new_tokens=6))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three recordings with their texts."""
    for number in range(len(TEXTS)):
        soundfile.write(tmp_path / f"{number}.wav", voice(0.4 + 0.1 * number), RATE)
    records = [{"audio": f"{n}.wav", "text": text} for n, text in enumerate(TEXTS)]
    return write_lines(tmp_path / "manifest.jsonl", *(json.dumps(record) for record in records))


def test_scores_of_recordings(run: Run, listener: str, manifest: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    command = ("evaluate", "--model", listener, "--source", manifest, *POLICY, "--no-gate")
    done = run(*command, "--limit", 2, "--out", out)
    assert done.code == 0 and "WER" in done.out and "RTF" in done.out
    (row,) = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert row["latency_unit"] == "ms" and row["num_instances"] == 2
    assert row["WER"] > 0 and row["LAAL"] > 100 and "BLEU" not in row
    logged = read_log(out / "wait-k_2" / "instances.log")
    assert [i.reference for i in logged] == TEXTS[:2]
    assert [i.source_length for i in logged] == [400.0, 500.0]

    inputs = [word for n in range(2) for word in ("--input", manifest.parent / f"{n}.wav")]
    stream = ("stream", "--model", listener, *POLICY, *inputs, "--no-gate", "--log", log)
    assert run(*stream).code == 0
    assert [(i.source, i.prediction, i.delays) for i in read_log(log)] == [
        (i.source, i.prediction, i.delays) for i in logged
    ]
    assert f"{row['LAAL']:.0f}" in run("score", out / "wait-k_2" / "instances.log").out
    assert "is of recordings: give them with --source-file" in run("show", out).error


def test_another_recording_at_the_same_path(
    run: Run, listener: str, manifest: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("evaluate", "--model", listener, "--source", manifest, *POLICY, "--out", out)
    assert run(*command, "--limit", 1).code == 0
    assert run(*command, "--limit", 2).code == 0  # a longer set goes on
    soundfile.write(manifest.parent / "1.wav", voice(0.7), RATE)
    assert "recordings.1 was" in run(*command).error
    assert "gate was" in run(*command, "--no-gate").error


def test_lists_of_recordings(run: Run, listener: str, manifest: Path, tmp_path: Path) -> None:
    paths = [str(manifest.parent / f"{n}.wav") for n in range(len(TEXTS))]
    target = write_lines(tmp_path / "target", *TEXTS)
    sources = {"list": write_lines(tmp_path / "list", *paths), "one": paths[0]}
    for name, source in sources.items():
        out = tmp_path / f"{name}-out"
        references = ("--target", target) if name == "list" else ()
        command = ("evaluate", "--model", listener, "--source", source, *references, *POLICY)
        done = run(*command, "--out", out, "--task", "translation")
        assert done.code == 0
        logged = read_log(out / "wait-k_2" / "instances.log")
        assert [i.source for i in logged] == (paths if name == "list" else paths[:1])
        assert {i.task for i in logged} == {"translation"}
        assert {i.prediction for i in logged} == {""}  # the gate was closed all the time


def test_calibrate(run: Run, listener: str, manifest: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    record = {"audio": "long.wav", "text": "D 们 b D 们 b"}
    soundfile.write(manifest.parent / "long.wav", voice(1.0), RATE)
    source = write_lines(manifest.parent / "dev.jsonl", json.dumps(record))
    command = ("calibrate", "--model", listener, "--source", source, "--no-gate")
    done = run(*command, "--policy", "confidence", "--out", table)
    assert done.code == 0 and "points on 1 instances" in done.out and table.exists()


def test_mistakes(run: Run, model: str, listener: str, manifest: Path, tmp_path: Path) -> None:
    text = write_lines(tmp_path / "text", "Der Hund")
    out = ("--out", tmp_path / "out", *POLICY)
    assert (
        "--no-gate is for recordings"
        in run("evaluate", "--model", model, "--source", text, "--no-gate", *out).error
    )
    error = run("evaluate", "--model", model, "--source", text, "--block", 320, *out).error
    assert "--block is for recordings" in error
    recordings = ("--source", manifest)
    error = run("evaluate", "--model", listener, *recordings, "--block", 320, *out).error
    assert "the model hears in blocks of 160 ms, not 320" in error
    error = run("evaluate", "--model", listener, *recordings, "--rate", 90, *out).error
    assert "--rate 90 is for text" in error
    error = run("evaluate", "--model", model, *recordings, *out).error
    assert "does not take speech" in error and "bundled: speech-en" in error
    error = run("calibrate", "--model", model, *recordings, "--out", tmp_path / "table").error
    assert "does not take speech" in error
