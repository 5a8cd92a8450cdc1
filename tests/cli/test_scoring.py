"""`score` and `compare`: what is printed and written, of which logs, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.commands import Run, write_lines
from tests.metrics.instances import make_log, write_log

from proactivellm.metrics.folders import folder_name, write_scores
from proactivellm.metrics.score import score

LOG = make_log(20)
SIMULSTREAM = [
    {"id": 0, "metadata": {"wav_name": "a.wav"}},
    {
        **{"id": 0, "total_audio_processed": 2.0, "computation_time": 0.5},
        **{"generated_tokens": ["the", "cat", "sits", "."], "deleted_tokens": []},
    },
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write_log(tmp_path / "wait-k_2" / "instances.log", LOG)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two evaluation folders that have wait-k:2 in common."""
    for name, policies in (("a", (2, 3)), ("b", (2, 4))):
        for seed, k in enumerate(policies, start=len(name)):
            instances = make_log(20, f"wait-k:{k}", seed=seed + ord(name))
            write_log(tmp_path / name / f"wait-k_{k}" / "instances.log", instances)
    return tmp_path / "a", tmp_path / "b"


def test_score_has_intervals(run: Run, log: Path) -> None:
    scores = json.loads(run("score", log, "--json").out)
    assert scores == score(LOG, 1000) and scores["BLEU_ci"] > 0
    done = run("score", log)
    assert f"{scores['BLEU']:.1f} ± {scores['BLEU_ci']:.1f}" in done.out
    assert "(1000 resamples)" in done.out and done.err == ""
    assert json.loads(run("score", log, "--json", "--bootstrap", 0).out) == score(LOG)


def test_score_of_one_instance(run: Run, tmp_path: Path) -> None:
    done = run("score", write_log(tmp_path / "log", LOG[:1]))
    assert done.code == 0 and "±" not in done.out
    assert done.err == "warning: no intervals: a single instance cannot be resampled\n"


def test_score_of_logs_without_texts(run: Run, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "metrics.jsonl", *map(json.dumps, SIMULSTREAM))
    assert json.loads(run("score", log, "--json").out)["BLEU"] is None
    reference = write_lines(tmp_path / "reference", "the cat sits .")
    scores = json.loads(run("score", log, "--json", "--reference", reference).out)
    assert scores["BLEU"] == pytest.approx(100.0)
    assert scores["AL"] == pytest.approx(2000.0)  # ms: all came with the end
    assert scores["LAAL_CA_ms"] == pytest.approx(2500.0)
    two = write_log(tmp_path / "two", LOG[:2])
    error = run("score", two, "--reference", reference).error
    assert error.startswith(f"{reference} has 1 lines, but the log has index 1")
    assert run("score", two, "--source", reference).error.startswith(f"{reference} has 1 lines")


def test_score_of_transcripts(run: Run, tmp_path: Path) -> None:
    """A log that does not tell its task, with other words than the reference."""
    log = write_lines(tmp_path / "metrics.jsonl", *map(json.dumps, SIMULSTREAM))
    reference = write_lines(tmp_path / "reference", "The cat sat!")
    scores = json.loads(run("score", log, "--json", "--reference", reference, "--task", "asr").out)
    assert scores["WER"] == pytest.approx(100 / 3) and "BLEU" not in scores
    assert scores["RTF"] == pytest.approx(0.25) and scores["latency_unit"] == "ms"
    shown = run("score", log, "--reference", reference, "--task", "asr")
    assert "33.33" in shown.out and " 2000 " in shown.out
    assert run("score", log, "--task", "poetry").error == (
        "--task 'poetry': give one of translation, qa, choice, reasoning, summary, asr"
    )


