"""Tables of a study of transcripts: word error rates, of which less is more, and lags in ms."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

from tests.metrics.instances import make_log, write_log

from proactivellm.metrics.folders import SCORES_FILE, folder_name, write_scores
from proactivellm.metrics.score import score
from proactivellm.output.log import LOG_FILE, Task
from proactivellm.study.arms import Run, Study
from proactivellm.study.place import Place
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


def write_arm(place: Place, arm: str, right: float, seed: int | None = None) -> None:
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
        write_log(place.results(Run(arm, seed)) / folder_name(request) / LOG_FILE, log)
        rows.append(score(log, 20) | {"request": request})
    write_scores(place.results(Run(arm, seed)), rows)


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


def test_seeds_are_averaged_and_their_spread_is_told(tmp_path: Path) -> None:
    study = Study(
        **STUDY | {"curves": ["wait-k", "offline"], "against": ["best", "best/wait-k"]},
        task="asr",
        seeds=[1, 2],
        ceiling="wait-k",
    )
    place = Place(recipes=tmp_path, out=tmp_path)
    for seed, (best, worse) in enumerate([(0.8, 0.4), (0.9, 0.6)], start=1):
        write_arm(place, "best", best, seed)
        write_arm(place, "worse", worse, seed)
    assert write_report(study, place) == []
    report = (place.out / REPORT_FILE).read_text(encoding="utf-8")
    assert "## All points, means of seeds 1, 2" in report
    assert "## Each policy, against best/wait-k" in report
    (row,) = [
        cells
        for line in report.split("## Each policy, against best/wait-k")[1].splitlines()
        if (cells := line.strip("| ").split(" | "))[:2] == ["worse", "`wait-k:3`"]
    ]
    scores = json.loads((place.out / SCORES_FILE).read_text(encoding="utf-8"))
    wers = [
        json.loads((place.results(Run("worse", seed)) / SCORES_FILE).read_text("utf-8"))[1]["WER"]
        for seed in study.seeds
    ]
    (mean,) = [s for s in scores if (s["arm"], s["request"]) == ("worse", "wait-k:3")]
    assert mean["WER"] == sum(wers) / 2 and mean["policy"] == "worse/wait-k:3"
    assert f"{{{min(wers):.2f}..{max(wers):.2f}}}" in row[4]
    assert row[6].startswith("+") and "{+" in row[6]  # the gap, and that of each seed
    assert row[9].startswith("100 %")  # its own wait-k is the ceiling


def test_each_task_has_its_quality() -> None:
    found = {task: Study(**STUDY, task=task).quality for task in get_args(Task)}
    assert found == {
        **{"translation": "BLEU", "qa": "F1", "asr": "WER"},
        **{"choice": "accuracy", "reasoning": "accuracy", "summary": "ROUGE-L"},
    }
