"""Test sets of every task as jobs."""

import json
from pathlib import Path

import pytest
from tests.models import save_tiny

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.evaluation.evaluate import evaluate
from proactivellm.modality.loading import load
from proactivellm.output.log import LOG_FILE, read_log
from proactivellm.tasks.jobs import read_jobs


@pytest.fixture
def squad(tmp_path: Path) -> str:
    answers = [{"text": "Anna"}, {"text": "Anna B."}]
    entry = {"id": "1", "question": "Who?", "answers": answers}
    paragraphs = [{"context": "Anna sings.", "qas": [entry]}]
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return str(path)


def test_text_files_and_questions(tmp_path: Path, squad: str) -> None:
    text = tmp_path / "lines"
    text.write_text("a b\n\nc\n")
    jobs = read_jobs("translation", str(text), str(text))
    assert [(job.index, job.source, job.reference, job.task, job.answers) for job in jobs] == [
        (0, "a b", "a b", "translation", None),
        (1, "", "", "translation", None),
        (2, "c", "c", "translation", None),
    ]
    assert {(job.task, job.reference) for job in read_jobs("qa", str(text))} == {("qa", None)}
    (job,) = read_jobs("qa", squad)
    assert (job.source, job.reference, job.task) == ("Who? Anna sings.", "Anna", "qa")
    assert job.answers == ("Anna", "Anna B.")


def test_what_does_not_fit(squad: str) -> None:
    with pytest.raises(ValueError, match="unknown task 'quiz': give one of translation, qa"):
        read_jobs("quiz", squad)
    with pytest.raises(ValueError, match=r"f\.json: JSON is read as questions: give --task qa"):
        read_jobs("translation", squad)
    with pytest.raises(ValueError, match="holds the answers as well: leave --target out"):
        read_jobs("qa", squad, squad)


def test_an_evaluation_of_answers(tmp_path: Path, squad: str) -> None:
    """The log says what was asked; another task does not continue it."""
    settings = StreamSettings(early_end=True)
    folder = save_tiny("qwen3", tmp_path / "model")
    model = load(folder, settings=settings)
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = 3
    (row,) = evaluate(model, read_jobs("qa", squad), ["wait-k:2"], tmp_path / "out")
    assert {"F1", "EM"} <= row.keys() and "BLEU" not in row
    (instance,) = read_log(tmp_path / "out" / "wait-k_2" / LOG_FILE)
    assert instance.task == "qa" and instance.answers == ["Anna", "Anna B."]
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text(f"{instance.source}\n")
    target.write_text("Anna\n")
    jobs = read_jobs("translation", str(source), str(target))
    with pytest.raises(ValueError, match="instance 0 has another task and answers"):
        evaluate(model, jobs, ["wait-k:2"], tmp_path / "out")
