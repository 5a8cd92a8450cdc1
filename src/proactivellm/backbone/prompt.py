"""How a model is addressed: the texts around source and target, and the settings saved beside it.

The prompt (system text, instruction) opens the source group, what closes the user turn ends it,
the assistant prefix opens the target group.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from transformers import PreTrainedTokenizerBase

from proactivellm.backbone.folder import read_object, refusing
from proactivellm.backbone.thinking import Thinking
from proactivellm.core.layout import LAYOUTS, THOUGHT, Layout, make_layout
from proactivellm.files.replace import write_text
from proactivellm.files.toml import Strict, validated

SETTINGS_FILE = "streaming.json"
SOURCE_MARK = "<<<source>>>"  # stands for the source where a chat template is tried
_TEMPLATE_S = 5.0  # that a chat template may take


class Prompt(Strict):
    """The fixed texts of a stream; special tokens in them are control tokens."""

    source_head: str = ""
    source_tail: str = ""
    target_head: str = ""  # the assistant prefix; if empty, the tokenizer's BOS (or EOS) token
    # Follows `source_head`, and a question that is asked before a source of media, maybe nothing;
    # None: the prompt has no place for one.
    source_open: str | None = None

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of most models as notes of earlier runs have it, which are compared."""
        kept: dict[str, Any] = dump(self)
        return {k: text for k, text in kept.items() if text is not None}


class PromptIds(Strict):
    """Token ids of a prompt; `source_tail` arrives with the final unit, `target_head` is not
    empty.
    """

    source_head: tuple[int, ...]
    source_tail: tuple[int, ...]
    target_head: tuple[int, ...]
    # Last ids of `source_head`, which follow a question; None: there is no place for one of media.
    num_open: int | None = None

    def opening(self, question: Sequence[int]) -> list[int]:
        """What opens a source after a question."""
        place = len(self.source_head) - (self.num_open or 0)
        return [*self.source_head[:place], *question, *self.source_head[place:]]


