"""Tables of a study of transcripts: word error rates, of which less is more, and lags in ms."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from tests.metrics.instances import make_log, write_log

from proactivellm.metrics.folders import folder_name, write_scores
from proactivellm.metrics.score import score
from proactivellm.output.log import LOG_FILE, Task
from proactivellm.study.arms import Study
from proactivellm.study.execution import Place
from proactivellm.study.tables import REPORT_FILE, write_report

STUDY = {
    "title": "Words",
    "recipe": "none.toml",
    "policies": ["offline"],
    "dev": {"tsv": "none"},
    "test": {"tsv": "none"},
    "at": [400.0],
    "curves": ["wait-k"],
    "against": "best",
    "arms": {"best": {}, "worse": {}},
}


def write_arm(place: Place, arm: str, right: float) -> None:
    """The logs of two policies and of offline, and their scores."""
    rows = []
    for request, k in [("wait-k:1", 1), ("wait-k:3", 3), ("offline", 99)]:
        log = [
            replace(
                i,
                task="asr",
                source_type="speech",
                source_length=400.0 * i.source_length,
                delays=[400.0 * delay for delay in i.delays],
                token_delays=[400.0 * delay for delay in i.delays],
            )
            for i in make_log(12, f"wait-k:{k}", right=right + k / 1000)
        ]
        write_log(place.results(arm) / folder_name(request) / LOG_FILE, log)
        rows.append(score(log, 20) | {"request": request})
    write_scores(place.results(arm), rows)


def test_less_is_more_in_word_error_rates(tmp_path: Path) -> None:
    study, place = Study(**STUDY, task="asr"), Place(recipes=tmp_path, out=tmp_path)
    write_arm(place, "best", 0.8)
    write_arm(place, "worse", 0.4)
    assert write_report(study, place) == []
    report = (place.out / REPORT_FILE).read_text(encoding="utf-8")
    heads = "| arm | policy | LAAL | RCO | WER | % of offline | gap, LAAL | gap, RCO | gap, DAL |"
    assert heads in report
    assert "WER (lower is better), linear between points" in report
    assert report.rstrip().endswith("the lower the better, so that a gap below 0 is a gain")
    rows = [line.split(" | ") for line in report.splitlines() if "`wait-k:3`" in line]
    laals = {row[2] for row in rows if len(row) == 9}
    assert len(laals) == 1 and int(laals.pop()) > 300  # ms without decimals
    (worse,) = [row for row in rows if len(row) == 9 and row[0] == "| worse"]
    assert worse[-1].startswith("+")  # more errors than the best arm


def test_each_task_has_its_quality() -> None:
    found = {task: Study(**STUDY, task=task).quality for task in get_args(Task)}
    assert found == {
        **{"translation": "BLEU", "qa": "F1", "asr": "WER"},
        **{"choice": "accuracy", "summary": "ROUGE-L"},
    }
