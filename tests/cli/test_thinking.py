"""Models that think: `stream` shows thoughts if wanted; from data to scores with three commands."""

import json
from functools import partial
from pathlib import Path

import pytest
from tests.cli.commands import MAX_NEW_TOKENS, Run
from tests.thinking import thinking_model
from tests.train.runs import SCRATCH

from proactivellm.modality.loading import load
from proactivellm.output.log import read_log
from proactivellm.session.limits import Limits
from proactivellm.tasks.reasoning.problem import read_problems

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


def test_problems_are_drawn_learnt_and_scored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = partial(Limits, thought_tokens=4)  # so little training ends no thought
    monkeypatch.setattr("proactivellm.evaluation.evaluate.Limits", short)
    data = tmp_path / "problems.jsonl"
    assert run("data", "running", "--level", "easy", "--count", 12, "--out", data).code == 0
    text = SCRATCH.replace('tsv = "PAIRS"', f'reasoning = "{data}"').replace("concat = [1, 2]", "")
    text = text.replace("epochs = 2", "epochs = 1").replace("eval_steps = 4", "eval_steps = 3")
    recipe, model, out = tmp_path / "recipe.toml", tmp_path / "model", tmp_path / "out"
    recipe.write_text(text + "[thinking]\ndepth = [1, 2]\n")
    assert run("train", recipe, "--out", model).code == 0
    generation = json.loads((model / "generation_config.json").read_text())
    generation["max_new_tokens"] = MAX_NEW_TOKENS
    (model / "generation_config.json").write_text(json.dumps(generation))
    flags = "--model", model, "--source", data, "--task", "reasoning", "--policy", "wait-k:1"
    flags = *flags, "--policy", "offline", "--out", out, "--depth", 2, "--decode-rate", 20
    done = run("evaluate", *flags)
    assert done.code == 0
    assert all(heading in done.out for heading in ("waited", "late", "needed", "filler"))
    early, late = json.loads((out / "scores.json").read_text())
    problems = read_problems(data)
    log = read_log(out / "wait-k_1" / "instances.log")
    for problem, instance in zip(problems, log, strict=True):
        assert instance.needed == list(problem.needed)
        assert instance.source == f"{problem.question} {' '.join(problem.sentences)}"
        assert instance.source_length == len(problem.sentences)
        assert [each.stage for each in instance.thoughts or ()] == [0] * len(problem.needed) + [1]
    assert early["thought_tokens"] > 0 and early["late_tokens"] < late["late_tokens"]
    assert late["waited_tokens"] > early["waited_tokens"] > 0
    assert early["answer_delay_s"] < late["answer_delay_s"]
    began = [thought.began_ms - i.source_ms for i in log for thought in (i.thoughts or ())[-1:]]
    assert all(ms % 50 == pytest.approx(0, abs=0.1) for ms in began), "each step takes 50 ms"
    assert "--decode-rate 0: give steps" in run("evaluate", *flags[:-1], 0).error


def test_thinking_is_reinforced_by_one_command(run: Run, thinker: Path, tmp_path: Path) -> None:
    """Curve and model; the same command is done at once; flags of the other kind are refused."""
    problems = tmp_path / "problems.jsonl"
    run("data", "running", "--most", 20, "--count", 2, "--out", problems)
    out = tmp_path / "out"
    flags = ("--source", problems, "--task", "reasoning", "--model", thinker, "--out", out)
    flags += ("--steps", 1, "--group", 2, "--thought-tokens", 2, "--credit-weight", 0.5)
    done = run("reinforce", *flags)
    assert done.code == 0 and "reward 0.0" in done.out and done.out.endswith(f"saved in {out}\n")
    (line,) = (out / "reinforcement.jsonl").read_text().splitlines()
    assert {"reward", "accuracy", "think_rate", "deep_tokens"} <= json.loads(line).keys()
    assert load(out).thinking is not None
    assert run("reinforce", *flags).code == 0 and line in (out / "reinforcement.jsonl").read_text()
    error = run("reinforce", *flags, "--latency", "DAL").error
    assert error == "--latency goes without --task reasoning: leave one of them out"
    error = run("reinforce", *flags, "--credit", "word").error
    assert error == "--credit word: give rollout, stage, sentence, boundary, likelihood"
    error = run("reinforce", *flags, "--credit", "likelihood").error
    assert error == "--credit-weight goes without --credit likelihood: leave one of them out"
    error = run("reinforce", *flags, "--lengths", 9).error
    assert error == "--lengths goes with --credit likelihood: leave one of them out"
    flags = *flags[:-2], "--credit", "likelihood"
    error = run("reinforce", *flags, "--lengths", "9,x").error
    assert error == "--lengths 9,x: give whole numbers from 1, such as 30,60"
    error = run("reinforce", *flags, "--lengths", "9", "--length-steps", 2).error
    assert error == "--length-steps is for several --lengths: give them, or leave it out"
    error = run("reinforce", *flags, "--lengths", "9,9").error
    assert error == "lengths of a curriculum must rise, got [9, 9]"
    error = run("reinforce", *flags, "--lengths", "9,12").error
    assert error == (
        "several lengths hold 16 problems out, and there are 2: give more, or one length"
    )
    error = run("reinforce", *flags[:2], "--out", out, "--target", problems, "--price", 1).error
    assert error == "--price goes with --task reasoning: leave one of them out"
