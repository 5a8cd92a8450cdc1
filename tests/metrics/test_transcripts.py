"""Error rates of transcripts: what is counted, after which normalisation."""

import random
import subprocess
import sys

import pytest

from proactivellm.metrics.transcripts import error_rates, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MISTER Quilter, is the\nApostle.", "mister quilter is the apostle"),
        ("Don\u2019t - 'tis the dogs' 'rock'", "don't tis the dogs rock"),
        ("twenty-one\u2014or 21%?", "twenty one or 21"),
        ("\u00bfQue\u0301?", "qu\u00e9"),  # one form of the accent
        ("\u0939\u093f\u0928\u094d\u0926\u0940\u0964", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\u4f60\u597d\u3002", "\u4f60\u597d"),
        (" ' -- ' ", ""),
    ],
)
def test_the_normal_form(text: str, expected: str) -> None:
    assert normalise(text) == expected
    assert normalise(expected) == expected


def test_rates_are_of_the_corpus() -> None:
    # 1: "b" -> "x" and "d" is new; 2: "f" is lost. 3 errors per 3 + 2 words, not the mean of two.
    rates = error_rates(["a x c d", "e"], ["A, b c.", "e f"])
    expected = {"WER": 60.0, "substitutions": 20.0, "deletions": 20.0, "insertions": 20.0}
    assert {name: rates[name].corpus() for name in expected} == pytest.approx(expected)
    # Of "a b c" and "e f": 1 substitution and 2 new characters, 2 lost ones; 5 + 3 characters.
    assert rates["CER"].corpus() == pytest.approx(100 * 5 / 8)
    assert rates["WER"].values.tolist() == [[2, 3], [1, 2]] and not rates["WER"].is_mean


def test_empty_and_endless_predictions() -> None:
    assert error_rates(["", ""], ["a b", "c"])["WER"].corpus() == 100.0
    assert error_rates(["a b c d"], ["x"])["WER"].corpus() == 400.0
    assert error_rates(["A b!"], ["a, B"])["CER"].corpus() == 0.0


def test_the_three_kinds_make_up_the_whole() -> None:
    random_ = random.Random(3)
    texts = [
        [" ".join(random_.choices("abcde", k=random_.randint(1, 9))) for _ in range(50)]
        for _ in range(2)
    ]
    rates = error_rates(*texts)
    kinds = sum(rates[kind].values[:, 0] for kind in ("substitutions", "deletions", "insertions"))
    assert kinds.tolist() == rates["WER"].values[:, 0].tolist()
    distances = [_distance(a.split(), b.split()) for a, b in zip(*texts, strict=True)]
    assert kinds.tolist() == distances
    characters = [_distance(list(a), list(b)) for a, b in zip(*texts, strict=True)]
    assert rates["CER"].values[:, 0].tolist() == characters


def _distance(a: list[str], b: list[str]) -> int:
    """Levenshtein's, by the book."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        left, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, left + (x != y))
    return row[-1]


def test_what_has_no_rate_is_told() -> None:
    with pytest.raises(ValueError, match="2 predictions and 1 references"):
        error_rates(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 predictions"):
        error_rates([], [])


def test_without_jiwer_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(ValueError, match=r"pip install 'proactivellm\[speech\]'"):
        error_rates(["a"], ["a"])


def test_only_scoring_transcripts_needs_jiwer() -> None:
    code = (
        "import sys, proactivellm.metrics.score\n"
        "assert 'jiwer' not in sys.modules\n"
        "from proactivellm.metrics.transcripts import error_rates\n"
        "error_rates(['a'], ['a'])\n"
        "assert 'jiwer' in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_of_silence_only_insertions_count() -> None:
    rates = error_rates(["a x", "u v", ""], ["a b", "", "..."])
    assert rates["WER"].values.tolist() == [[1, 2], [2, 0], [0, 0]]
    assert rates["WER"].corpus() == pytest.approx(100 * 3 / 2)
    assert rates["insertions"].corpus() == pytest.approx(100 * 2 / 2)
    nothing = error_rates(["a", ""], ["", ""])
    assert nothing["WER"].corpus() is None and nothing["CER"].corpus() is None
    assert nothing["insertions"].values[:, 0].tolist() == [1, 0]


def test_characters_are_words_where_there_are_no_spaces() -> None:
    rates = error_rates(["今天 天气好", "用GPT写"], ["今天天气很好。", "用 GPT 写"])
    assert rates["WER"].values.tolist() == [[1, 6], [0, 3]]  # one of six characters is lost
    assert rates["CER"].values.tolist() == [[1, 6], [0, 5]]  # "用GPT写"
