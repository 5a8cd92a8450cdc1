"""Results belong to their inputs: other content at the same path is another run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.cli.commands import save_short

from proactivellm.evaluation import earlier, results
from proactivellm.evaluation import evaluate as evaluate_module
from proactivellm.evaluation.evaluate import evaluate, make_jobs
from proactivellm.evaluation.provenance import Conditions, digest_weights, model_inputs
from proactivellm.files.lock import locked
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.policy.fixed import Fixed, WaitK
from proactivellm.session.window import Window

JOBS = make_jobs(["der Hund schläft", "ein Mann"], ["the dog sleeps", "a man"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(save_short(tmp_path_factory.mktemp("inputs") / "model"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No intervals and no pictures, which take long and are tested elsewhere."""
    for module in (evaluate_module, earlier):
        monkeypatch.setattr(module, "NUM_RESAMPLES", 0)
    monkeypatch.setattr(results, "quality_latency_curve", lambda rows, path, about: None)


@pytest.fixture(scope="module")
def model(saved: Path) -> StreamingCausalLM:
    return load(saved)


def scores(out: Path) -> list[dict]:
    return json.loads((out / "scores.json").read_text(encoding="utf-8"))


def retrain(model: StreamingCausalLM) -> None:
    with torch.no_grad():
        next(model.model.parameters()).flatten()[0] += 1e-3  # one number of all


def change_settings(model: StreamingCausalLM) -> None:
    model.settings = model.settings.model_copy(update={"boundary": "token"})


def change_end(model: StreamingCausalLM) -> None:
    model.model.generation_config.max_new_tokens = 5


def change_tokenizer(model: StreamingCausalLM) -> None:
    model.tokenizer.add_tokens(["Hund"])


CHANGES: list[tuple[Callable[[StreamingCausalLM], None], str]] = [
    (retrain, r"weights was [0-9a-f]{12}, and is [0-9a-f]{12} now"),
    (change_settings, "streaming.boundary was word, and is token now"),
    (change_end, "configuration was"),
    (change_tokenizer, "tokenizer was"),
]


def test_another_model_at_the_same_path(saved: Path, tmp_path: Path) -> None:
    model = load(saved)
    before = evaluate(model, JOBS, ["wait-k:1"], tmp_path)
    assert evaluate(model, JOBS, ["wait-k:1"], tmp_path) == before
    log = (tmp_path / "wait-k_1" / "instances.log").read_bytes()
    for change, named in CHANGES:
        other = load(saved)
        change(other)
        for policy in ("wait-k:1", "wait-k:2"):  # nor does another policy join it in one table
            with pytest.raises(ValueError, match=f"holds another run .*{named}.*another --out"):
                evaluate(other, JOBS, [policy], tmp_path)
    assert (tmp_path / "wait-k_1" / "instances.log").read_bytes() == log
    assert not (tmp_path / "wait-k_2").exists()


def test_other_texts_and_policies_are_named(model: StreamingCausalLM, tmp_path: Path) -> None:
    evaluate(model, JOBS, {"mine": WaitK(k=1)}, tmp_path)
    with pytest.raises(ValueError, match="instance 1 has another reference"):
        evaluate(model, [JOBS[0], replace(JOBS[1], reference="x")], ["wait-k:3"], tmp_path)
    with pytest.raises(ValueError, match="policy was wait-k:1, and is wait-k:2 now"):
        evaluate(model, JOBS, {"mine": WaitK(k=2)}, tmp_path)
    with pytest.raises(ValueError, match="it has instance 1, of 1 that there are now"):
        evaluate(model, JOBS[:1], {"mine": WaitK(k=1)}, tmp_path)


