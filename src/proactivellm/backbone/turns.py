"""What stands between the turns of a chat: how a conversation goes on, by the chat template."""

import os

from transformers import PreTrainedTokenizerBase

from proactivellm.backbone.prompt import SOURCE_MARK, Prompt, render_chat

_ANSWER_MARK, _NEXT_MARK = "<<<answer>>>", "<<<next>>>"
_NO_CHAT = "a conversation needs a model whose prompt is that of its chat template"


def between_turns(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """What stands between an answer and the next source, by the chat template: the head of that.

    The end of the answer's turn is part of it, and an instruction that `prompt` puts before its
    source. What opens the chat need not be that of the template: some hold the date.

    Raises:
        ValueError: the prompt is not that of the chat template, or the template shows a turn that
            is over in another way than it began.
    """
    if not tokenizer.chat_template:
        raise ValueError(_NO_CHAT)
    closing = (prompt.source_tail + prompt.target_head).rstrip()
    head, _, between = _turns(tokenizer, "")
    opening = prompt.source_head[: len(head)]
    if opening != head:
        opening = os.path.commonprefix([head[::-1], between[::-1]])[::-1]  # of a user's turn
    _, found, instruction = prompt.source_head.rpartition(opening)
    if not found:
        raise ValueError(_NO_CHAT)
    head, after, between = _turns(tokenizer, instruction)
    # An answer may begin with a space in the template, as its first word does here.
    if after.rstrip() != closing or not head.endswith(instruction):
        raise ValueError(_NO_CHAT)
    return between


def _turns(tokenizer: PreTrainedTokenizerBase, instruction: str) -> tuple[str, str, str]:
    """What stands before a source, between it and its answer, and before the next source."""
    messages = [
        {"role": "user", "content": instruction + SOURCE_MARK},
        {"role": "assistant", "content": _ANSWER_MARK},
        {"role": "user", "content": instruction + _NEXT_MARK},
    ]
    _, whole = render_chat(tokenizer, messages)
    parts = _split(whole, [SOURCE_MARK, _ANSWER_MARK, _NEXT_MARK])
    if len(parts) != 4 or parts[1].rstrip() != parts[3].rstrip():
        raise ValueError(
            "the chat template changes turns that are over, so that a conversation cannot go on "
            "from what was read and written"
        )
    return parts[0], parts[1], parts[2]


def _split(text: str, marks: list[str]) -> list[str]:
    """What stands around marks that come in this order; less where they do not."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            break
        parts.append(before)
    return [*parts, text]
