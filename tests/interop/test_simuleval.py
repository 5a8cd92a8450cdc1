"""SimulEval runs the agents in its own environment; its scores, OmniSTEval's and ours agree."""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

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


# Imports take longer than the rest: one interpreter has both tools, and runs each in a fork.
RUN = """
import json, sys
from pathlib import Path
import simuleval_agreement, simuleval_speech
import proactivellm.interop.simuleval_agent
from simuleval_runs import run_command
for tool, words in json.loads(sys.argv[1]).items():
    try:
        log = Path(sys.argv[2]) / f"{tool}.txt"
        run_command(getattr(sys.modules[tool], "main"), [tool, *words], log)
    except RuntimeError as error:
        print(error, file=sys.stderr)
"""


class Ran(NamedTuple):
    """What the tools left."""

    folder: Path
    errors: str

    def said(self, tool: str) -> str:
        return (self.folder / f"{tool}.txt").read_text("utf-8")


def texts(folder: Path) -> list[object]:
    sides = {}
    for side, extra in (("de", "Ein  Hund\tschläft. \n\n"), ("en", "A dog sleeps.\nNothing.\n")):
        text = (ROOT / f"tests/data/multi30k-100.{side}").read_text(encoding="utf-8")
        sides[side] = folder / f"sample.{side}"
        sides[side].write_text("".join(text.splitlines(keepends=True)[:2]) + extra, "utf-8")
    files = ["--source", sides["de"], "--target", sides["en"], "--out", folder / "text"]
    return files + [word for spec in POLICIES for word in ("--policy", spec)]


def recordings(folder: Path) -> list[object]:
    """The second one at 8 kHz in stereo, with a gate that holds its pause back."""
    model = save_tiny_listener(folder / "model", GateSettings(pause_s=0.4), "metaspace")
    soundfile.write(folder / "a.wav", voice(0.7), 16_000)
    turns = [voice(0.5, 8_000), np.zeros(5_000, np.float32), voice(0.5, 8_000)]
    soundfile.write(folder / "b.wav", np.stack([np.concatenate(turns)] * 2, axis=1), 8_000)
    records = [{"audio": f"{name}.wav", "text": "one  two three"} for name in "ab"]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    options = ["--source", manifest, "--out", folder / "speech", "--policy", "wait-k:2"]
    return [*options, "--model", model]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON} does not exist: run `make simuleval`, or the tests by `make test`")
    folder = tmp_path_factory.mktemp("tools")
    asked = {"simuleval_agreement": texts(folder), "simuleval_speech": recordings(folder)}
    words = {tool: [str(word) for word in each] for tool, each in asked.items()}
    done = subprocess.run(
        [PYTHON, "-c", RUN, json.dumps(words), folder],
        capture_output=True,
        text=True,
        cwd=ROOT / "tools",  # which `-c` imports from
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return Ran(folder, done.stderr)


def test_both_tools_agree_with_us(ran: Ran) -> None:
    assert "simuleval_agreement" not in ran.errors, ran.errors
    said = ran.said("simuleval_agreement")
    for spec in POLICIES:
        assert f"\n{spec}: our log\n" in said
        assert f"\n{spec}: our agent inside SimulEval\n" in said
    assert said.count("  0 of ") == len(POLICIES)


def test_recordings_agree_within_1_ms(ran: Ran) -> None:
    assert "simuleval_speech" not in ran.errors, ran.errors
    said = ran.said("simuleval_speech")
    assert "all agree" in said and "recordings agree within 1 ms" in said
    (log,) = (ran.folder / "speech" / "evaluate").glob("*/instances.log")
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