class StreamSettings(Strict):
    """Everything a model folder says about streaming (file `streaming.json`).

    Attributes:
        layout: name of a layout (`core/layout.py`).
        phi: added to the positions of what is written: its first one, if it has its own counter.
        boundary: where decisions are taken.
        early_end: whether the target may end before the source does, as an answer may; otherwise a
            source not finished never ends the target.
        read_token: the control token whose probability the policy `control` looks at; it is never
            written, and never part of a text. None: the model was not trained with one.
    """

    layout: str = "grouped"
    phi: int = Field(default=0, ge=0, lt=2**31)
    boundary: Literal["word", "token"] = "word"
    early_end: bool = False
    prompt: Prompt = Prompt()
    read_token: str | None = None
    thinking: Thinking | None = None

    @field_validator("layout")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return make_layout(name).name
        except ValueError:
            raise ValueError(f"give one of {', '.join(LAYOUTS)}") from None

    @model_validator(mode="after")
    def _thinks_in_thoughts(self) -> Self:
        self._check_thoughts()
        return self

    def _check_thoughts(self) -> None:
        if self.thinking is not None and THOUGHT not in self.make_layout().groups:
            having = ", ".join(name for name, made in LAYOUTS.items() if THOUGHT in made().groups)
            raise ValueError(
                f"the model thinks, and the layout {self.layout} has no thoughts: give one of "
                f"{having}"
            )

    @model_serializer(mode="wrap")
    def _without_no_token(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of a model without control tokens as notes of earlier runs have it, which are
        compared.
        """
        kept: dict[str, Any] = dump(self)
        for name in ("read_token", "thinking"):
            if kept.get(name) is None:
                kept.pop(name, None)
        return kept

    def make_layout(self) -> Layout:
        """The layout these settings name."""
        return make_layout(self.layout, self.phi)

    def prompt_ids(self, tokenizer: PreTrainedTokenizerBase) -> PromptIds:
        """The prompt as this layout feeds it; ValueError as `encode_prompt`."""
        ids = encode_prompt(tokenizer, self.prompt)
        if not self.make_layout().reencoded:
            return ids
        # Fed again with the target, the closing text need not wait for the end of the source: every
        # forward is over a text that is closed, as the model has always seen it.
        head = (*ids.source_tail, *ids.target_head)
        return ids.model_copy(update={"source_tail": (), "target_head": head})

    def with_layout(self, name: str | None) -> Self:
        """The same, or under another layout with phi 0.

        ValueError if it is unknown, or has no thoughts and the model thinks.
        """
        if name is None:
            return self
        other = self.model_copy(update={"layout": make_layout(name).name, "phi": 0})
        other._check_thoughts()
        return other

    def save(self, folder: str | Path) -> None:
        """Write `streaming.json`."""
        text = json.dumps(self.model_dump(), indent=2, ensure_ascii=False)
        write_text(Path(folder) / SETTINGS_FILE, text + "\n")


def token_id_of(tokenizer: PreTrainedTokenizerBase, token: str | None) -> int | None:
    """The id of the settings' `read_token`; ValueError where the tokenizer has no such token."""
    if token is None:
        return None
    token_id = tokenizer.get_vocab().get(token)
    if token_id is None:
        raise ValueError(
            f"{SETTINGS_FILE} names the read_token {token!r}, which the tokenizer has not: it is "
            "the tokenizer of another model, or the setting has to go"
        )
    return int(token_id)


def load_settings(folder: str | Path) -> StreamSettings | None:
    """Read `streaming.json`; None where there is none, ValueError with a line per mistake in it."""
    path = Path(folder) / SETTINGS_FILE
    if not path.is_file():
        return None
    return validated(read_object(path), StreamSettings, str(path))


def chat_prompt(
    tokenizer: PreTrainedTokenizerBase,
    instruction: str = "",
    options: Mapping[str, Any] | None = None,
) -> Prompt:
    """Split a tokenizer's chat template around the source text.

    The instruction stands before the source in the user turn; the target head is the template's
    generation prompt. `options` are variables of the template.

    ValueError if there is no chat template, it is broken, or it changes or repeats the user's text.
    """
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template; give the prompt as raw text")
    messages = [{"role": "user", "content": instruction + SOURCE_MARK}]
    turns, whole = render_chat(tokenizer, messages, options)
    if turns.count(SOURCE_MARK) != 1 or not whole.startswith(turns):
        raise ValueError(
            "the chat template does not keep the user's text in one place: give the prompt as raw "
            f"text in {SETTINGS_FILE}"
        )
    head, tail = turns.split(SOURCE_MARK)
    return Prompt(source_head=head, source_tail=tail, target_head=whole[len(turns) :])


def render_chat(
    template: Any, messages: list[dict[str, Any]], options: Mapping[str, Any] | None = None
) -> tuple[str, str]:
    """A chat without and with the beginning of the answer; ValueError if a template is broken."""
    variables = dict(options or {})

    # A template is a program of whoever made the folder: kept from everything outside by the
    # sandbox of transformers, but free to raise what it likes, or to go round in circles.
    with refusing("the chat template cannot be used"), _ending_within(_TEMPLATE_S):
        turns = template.apply_chat_template(messages, tokenize=False, **variables)
        whole = template.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **variables
        )
    return str(turns), str(whole)


@contextmanager
def _ending_within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in Python code of this thread that takes longer."""
    latest_s = time.monotonic() + seconds

    def watch(*_: Any) -> Any:
        if time.monotonic() > latest_s:
            raise TimeoutError(f"it has not ended within {seconds:g} s")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> PromptIds:
    """Token ids of a prompt; an empty target head falls back to BOS, then EOS, else ValueError."""

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False)) if text else ()

    head = ids(prompt.target_head)
    if not head:
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        if start is None:
            raise ValueError(
                "the target needs a first token: set prompt.target_head, or use a tokenizer with a "
                "BOS or EOS token"
            )
        head = (start,)
    source_open = ids(prompt.source_open or "")
    return PromptIds(
        source_head=(*ids(prompt.source_head), *source_open),
        source_tail=ids(prompt.source_tail),
        target_head=head,
        num_open=None if prompt.source_open is None else len(source_open),
    )