def test_a_replayed_schedule_is_an_input(model: StreamingCausalLM, tmp_path: Path) -> None:
    policy = {"replay": WaitK(k=1)}
    jobs = [replace(job, policy=Fixed(trace=(1, 2))) for job in JOBS]
    evaluate(model, jobs, policy, tmp_path)
    evaluate(model, jobs, policy, tmp_path)
    jobs[1] = replace(jobs[1], policy=Fixed(trace=(2, 2)))
    with pytest.raises(ValueError, match=r"schedules.1 was .*, and is .* now"):
        evaluate(model, jobs, policy, tmp_path)


def test_a_second_call_adds_to_the_tables(model: StreamingCausalLM, tmp_path: Path) -> None:
    evaluate(model, JOBS, ["wait-k:1", "offline"], tmp_path)
    rows = evaluate(model, JOBS, ["wait-k:2"], tmp_path)
    assert [row["request"] for row in rows] == ["wait-k:2"]
    assert [row["request"] for row in scores(tmp_path)] == ["wait-k:1", "offline", "wait-k:2"]
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert all(name in table for name in ("offline", "wait-k:1", "wait-k:2"))
    assert "wait-k:1" in (tmp_path / "curve.html").read_text(encoding="utf-8")
    whole = evaluate(model, JOBS, ["wait-k:1", "offline", "wait-k:2"], tmp_path / "at-once")
    timed = ("_ms", "num_undefined")  # the latter counts scores in ms as well
    same = [key for key in whole[0] if not any(part in key for part in timed)]
    assert [[row.get(k) for k in same] for row in scores(tmp_path)] == [
        [row.get(k) for k in same] for row in whole
    ]


def test_an_incomplete_policy_does_not_join_the_tables(
    model: StreamingCausalLM, tmp_path: Path
) -> None:
    evaluate(model, JOBS[:1], ["wait-k:1"], tmp_path)
    with pytest.warns(UserWarning, match="wait-k:1 is left out .* it has 1 of 2 instances"):
        evaluate(model, JOBS, ["wait-k:2"], tmp_path)
    assert [row["request"] for row in scores(tmp_path)] == ["wait-k:2"]
    evaluate(model, JOBS, ["wait-k:1"], tmp_path)
    assert [row["request"] for row in scores(tmp_path)] == ["wait-k:2", "wait-k:1"]


def test_a_run_of_an_earlier_release_is_not_continued(
    model: StreamingCausalLM, tmp_path: Path
) -> None:
    evaluate(model, JOBS, ["wait-k:1"], tmp_path)
    file = tmp_path / "wait-k_1" / "run.json"
    noted = json.loads(file.read_text())
    del noted["weights"]
    file.write_text(json.dumps(noted))
    with pytest.raises(ValueError, match="weights was not noted by the release that began it"):
        evaluate(model, JOBS, ["wait-k:1"], tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="without run.json, so that nobody can tell"):
        evaluate(model, JOBS, ["wait-k:1"], tmp_path)
    with pytest.warns(UserWarning, match="wait-k_1 is left out of the tables: without run.json"):
        evaluate(model, JOBS, ["wait-k:2"], tmp_path)
    assert [row["request"] for row in scores(tmp_path)] == ["wait-k:2"]


def test_conditions_of_one_folder_are_the_same(model: StreamingCausalLM, tmp_path: Path) -> None:
    evaluate(model, JOBS, ["wait-k:1"], tmp_path)
    windowed = Conditions(window=Window(source=16, target=16))
    with pytest.raises(ValueError, match="wait-k:1: window was None, and is"):
        evaluate(model, JOBS, ["wait-k:2"], tmp_path, conditions=windowed)


def test_a_folder_in_use_is_left_alone(model: StreamingCausalLM, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ValueError, match="is in use"):
        evaluate(model, JOBS, ["wait-k:1"], tmp_path)


def test_a_model_is_the_same_wherever_it_lies(saved: Path, model: StreamingCausalLM) -> None:
    again = load(saved)
    again.tokenizer(["bc d"], truncation=True, max_length=1)  # leaves a trace in the tokenizer
    assert model_inputs(again) == model_inputs(model)
    assert digest_weights(again.model.half()) != model_inputs(model)["weights"]
