"""SimulEval runs the agents in its own environment; its scores, OmniSTEval's and ours agree."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tests.modality.speech.signals import voice
from tests.speech_models import save_tiny_listener
from tools.simuleval_agreement import differing_words, largest_difference, print_table

from proactivellm.modality.speech.gate import GateSettings
from proactivellm.output.log import Instance, read_log

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-simuleval" / "bin" / "python"
POLICIES = ("local-agreement:2",)  # drafts are the hardest; `make simuleval` compares others, too


def test_both_tools_agree_with_us(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON} does not exist: run `make simuleval`, or the tests by `make test`")
    sides = {}
    for side, extra in (("de", "Ein  Hund\tschläft. \n\n"), ("en", "A dog sleeps.\nNothing.\n")):
        text = (ROOT / f"tests/data/multi30k-100.{side}").read_text(encoding="utf-8")
        sides[side] = tmp_path / f"sample.{side}"
        sides[side].write_text("".join(text.splitlines(keepends=True)[:2]) + extra, "utf-8")
    files = ["--source", sides["de"], "--target", sides["en"], "--out", tmp_path / "out"]
    done = subprocess.run(
        [PYTHON, ROOT / "tools/simuleval_agreement.py", *files]
        + [word for spec in POLICIES for word in ("--policy", spec)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for spec in POLICIES:
        assert f"\n{spec}: our log\n" in done.stdout
        assert f"\n{spec}: our agent inside SimulEval\n" in done.stdout
    assert done.stdout.count("  0 of ") == len(POLICIES)


def test_recordings_agree_within_1_ms(tmp_path: Path) -> None:
    """The second one at 8 kHz in stereo, with a gate that holds its pause back."""
    model = save_tiny_listener(tmp_path / "model", GateSettings(pause_s=0.4), "metaspace")
    soundfile.write(tmp_path / "a.wav", voice(0.7), 16_000)
    turns = [voice(0.5, 8_000), np.zeros(5_000, np.float32), voice(0.5, 8_000)]
    soundfile.write(tmp_path / "b.wav", np.stack([np.concatenate(turns)] * 2, axis=1), 8_000)
    records = [{"audio": f"{name}.wav", "text": "one  two three"} for name in "ab"]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    options = ["--source", manifest, "--out", tmp_path / "out", "--policy", "wait-k:2"]
    done = subprocess.run(
        [PYTHON, ROOT / "tools/simuleval_speech.py", *options, "--model", model],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all agree" in done.stdout and "recordings agree within 1 ms" in done.stdout
    (log,) = (tmp_path / "out" / "evaluate").glob("*/instances.log")
    early = [i for i in read_log(log) if i.delays[0] < i.source_length]
    assert len(early) == 2  # or there would be little to compare


def test_a_disagreement_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    ours = dict.fromkeys(("BLEU", "AL", "LAAL", "AP", "DAL", "YAAL", "chrF"), 1.0)
    theirs = {"BLEU": 1.0, "AL": 1.0004}
    assert print_table("same", {"ours": ours, "SimulEval": theirs})
    assert not print_table("other", {"ours": ours, "SimulEval": theirs | {"AL": 1.002}})
    assert capsys.readouterr().out.count("DISAGREE") == 1
    assert largest_difference([{"YAAL": None}, {"YAAL": None}], "YAAL") == 0.0
    assert largest_difference([{"YAAL": None}, {"YAAL": 1.0}], "YAAL") == float("inf")


def test_words_are_compared_with_their_delays() -> None:
    assert differing_words([entry("a b", [1, 2])], [entry("a b", [1, 2])]) == (0, 2)
    assert differing_words([entry("a b", [1, 2])], [entry("a c", [1, 2])]) == (1, 2)
    assert differing_words([entry("a b", [1, 2])], [entry("a b", [1, 3])]) == (1, 2)
    assert differing_words([entry("a b", [1, 2])], [entry("a", [1])]) == (1, 2)


def entry(prediction: str, delays: list[int]) -> Instance:
    return Instance(
        index=0,
        source="x y z",
        source_length=3,
        prediction=prediction,
        prediction_length=len(delays),
        delays=delays,
        elapsed=[0.0 for _ in delays],
        token_delays=delays,
        policy="wait-k:1",
        forwards=None,
        tokens=None,
    )