def test_score_of_long_recordings(run: Run, tmp_path: Path) -> None:
    log = write_lines(tmp_path / "metrics.jsonl", *map(json.dumps, SIMULSTREAM))
    parts = [("The cat", 0.0, 1.0), ("sits down.", 1.0, 2.5)]
    records = [{"audio": "x/a.wav", "start_s": a, "end_s": b, "text": t} for t, a, b in parts]
    segments = write_lines(tmp_path / "segments.jsonl", *map(json.dumps, records))
    given = ("score", log, "--segments", segments, "--task", "asr")
    scores = json.loads(run(*given, "--json").out)
    assert (scores["num_recordings"], scores["num_instances"]) == (1, 2)
    assert scores["WER"] == pytest.approx(25.0) and "WER_ci" in scores
    # All words came at 2 s: "the cat" 2000 and 1500 behind, "sits" 1000, as does "." of pace 750.
    assert scores["LongYAAL"] == pytest.approx(((2000 + 1500) / 2 + (1000 + 250) / 2) / 2)
    shown = run(*given)
    assert "LongYAAL" in shown.out and "25.00 ± " in shown.out and shown.err == ""
    assert run(*given, "--reference", segments).error.startswith("--segments has the references")
    write_lines(segments, json.dumps(records[0] | {"audio": "b.wav"}))
    assert run(*given).error.startswith(f"{log}: 'a.wav' has no segments")
    write_lines(segments, "a")
    assert run(*given).error.startswith(f"{segments}: line 1: not JSON")


def test_what_cannot_be_scored_is_told(run: Run, tmp_path: Path) -> None:
    empty = write_lines(tmp_path / "empty")
    assert run("score", empty).error == (
        f"{empty}: there are no instances to score: the log is empty"
    )
    other = write_lines(tmp_path / "other", '{"text": "a"}')
    assert "neither an instance log" in run("score", other).error
    broken = write_log(tmp_path / "broken", [LOG[0], replace(LOG[1], reference="")])
    assert run("score", broken).error.startswith(f"{broken}: instance 1 has an empty reference: ")
    silent = [replace(i, prediction="", prediction_length=0, delays=[], elapsed=[]) for i in LOG]
    done = run("score", write_log(tmp_path / "silent", silent))
    assert done.code == 0 and "0.0 ± 0.0" in done.out


def test_compare_folders(run: Run, folders: tuple[Path, Path], tmp_path: Path) -> None:
    markdown, curve = tmp_path / "table.md", tmp_path / "curve.png"
    done = run("compare", *folders, "--out", markdown, "--curve", curve)
    assert done.code == 0 and "BLEU" in done.out and "B - A" in done.out
    assert f"only in A ({folders[0]}): wait-k_3" in done.err
    assert f"only in B ({folders[1]}): wait-k_4" in done.err
    assert markdown.read_text(encoding="utf-8").startswith("| A | B | metric |")
    assert curve.read_bytes().startswith(b"\x89PNG")
    found = json.loads(run("compare", *folders, "--json", "--bootstrap", 100).out)
    assert (found["only_A"], found["only_B"]) == (["wait-k_3"], ["wait-k_4"])
    (pair,) = found["pairs"]
    assert (pair["A_request"], pair["B_request"]) == ("wait-k_2", "wait-k_2")
    assert pair["num_bootstrap"] == 100 and pair["metrics"]["BLEU"]["p"] > 0


def test_compare_policies_of_one_folder(run: Run, folders: tuple[Path, Path]) -> None:
    done = run("compare", folders[0], "--pair", "wait-k_2=wait-k_3", "--json")
    (pair,) = json.loads(done.out)["pairs"]
    assert (pair["A"], pair["B"]) == ("wait-k:2", "wait-k:3")
    assert pair["metrics"]["LAAL"]["difference"] > 0


def test_what_cannot_be_compared_is_told(run: Run, folders: tuple[Path, Path]) -> None:
    assert "give a second folder or log" in run("compare", folders[0]).error
    assert "no policy is in both" in run("compare", folders[0] / "wait-k_3", folders[1]).error
    other = write_log(folders[1] / "wait-k_2" / "instances.log", LOG[:-1])
    error = run("compare", *folders).error
    assert error.startswith(f"A = {folders[0] / 'wait-k_2' / 'instances.log'}, B = {other}: ")
    assert "not in B (the first is index 19)" in error


