"""Evaluation and calibration on a few sentences of the committed sample."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from proactivellm.evaluation.calibrate import Grid, calibrate
from proactivellm.evaluation.evaluate import LOG_FILE, Conditions, evaluate, make_jobs
from proactivellm.evaluation.heads import choose_heads, ranking_quality
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.metrics.counting import Counting
from proactivellm.modality.loading import load
from proactivellm.output.log import read_log
from proactivellm.policy.spec import parse_policy
from proactivellm.report.score_table import scores_markdown

SAMPLE = Path(__file__).parents[2] / "src/proactivellm/assets/tatoeba-sample"


@pytest.fixture(scope="module")
def model() -> StreamingCausalLM:
    return load("tatoeba-de-en")


def lines(name: str, count: int) -> list[str]:
    return (SAMPLE / name).read_text(encoding="utf-8").splitlines()[:count]


def test_scores_logs_and_order(model: StreamingCausalLM, tmp_path: Path) -> None:
    jobs = make_jobs(lines("test.de", 30), lines("test.en", 30))
    rows = evaluate(model, jobs, ["offline", "wait-k:1"], tmp_path, num_lanes=8)
    assert [row["request"] for row in rows] == ["offline", "wait-k:1"]
    assert rows[0]["RCO"] == 1.0 and rows[1]["RCO"] < 0.9
    assert rows[0]["BLEU"] > 15  # a trained model on sentences it was not trained on
    assert json.loads((tmp_path / "scores.json").read_text())[1]["LAAL"] == rows[1]["LAAL"]
    log = read_log(tmp_path / "wait-k_1" / LOG_FILE)
    assert [instance.index for instance in log] == list(range(30))


def test_a_second_run_continues_and_agrees(model: StreamingCausalLM, tmp_path: Path) -> None:
    jobs = make_jobs(lines("test.de", 8), lines("test.en", 8))
    whole = evaluate(model, jobs, ["wait-k:3"], tmp_path / "whole")
    log = tmp_path / "cut" / "wait-k_3" / LOG_FILE
    log.parent.mkdir(parents=True)
    text = (tmp_path / "whole" / "wait-k_3" / LOG_FILE).read_text().splitlines(keepends=True)
    shutil.copy(tmp_path / "whole" / "wait-k_3" / "run.json", log.with_name("run.json"))
    log.write_text("".join(text[:5]) + text[5][:40])  # killed while it wrote the sixth
    seen = []
    cut = evaluate(
        model, jobs, ["wait-k:3"], tmp_path / "cut", progress=lambda p, done, n: seen.append(done)
    )
    assert seen[0] == 5 and seen[-1] == 8
    # times differ from run to run, and how many of them are undefined
    same = {key for key in whole[0] if "_ms" not in key and key != "num_undefined"}
    assert same > {"BLEU", "LAAL", "RCO", "forwards", "BLEU_ci"}
    assert {key: cut[0][key] for key in same} == {key: whole[0][key] for key in same}


def test_an_oracle_is_evaluated_and_marked(model: StreamingCausalLM, tmp_path: Path) -> None:
    jobs = make_jobs(lines("test.de", 30), lines("test.en", 30))
    oracle, plain = evaluate(model, jobs, ["oracle:0.3", "wait-k:1"], tmp_path, num_lanes=8)
    assert oracle["policy"] == "oracle:acceptable=0.3,min_lag=1"
    assert oracle["LAAL"] < plain["LAAL"] + 1 and oracle["BLEU"] > plain["BLEU"] + 5
    note = "oracle: decides with the whole source in view"
    assert note in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert note not in scores_markdown([plain])


def test_a_folder_of_another_run_is_refused(model: StreamingCausalLM, tmp_path: Path) -> None:
    evaluate(model, make_jobs(["Ja."], ["Yes."]), ["offline"], tmp_path)
    with pytest.raises(ValueError, match="holds another run"):
        evaluate(model, make_jobs(["Nein."], ["No."]), ["offline"], tmp_path)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 lines but the target has 1"):
        make_jobs(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no lines"):
        make_jobs([], None)


def test_calibration_meets_its_target_on_its_own_data(model: StreamingCausalLM) -> None:
    jobs = make_jobs(lines("test.de", 20), lines("test.en", 20))
    grid = Grid(quantiles=(0.2, 0.5, 0.8), min_lags=(1,), max_lags=(4,))
    table = calibrate(model, jobs, ["entropy"], grid=grid, description="sample")
    assert len(table.points) == 3
    laal = sorted(point.LAAL for point in table.points)
    wanted = laal[1]  # a measured point: no interpolation between
    policy = parse_policy(f"entropy:laal={wanted}", table)
    middle = next(point for point in table.points if point.LAAL == wanted)
    assert policy.options["threshold"] == pytest.approx(middle.threshold, rel=1e-4)
    assert policy.max_lag == 4
    with pytest.raises(ValueError, match="outside the calibrated range"):
        parse_policy("entropy:laal=50", table)


def test_what_cannot_be_calibrated_is_said(model: StreamingCausalLM) -> None:
    jobs = make_jobs(["Ja."], ["Yes."])
    with pytest.raises(ValueError, match="wait-k has no threshold"):
        calibrate(model, jobs, ["wait-k"])
    with pytest.raises(ValueError, match="references"):
        calibrate(model, make_jobs(["Ja."], None), ["entropy"])
    with pytest.raises(ValueError, match="too short"):
        calibrate(model, jobs, ["entropy"])


def test_ranking_quality_is_the_area_under_the_curve() -> None:
    share = torch.tensor([[[0.1, 0.4, 0.35, 0.8], [0.9, 0.1, 0.2, 0.3]]])
    changed = torch.tensor([False, False, True, True])
    # head 0: of 4 (changed, unchanged) pairs, 3 are in the right order; head 1: 2 of 4
    assert ranking_quality(share, changed).tolist() == [[0.75, 0.5]]
    assert ranking_quality(share, torch.ones(4, dtype=torch.bool)).tolist() == [[0.5, 0.5]]


def test_chosen_heads_exist(model: StreamingCausalLM) -> None:
    heads = choose_heads(model, make_jobs(lines("demo.de", 2), None))
    config = model.model.config
    assert len(set(heads)) == 4
    for layer, head in heads:
        assert layer < config.num_hidden_layers and head < config.num_attention_heads


def test_references_are_checked_before_anything_runs(
    model: StreamingCausalLM, tmp_path: Path
) -> None:
    jobs = make_jobs(["Ja.", "Nein."], ["Yes.", " "])
    with pytest.raises(ValueError, match="instance 1 has an empty reference"):
        evaluate(model, jobs, ["wait-k:1"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="instance 1 has an empty reference"):
        calibrate(model, jobs)
    silence = [replace(job, task="asr") for job in jobs]  # of transcripts, it is silence
    (row,) = evaluate(model, silence, ["wait-k:1"], tmp_path / "silence")
    assert row["insertions"] > 0 and row["num_empty"] == 0


def test_what_is_counted_may_change(model: StreamingCausalLM, tmp_path: Path) -> None:
    jobs = make_jobs(["Ja, das ist gut."], ["Yes, that is good."])
    (words,) = evaluate(model, jobs, ["wait-k:1"], tmp_path)
    conditions = Conditions(counting=Counting(tokenize="char", unit="char"))
    (letters,) = evaluate(model, jobs, ["wait-k:1"], tmp_path, conditions=conditions)
    assert "|tok:13a|" in words["bleu_signature"] and "|tok:char|" in letters["bleu_signature"]
    assert (words["target_unit"], letters["target_unit"]) == ("words", "characters")
    assert letters["forwards"] == words["forwards"]  # nothing ran anew
