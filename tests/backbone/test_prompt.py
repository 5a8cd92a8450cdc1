"""Prompts: chat templates split around the source, ids, and the settings file of a model folder."""

import sys

import pytest
from tests.models import CHAT_TEMPLATE
from tests.tokenizers import build
from transformers import PreTrainedTokenizerFast

from proactivellm.backbone.prompt import (
    SETTINGS_FILE,
    Prompt,
    PromptIds,
    StreamSettings,
    chat_prompt,
    encode_prompt,
    load_settings,
)
from proactivellm.backbone.turns import between_turns
from proactivellm.core.layout import grouped, interleaved


def with_template(template: str | None) -> PreTrainedTokenizerFast:
    backend = build("byte_level").backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|end|>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def test_chat_template_is_split_around_the_source():
    prompt = chat_prompt(with_template(CHAT_TEMPLATE), instruction="To English: ")
    assert prompt == Prompt(
        source_head="<s>user\nTo English: ",
        source_tail="<|end|>\n",
        target_head="<s>assistant\n",
    )
    assert chat_prompt(with_template(CHAT_TEMPLATE)).source_head == "<s>user\n"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template; give the prompt as raw text"),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", "one place"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "one place"),
        ("{{ add_generation_prompt }}{{ messages[0]['content'] }}", "one place"),
    ],
)
def test_templates_that_cannot_be_split_are_refused(template, message):
    with pytest.raises(ValueError, match=message):
        chat_prompt(with_template(template))


def test_a_template_that_does_not_end_is_refused(monkeypatch):
    monkeypatch.setattr("proactivellm.backbone.prompt._TEMPLATE_S", 0.2)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    before = sys.gettrace()
    with pytest.raises(
        ValueError, match=r"^the chat template cannot be used: it has not ended with"
    ):
        chat_prompt(with_template(endless))
    assert sys.gettrace() is before


def test_what_stands_between_turns():
    tokenizer = with_template(CHAT_TEMPLATE)
    prompt = chat_prompt(tokenizer, "To English: ")
    assert between_turns(tokenizer, prompt) == "<|end|>\n<s>user\nTo English: "
    dated = prompt.model_copy(update={"source_head": f"<s>It is May.{prompt.source_head}"})
    assert between_turns(tokenizer, dated) == "<|end|>\n<s>user\nTo English: "
    for other in (Prompt(source_head="Translate: "), dated.model_copy(update={"target_head": "="})):
        with pytest.raises(ValueError, match="whose prompt is that of its chat template"):
            between_turns(tokenizer, other)
    with pytest.raises(ValueError, match="whose prompt is that of its chat template"):
        between_turns(with_template(None), Prompt())
    last_only = "<s>{{ messages[-1]['content'] }}{% if add_generation_prompt %}<s>{% endif %}"
    tokenizer = with_template(last_only)
    with pytest.raises(ValueError, match="changes turns that are over"):
        between_turns(tokenizer, chat_prompt(tokenizer))


def test_prompt_ids_hold_control_tokens():
    tokenizer = build("byte_level")
    ids = encode_prompt(tokenizer, Prompt(source_head="<s>der", target_head="<s>", source_tail=""))
    assert ids.source_head[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids.source_head[1:]) == "der"
    assert ids.source_tail == ()
    assert ids.target_head == (tokenizer.bos_token_id,)


def test_an_empty_target_head_is_bos_then_eos():
    tokenizer = with_template(None)
    empty = PromptIds(source_head=(), source_tail=(), target_head=(tokenizer.bos_token_id,))
    assert encode_prompt(tokenizer, Prompt()) == empty
    tokenizer.bos_token = None
    assert encode_prompt(tokenizer, Prompt()).target_head == (tokenizer.eos_token_id,)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="set prompt.target_head"):
        encode_prompt(tokenizer, Prompt())


def test_settings_come_back_as_they_were_saved(tmp_path):
    prompt = Prompt(source_head="Übersetze:\n", source_tail="<|end|>", target_head="→")
    settings = StreamSettings(layout="interleaved", phi=8, boundary="token", prompt=prompt)
    settings.save(tmp_path)
    assert load_settings(tmp_path) == settings
    assert settings.make_layout() == interleaved(8)
    assert StreamSettings().make_layout() == grouped()


def test_a_folder_may_have_no_settings(tmp_path):
    assert load_settings(tmp_path) is None


@pytest.mark.parametrize("content", [b"{", b'{"layuot": "grouped"}', b'{"phi": -1}', b"\xff"])
def test_malformed_settings_are_named_on_one_line(tmp_path, content):
    (tmp_path / SETTINGS_FILE).write_bytes(content)
    with pytest.raises(ValueError, match="streaming.json") as caught:
        load_settings(tmp_path)
    assert "\n" not in str(caught.value)