def test_what_is_counted_is_an_option(run: Run, log: Path, folders: tuple[Path, Path]) -> None:
    options = ("--bleu-tokenize", "char", "--latency-unit", "char")
    scores = json.loads(run("score", log, "--json", *options).out)
    assert scores["target_unit"] == "characters" and "|tok:char|" in scores["bleu_signature"]
    assert scores["LAAL"] != score(LOG)["LAAL"]
    done = run("score", log, *options)
    assert "BLEU: tokenizer char; latency by characters of the target" in " ".join(done.out.split())
    found = json.loads(run("compare", *folders, "--json", *options).out)["pairs"][0]
    assert found["target_unit"] == "characters"
    for command in (("score", log), ("compare", *folders)):
        assert "latency unit 'x': give word, char" in run(*command, "--latency-unit", "x").error
        assert "tokenizer 'x' is unknown" in run(*command, "--bleu-tokenize", "x").error


def test_an_impossible_log_is_refused(run: Run, tmp_path: Path) -> None:
    record = {"index": 0, "prediction": "x y", "delays": [1, 99], "elapsed": [0, 0]}
    record |= {"prediction_length": 2, "reference": "x y", "source": "a b", "source_length": 2}
    file = write_lines(tmp_path / "log", json.dumps(record))
    assert "line 1: delays[1] = 99 lies beyond the source" in run("score", file).error


def test_all_policies_against_a_family(run: Run, tmp_path: Path) -> None:
    requests = {"wait-k:2": 2, "wait-k:4": 4, "entropy:laal=3": 3, "oracle:0.3": 3}
    for seed, (request, k) in enumerate(requests.items()):
        log = make_log(20, f"wait-k:{k}", seed=seed)
        write_log(tmp_path / "a" / folder_name(request) / "instances.log", log)
    write_scores(tmp_path / "a", [{"request": request} for request in requests])
    options = ("compare", tmp_path / "a", "--against", "wait-k", "--bootstrap", 100)
    found = json.loads(run(*options, "--json").out)
    assert (found["quality"], found["baseline"], found["ceiling"]) == ("BLEU", "wait-k", None)
    assert [row["policy"] for row in found["rows"]] == sorted(requests)
    first = found["rows"][2]["gaps"]  # a policy of the family itself
    assert list(first) == ["LAAL", "RCO", "DAL"] and first["DAL"]["gap"] == pytest.approx(0.0)
    out = tmp_path / "table.md"
    done = run(*options, "--ceiling", "oracle", "--out", out)
    assert done.code == 0 and "at equal DAL" in done.out
    assert "share: of the way from wait-k to oracle" in out.read_text(encoding="utf-8")
    assert "| policy | BLEU | at equal LAAL |" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--against", "learned"), "no policy of the family 'learned'"),
        (("--against", "wait-k", "--pair", "a=b"), "leave out B, --pair and --curve"),
        (("--ceiling", "oracle"), "--ceiling needs --against"),
    ],
)
def test_what_no_family_is_compared_with(run: Run, folders, options, message) -> None:
    done = run("compare", folders[0], *options)
    assert done.code == 2 and message in done.err


def test_misleading_time_needs_the_offline_log(run: Run, log: Path, tmp_path: Path) -> None:
    offline = write_log(tmp_path / "offline.log", make_log(20, "wait-k:9", seed=3))
    scores = json.loads(run("score", log, "--offline", offline, "--json").out)
    assert scores["misleading_time"] > 0 and scores["misleading_against"] == "wait-k:9"
    assert "misleading" not in json.loads(run("score", log, "--json").out)
    done = run("score", log, "--offline", offline, "--segments", tmp_path / "segments")
    assert done.code == 2 and "--offline compares whole instances" in done.err
