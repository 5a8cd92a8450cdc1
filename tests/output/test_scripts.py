"""Scripts: which have no spaces between words, and how their texts are cut."""

import pytest

from proactivellm.output.scripts import apart, characters, is_unspaced, script_of, together


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("我昨天遇见了一个老朋友。", "Chinese"),
        ("我在 Google 工作了三年多的时间", "Chinese"),  # the names in it do not decide
        ("昨日は友達に会いました。", "Japanese"),
        ("カラオケ", "Japanese"),
        ("나는 어제 친구를 만났다.", "Korean"),
        ("เมื่อวานฉันพบเพื่อนเก่า", "South-East Asian"),
        ("ខ្ញុំបានជួបមិត្តចាស់", "South-East Asian"),
        ("The Chinese word 猫 means cat.", "spaced"),
        ("Он встретил старого друга.", "spaced"),
        ("12.5 %。", "spaced"),
        ("", "spaced"),
    ],
)
def test_the_script_of_most_letters(text: str, script: str) -> None:
    assert script_of([text]) == script
    assert is_unspaced([text]) == (script not in ("spaced", "Korean"))


def test_texts_count_together() -> None:
    assert script_of(["OK.", "Yes.", "今天天气非常好"]) == "Chinese"
    assert script_of(["Today is fine weather.", "今天"]) == "spaced"


def test_characters_and_words() -> None:
    assert characters(" ab\u3000c\n") == ["a", "b", "c"]
    assert apart("我用GPT-4写").split() == ["我", "用", "GPT-4", "写"]
    assert together("我 用 GPT 4 写") == "我用GPT 4写"
    assert apart("a b") == together("a b") == "a b"
