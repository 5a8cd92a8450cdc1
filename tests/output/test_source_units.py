"""What the units of a source are: the same for whole texts and for what arrives piece by piece."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proactivellm.output.sentences import cut_sentences, places_in
from proactivellm.output.source_units import (
    SourceUnit,
    arrived_units,
    joined,
    joined_texts,
    pieces_of,
    source_units,
    words_with_space,
)

CASES = {
    "他说：“我用GPT-4o。”然后 走了！！！": "他|说|：“|我|用|GPT-4o|。”|然|后| 走|了|！！！",
    "GPT。很好，John’s书": "GPT。|很|好|，|John’s|书",
    "使用 GPT 的人": "使|用| GPT| 的|人",
    "ジョンはテニスをする": "ジ|ョ|ン|は|テ|ニ|ス|を|す|る",
    "ผมใช้GPTน้ำ": "ผ|ม|ใ|ช้|GPT|น้ำ",
    "ភាសាខ្មែរ": "ភា|សា|ខ្មែ|រ",
    "བོད་ཡིག།": "བོ|ད་|ཡི|ག།",
    "မြန်မာ။": "မြ|န်|မာ။",
    "「이것」은 좋다。": "「이것」은| 좋다。",
    "Der Hund, «größer»!": "Der| Hund,| «größer»!",
}


@pytest.mark.parametrize(("text", "cut"), CASES.items())
def test_the_units_of_a_text(text: str, cut: str) -> None:
    units = source_units(text)
    assert [f"{'' if u.glued or not i else ' '}{u.text}" for i, u in enumerate(units)] == cut.split(
        "|"
    )
    assert joined(units) == text
    assert "".join(pieces_of(text)) == f"{text} "


@given(
    text=st.text(alphabet=st.sampled_from("ab我か。」”กั้ស្\u200d .\u3000"), max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=6),
)
def test_pieces_give_the_units_of_the_whole(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    units, rest = [], SourceUnit("")
    for start, end in zip(edges, edges[1:], strict=False):
        complete, rest = arrived_units(rest.text + text[start:end], rest.glued)
        units += complete
    units += [rest] if rest.text else []
    assert units == source_units(text)
    assert "".join(unit.text for unit in units) == "".join(text.split())


@pytest.mark.parametrize(
    "text", ["ก" + 99 * "้", "我" + 99 * "！", "我" + 50 * "。”" + "b", "ស" + 50 * "្ស"]
)
def test_no_unit_takes_in_marks_without_end(text: str) -> None:
    """Each would be cut anew with every character that arrives."""
    units, rest = [], SourceUnit("")
    for character in text:
        complete, rest = arrived_units(rest.text + character, rest.glued)
        units += complete
    assert [*units, rest] == source_units(text)
    assert max(len(unit.text) for unit in units) in (32, 63)


@given(st.text(alphabet=st.characters(max_codepoint=0x2FF)))
def test_texts_of_spaced_scripts_are_cut_as_by_split(text: str) -> None:
    assert source_units(text) == [SourceUnit(word) for word in text.split()]


def test_full_width_marks_end_sentences_and_their_quotes_stay() -> None:
    text = "他说：“好！！”我用GPT。真的？ 是。"
    assert cut_sentences(text) == ["他说：“好！！”", "我用GPT。", "真的？", "是。"]


def test_a_text_ends_in_the_unit_that_holds_its_last_character() -> None:
    units = cut_sentences("甲。乙 丙。")
    assert units == ["甲。", "乙 丙。"] and places_in(["甲。乙", "丙。"], units) == [1, 1]


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["我很好。", "你呢？", "我也好"], "我很好。你呢？我也好"),
        (["他说：“好。”", "“是吗？”"], "他说：“好。”“是吗？”"),
        (["我爱你!", "我也是"], "我爱你!我也是"),
        (["Tom哭了。", "Mary不哭。"], "Tom哭了。Mary不哭。"),
        (["我用ABC", "DEF也好用"], "我用ABC DEF也好用"),
        (["昨日は。", "今日は。"], "昨日は。今日は。"),
        (["나는 간다。", "그래。"], "나는 간다。 그래。"),
        (["ฉันไป", "เขามา"], "ฉันไป เขามา"),  # Thai has a space between sentences
        (["Der Hund.", "", "Die Katze."], "Der Hund. Die Katze."),
        (["It means 猫", "犬 is what?"], "It means 猫 犬 is what?"),
        ([], ""),
    ],
)
def test_texts_follow_each_other_as_they_are_written(texts: list[str], whole: str) -> None:
    assert joined_texts(texts) == whole


def test_words_with_the_space_before_them() -> None:
    assert words_with_space("et an  x ") == ["et", " an", "  x", " "]
    assert words_with_space(" 今天。I am") == [" 今", "天", "。", "I", " am"]
    assert words_with_space("") == []
