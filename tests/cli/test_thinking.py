"""`stream` with a model that thinks: answers on standard output, thoughts beside them if wanted."""

from functools import partial
from pathlib import Path

import pytest
from tests.cli.commands import MAX_NEW_TOKENS, Run
from tests.thinking import thinking_model

from proactivellm.output.log import read_log
from proactivellm.session.limits import Limits

TEXT = "The dog sleeps. The cat watches it.\nA man stands on a ladder.\n"


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thinker")
    model = thinking_model()
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = MAX_NEW_TOKENS
    model.save_pretrained(folder)
    return folder


def test_thoughts_are_shown_and_logged_beside_the_answers(
    run: Run, thinker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = partial(Limits, thought_tokens=4)  # a random model ends no thought by itself
    monkeypatch.setattr("proactivellm.cli.one_by_one.Limits", short)
    text, log = tmp_path / "text", tmp_path / "log"
    text.write_text(TEXT)
    flags = "--model", thinker, "--input", text, "--depth", 1, "--question", "Who?"
    shown = run("stream", *flags, "--thoughts", "--log", log)
    assert shown.code == 0
    first, second = read_log(log)
    lines = [line for line in shown.err.splitlines() if line.startswith("[thought")]
    assert [line[:18] for line in lines] == [
        *("[thought 1: 1 read", "[thought 2: 2 read", "[thought 1: 1 read"),
    ]
    texts = [thought.text for each in (first, second) for thought in each.thoughts or []]
    assert [" ".join(text.split()) or "(skip)" for text in texts] == [
        line.split("] ", 1)[1] for line in lines
    ]
    assert shown.out.splitlines() == [first.prediction, second.prediction]
    assert "first thought after" in shown.err.splitlines()[-1]
    assert first.policy == "wait-k:1", "where nobody names one"
    quiet = run("stream", *flags)
    assert quiet.out == shown.out and "[thought" not in quiet.err


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--policy", "entropy:1.0"], "policy 'entropy:threshold=1,min_lag=1' looks at what"),
        (["--depth", "4"], "depth=4: the model thinks at depths 1 to 3"),
        (["--layout", "grouped"], "the model thinks, and the layout grouped has no thoughts"),
    ],
)
def test_mistakes_are_told_in_a_line(
    run: Run, thinker: Path, tmp_path: Path, flags: list[str], error: str
) -> None:
    (tmp_path / "text").write_text(TEXT)
    assert error in run("stream", "--model", thinker, "--input", tmp_path / "text", *flags).error


@pytest.mark.parametrize("flag", [["--depth", "1"], ["--question", "Who?"]])
def test_a_model_that_does_not_think_takes_none_of_the_flags(
    run: Run, model: str, tmp_path: Path, flag: list[str]
) -> None:
    (tmp_path / "text").write_text(TEXT)
    done = run("stream", "--model", model, "--input", tmp_path / "text", *flag)
    assert f"{flag[0]} is for models that think, and this one does not" in done.error
