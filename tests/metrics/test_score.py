"""From logs to scores: averages, what is left out, tables, scores.json."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tests.metrics.instances import write_log

from proactivellm.metrics.folders import write_scores
from proactivellm.metrics.score import score, score_log
from proactivellm.output.log import Instance
from proactivellm.report.score_table import score_table, scores_markdown

# wait-2, 4 source words, 4 target words, and the end-of-stream token.
# AL = LAAL = YAAL = DAL = 2, AP = 13/16, RCO = 17/20,
# AIL: M/N = 4/5: (2-.8) + (3-1.6) + (4-2.4) + (4-3.2) + (4-4) = 5; 5/5.
# Arrival at 100 ms per word, 5 ms of computing per word: LAAL of the elapsed times against 400 ms:
# tau = 3: 205 + (305-100) + (405-200) = 615; 615/3 = 205.
FIRST = Instance(
    index=0,
    source="w x y z",
    source_length=4,
    prediction="a b c d",
    prediction_length=4,
    reference="a b c d",
    delays=[2, 3, 4, 4],
    elapsed=[205.0, 305.0, 405.0, 410.0],
    token_delays=[2, 3, 4, 4, 4],
    policy="wait-k:2",
    forwards=8,
    tokens=10,
    first_token_ms=205.0,
    source_ms=400.0,
)
# 2 source words, everything after the end: AL = LAAL = 2, DAL: d' = 2, 3, 4 on pace 2/3:
# 2, max(2, 8/3) - 2/3 = 2, 10/3 - 4/3 = 2, so 2; AP = 6/(2*2); RCO = 1; no YAAL.
# AIL: M/N = 2/4: 1.5 + 1 + .5 + 0 = 3; 3/4. LAAL in ms: 215 > 200, so 215.
SECOND = Instance(
    index=1,
    source="v w",
    source_length=2,
    prediction="e f g",
    prediction_length=3,
    reference="e f",
    delays=[2, 2, 2],
    elapsed=[215.0, 220.0, 225.0],
    token_delays=[2, 2, 2, 2],
    policy="wait-k:2",
    forwards=5,
    tokens=7,
    first_token_ms=215.0,
    source_ms=200.0,
)
# Nothing was written: no lag, but the end-of-stream token was predicted: RCO = 1, AIL = 3 - 3 = 0.
NOTHING = Instance(
    index=2,
    source="u v w",
    source_length=3,
    prediction="",
    prediction_length=0,
    reference="h",
    delays=[],
    elapsed=[],
    token_delays=[3],
    policy="wait-k:2",
    forwards=2,
    tokens=4,
    source_ms=300.0,
)
LOG = [FIRST, SECOND, NOTHING]
# The same in ms of audio: units of 400 and 500.5 ms.
SPEECH = [
    replace(
        FIRST,
        source="a.wav",
        source_length=1600,
        delays=[800, 1200, 1600, 1600],
        token_delays=[800, 1200, 1600, 1600, 1600],
        task="asr",
        source_type="speech",
        compute_ms=400.0,
    ),
    replace(
        SECOND,
        source="b.wav",
        source_length=1001.0,
        delays=[1001.0] * 3,
        token_delays=[1001.0] * 4,
        task="asr",
        source_type="speech",
        compute_ms=100.25,
    ),
]


def test_averages_over_the_instances_where_defined() -> None:
    scores = score(LOG)
    assert scores["policy"] == "wait-k:2"
    assert scores["num_instances"] == 3
    assert scores["AL"] == pytest.approx((2 + 2) / 2)
    assert scores["LAAL"] == pytest.approx((2 + 2) / 2)
    assert scores["DAL"] == pytest.approx((2 + 2) / 2)
    assert scores["AP"] == pytest.approx((13 / 16 + 6 / 4) / 2)
    assert scores["YAAL"] == pytest.approx(2.0)
    assert scores["RCO"] == pytest.approx((17 / 20 + 1 + 1) / 3)
    assert scores["AIL"] == pytest.approx((1 + 3 / 4 + 0) / 3)
    assert scores["first_token_delay"] == pytest.approx(2.0)
    assert scores["NE"] == 0.0
    assert scores["num_undefined"] == {
        "AL": 1,
        "LAAL": 1,
        "AP": 1,
        "DAL": 1,
        "YAAL": 2,
        "first_token_delay": 1,
        "first_token_ms": 1,
        "final_token_ms": 1,
        "AL_CA_ms": 1,
        "LAAL_CA_ms": 1,
        "YAAL_CA_ms": 2,
    }


def test_costs() -> None:
    scores = score(LOG)
    assert scores["forwards"] == pytest.approx((8 + 5 + 2) / 3)
    assert scores["tokens"] == pytest.approx((10 + 7 + 4) / 3)
    assert scores["first_token_ms"] == pytest.approx(210.0)
    assert scores["first_token_ms_p50"] == pytest.approx(210.0)
    assert scores["first_token_ms_p90"] == pytest.approx(205 + 0.9 * 10)
    assert scores["LAAL_CA_ms"] == pytest.approx((205 + 215) / 2)


def test_computation_aware_latency_is_that_of_the_elapsed_times() -> None:
    # FIRST: |X| = 400 ms, pace 100 ms a word, 205, 305, 405, 410: AL = LAAL = 205 as above, YAAL
    # without the word at 405: (205 + 205) / 2. SECOND: nothing came before 200 ms: 215, no YAAL.
    scores = score(LOG)
    assert scores["AL_CA_ms"] == pytest.approx((205 + 215) / 2)
    assert scores["YAAL_CA_ms"] == pytest.approx(205.0)
    # The last words came 410 - 400 and 225 - 200 ms after the end.
    assert scores["final_token_ms"] == pytest.approx((10 + 25) / 2)
    assert scores["final_token_ms_p50"] == pytest.approx(17.5)
    assert scores["final_token_ms_p90"] == pytest.approx(10 + 0.9 * 15)
    # Where reference and prediction differ in length, AL has the pace of the reference: 200 ms:
    # (205 + (305-200) + (405-400)) / 3.
    alone = score([replace(FIRST, reference="a b")])
    assert alone["AL_CA_ms"] == pytest.approx(105.0)
    assert alone["LAAL_CA_ms"] == pytest.approx(205.0)


def test_what_the_log_does_not_tell_is_left_out() -> None:
    bare = replace(
        FIRST, first_token_ms=None, source_ms=None, forwards=None, tokens=None, reference=None
    )
    scores = score([bare])
    absent = {"first_token_ms", "LAAL_CA_ms", "forwards", "tokens", "bleu_signature", "BLEU_ci"}
    assert not absent & set(scores)
    assert scores["BLEU"] is None and scores["chrF"] is None
    assert scores["AL"] == pytest.approx(2.0)  # the prediction is as long as the reference was
    assert scores["num_undefined"] == {}
    # A duration that is known for a part only would be the mean of a part.
    partly = score([FIRST, replace(SECOND, source_ms=None)])
    assert not {"AL_CA_ms", "LAAL_CA_ms", "YAAL_CA_ms", "final_token_ms"} & set(partly)


def test_the_reference_sets_the_pace_of_al_only() -> None:
    # |X| = 4, |Y| = 4, |Y*| = 2: AL has pace 2: 2 + 1 + 0 = 3; 3/3; LAAL has pace 1.
    scores = score([replace(FIRST, reference="a b\n")])
    assert scores["AL"] == pytest.approx(1.0)
    assert scores["LAAL"] == pytest.approx(2.0)


def test_quality_and_its_interval() -> None:
    perfect = score([FIRST])
    assert perfect["BLEU"] == pytest.approx(100.0)
    assert perfect["chrF"] == pytest.approx(100.0)
    assert "tok:13a" in perfect["bleu_signature"] and "nc:6" in perfect["chrf_signature"]
    assert "BLEU_ci" not in perfect
    resampled = score(LOG, num_bootstrap=50)
    assert resampled["BLEU_ci"] > 0 and resampled["chrF_ci"] > 0
    assert resampled["LAAL_ci"] == 0.0 < resampled["AIL_ci"]  # both that have a LAAL have 2
    assert resampled["num_bootstrap"] == 50
    without = {k: v for k, v in resampled.items() if not k.endswith("_ci") and k != "num_bootstrap"}
    assert without == score(LOG)


def test_a_single_instance_has_no_interval() -> None:
    assert score([FIRST], num_bootstrap=50) == score([FIRST])


def test_answers_have_f1_and_exact_match() -> None:
    # F1 of "a dog runs" against "dog": the article does not count, so 2 * (1/2 * 1) / (3/2).
    first = replace(
        FIRST, task="qa", prediction="a dog runs .", reference="cat", answers=["cat", "dog"]
    )
    second = replace(SECOND, task="qa", prediction="in the park", reference="in the park")
    scores = score([first, second], num_bootstrap=50)
    assert scores["F1"] == pytest.approx((100 * 2 / 3 + 100) / 2)
    assert scores["EM"] == pytest.approx(50.0) and scores["EM_ci"] > 0
    assert not {"BLEU", "chrF", "bleu_signature"} & set(scores)
    assert "83.3 ± " in scores_markdown([scores])
    bare = score([replace(first, reference=None, answers=None)])
    assert bare["F1"] is None and "BLEU" not in bare


def test_speech_has_error_rates_and_lags_in_ms() -> None:
    scores = score(SPEECH, num_bootstrap=50)
    # "e f g" for "e f": one error in 4 + 2 words; " g" are two of 7 + 3 characters.
    assert scores["WER"] == scores["insertions"] == pytest.approx(100 / 6)
    assert scores["CER"] == pytest.approx(20.0)
    assert scores["substitutions"] == scores["deletions"] == 0.0
    assert scores["wer_normaliser"] == "lower-no-punctuation"
    assert not {"BLEU", "F1"} & set(scores)
    # 400 times the lags in units, see above, and 500.5 times.
    assert scores["latency_unit"] == "ms"
    for name in ("AL", "LAAL", "DAL"):
        assert scores[name] == pytest.approx((2 * 400 + 2 * 500.5) / 2)
    assert scores["YAAL"] == pytest.approx(2 * 400)
    assert scores["RCO"] == pytest.approx((17 / 20 + 1) / 2)
    assert scores["AIL"] == pytest.approx((1 * 400 + 3 / 4 * 500.5) / 2)
    # All computing over all audio, not the mean of 400/1600 and 100.25/1001.
    assert scores["RTF"] == pytest.approx(500.25 / 2601)
    assert {"WER_ci", "CER_ci", "RTF_ci"} <= set(scores)
    assert score([replace(i, reference=None) for i in SPEECH])["WER"] is None


def test_the_table_of_speech() -> None:
    text = scores_markdown([score(SPEECH), score(LOG)])
    header, _, speech, written = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[:4]
    )
    speech_row, text_row = (dict(zip(header, row, strict=True)) for row in (speech, written))
    assert speech_row["WER"] == "16.67" and speech_row["CER"] == "20.00"
    assert (speech_row["LAAL"], speech_row["YAAL"], speech_row["AP"]) == ("900", "800", "1.16")
    assert speech_row["RTF"] == "0.192" and text_row["RTF"] == "-"
    assert (text_row["LAAL"], text_row["WER"], speech_row["BLEU"]) == ("2.00", "-", "-")
    assert "AIL of speech: ms of audio" in text
    assert "ms of audio" not in scores_markdown([score(LOG)])


def test_the_real_time_factor_is_of_all_the_audio() -> None:
    assert "RTF" not in score([SPEECH[0], replace(SPEECH[1], compute_ms=None)])
    assert "RTF" not in score([replace(FIRST, compute_ms=10.0)])  # text has no duration


def test_all_predictions_empty() -> None:
    scores = score([NOTHING])
    assert scores["BLEU"] == 0.0
    assert scores["AL"] is None and scores["YAAL"] is None
    assert scores["num_undefined"]["AL"] == 1
    assert scores["SWF"] is None and scores["degenerate"] is None
    assert scores["LAAL_CA_ms"] is None and scores["NE_corpus"] is None
    assert "wait-k:2" in scores_markdown([scores])
    several = score([NOTHING, replace(NOTHING, index=3)], num_bootstrap=20)
    assert (several["BLEU"], several["BLEU_ci"]) == (0.0, 0.0)
    assert several["chrF"] == 0.0 and "AL_ci" not in several and "NE_corpus_ci" not in several


def test_degenerate_policies_are_marked() -> None:
    late = replace(
        FIRST,
        source_length=10,
        prediction="a b c d e",
        prediction_length=5,
        delays=[1, 10, 10, 10, 10],
        elapsed=[1.0] * 5,
    )
    scores = score([late])
    # SWF = 1/5; YAAL = 1, so EFSW = 9/10
    assert scores["SWF"] == pytest.approx(20.0) and scores["EFSW"] == pytest.approx(90.0)
    assert scores["degenerate"] is True
    honest = score([FIRST])
    # SWF = 2/4, EFSW = (4-2)/4
    assert (honest["SWF"], honest["EFSW"], honest["degenerate"]) == (50.0, 50.0, False)
    assert "wait-k:2 †" in scores_markdown([scores])
    assert "(wait-k:2: SWF 20%, EFSW 90%)" in scores_markdown([scores])
    assert "†" not in scores_markdown([honest])


def test_erasure_comes_from_the_revisions() -> None:
    revised = replace(FIRST, revisions=["x", "a b c d"])
    scores = score([revised, replace(SECOND, revisions=["e", "f", "e f g"])])
    assert scores["NE"] == pytest.approx((1 / 4 + 2 / 3) / 2)
    assert scores["NE_corpus"] == pytest.approx((1 + 2) / (4 + 3))


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ([], "no instances"),
        ([FIRST, replace(SECOND, policy="offline")], r"several policies \(offline, wait-k:2\)"),
        ([FIRST, replace(SECOND, reference=None)], r"1 of 2 .* \(the first is index 1\)"),
        ([FIRST, replace(SECOND, index=7, reference=" ")], "instance 7 has an empty reference: .*"),
        ([FIRST, replace(SECOND, task="qa")], r"several tasks \(qa, translation\)"),
        ([FIRST, replace(SECOND, source_type="speech")], "are of text and of speech"),
    ],
)
def test_what_cannot_be_scored_is_told(
    tmp_path: Path, instances: list[Instance], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score(instances)
    with pytest.raises(ValueError, match=r"a\.log: .*" + message):
        score_log(write_log(tmp_path / "a.log", instances))


def test_a_log_alone_gives_the_same_numbers(tmp_path: Path) -> None:
    assert score_log(write_log(tmp_path / "log", LOG)) == score(LOG)


def test_tables() -> None:
    offline = score([replace(SECOND, policy="offline")])
    rows = [score(LOG, num_bootstrap=50), offline]
    lines = scores_markdown(rows).splitlines()
    # SWF = 2/7, EFSW = (4-2)/4: one of the two sources was read to its end before the first word.
    assert lines[4:] == ["", lines[5], "", lines[7], "", lines[9]]
    assert lines[5].startswith("† degenerate") and "(wait-k:2: 1 of 3)" in lines[7]
    assert lines[9] == "± half the width of the 95% bootstrap interval (50 resamples)"
    header = [cell.strip() for cell in lines[0].strip("|").split("|")]
    first = dict(
        zip(header, (cell.strip() for cell in lines[2].strip("|").split("|")), strict=True)
    )
    second = dict(
        zip(header, (cell.strip() for cell in lines[3].strip("|").split("|")), strict=True)
    )
    assert first["policy"] == "wait-k:2 †" and second["policy"] == "offline"
    assert first["AL"] == "2.00" and first["first ms"] == "210"
    assert "±" in first["BLEU"] and "±" in first["LAAL"] and "±" not in first["AIL"]
    assert "±" not in second["BLEU"]
    assert second["YAAL"] == "-"
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(score_table(rows))
    text = console.export_text()
    for cell in [*header, *first.values(), *second.values()]:
        assert cell in text


def test_scores_json_is_a_list_of_objects(tmp_path: Path) -> None:
    rows = [score(LOG), score([replace(SECOND, policy="offline")])]
    write_scores(tmp_path, rows)
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")) == rows


def test_silence_has_insertions_per_minute() -> None:
    """Two recordings in which nothing is said: 30 s with three words written, 60 s with none."""
    silent = [
        replace(SPEECH[0], reference="", source_length=30_000, prediction="a b c d"),
        replace(SPEECH[1], reference=" -", source_length=60_000),
    ]
    silent[1] = replace(silent[1], prediction="", prediction_length=0, delays=[], elapsed=[])
    scores = score([*silent, replace(SPEECH[0], index=2, reference="a b c d")], num_bootstrap=50)
    assert scores["insertions_per_min"] == pytest.approx(4 / 1.5)
    assert scores["WER"] == 100.0 and scores["num_empty"] == 0
    assert "insertions/min" in scores_markdown([scores])
    alone = score(silent, num_bootstrap=50)
    assert alone["WER"] is None and alone["insertions_per_min"] == pytest.approx(4 / 1.5)
    assert "insertions_per_min" not in score(SPEECH)


def test_a_policy_stays_in_its_cell() -> None:
    row = {"policy": "x|y <img src=z>\n| w", "BLEU": 1.0}
    assert scores_markdown([row]).splitlines()[2:] == ["| x\\|y &lt;img src=z> \\| w | 1.0 |"]
