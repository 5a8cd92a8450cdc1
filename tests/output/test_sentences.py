"""Where a text ends a sentence."""

import pytest

from proactivellm.output.sentences import ends_sentence


@pytest.mark.parametrize(
    "text",
    [
        "Ja.",
        "Wo?",
        "Halt!",
        "Dr.",
        ".",
        "wait...",
        "…",
        "„Ja.“",
        "(so.)",
        '"No!"\'',
        "好。",
        "吗？」",
    ]
    + ["है।", "قال۔", "لماذا؟", "ነው።", " done. "],
)
def test_a_mark_and_closing_quotes_end_a_sentence(text):
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["Ja", "Ja,", "3.5", "so:", "a.b", "well;", "好，"])
def test_others_do_not(text):
    assert not ends_sentence(text)


@pytest.mark.parametrize("text", ["", " ", "”", '")'])
def test_closing_marks_alone_leave_it_as_it_was(text):
    assert ends_sentence(text, before=True) and not ends_sentence(text, before=False)
