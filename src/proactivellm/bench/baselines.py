"""What one does with an unmodified causal LM and `generate`: re-encode the prefix, or wait.

In: a transformers model, source units and a prompt as token ids. Out: a `BaselineRun`, whose counts
are taken by a hook on the model's decoder. Every baseline is greedy, in a batch of one, writes
exactly the tokens asked for, and attends with PyTorch's fused kernel ("sdpa").
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from proactivellm.backbone.decoder import decoder_of
from proactivellm.backbone.prompt import PromptIds

ATTENTION = "sdpa"


@dataclass(frozen=True)
class BaselineRun:
    """One stream, written."""

    tokens: tuple[int, ...]  # the target, without its head
    forwards: int  # calls of the model's decoder
    fed: int  # tokens sent through it
    wall_s: float  # from the first read to the last token
    cpu_s: float  # processor time of all threads in between


class Meter:
    """Counts forwards and the tokens in them, and the time from when it was made until `stop`."""

    def __init__(self) -> None:
        self.forwards = 0
        self.fed = 0
        self._start = (time.perf_counter(), time.process_time())

    def count(self, num_tokens: int) -> None:
        """A forward of so many tokens has run."""
        self.forwards += 1
        self.fed += num_tokens

    def stop(self, tokens: Sequence[int]) -> BaselineRun:
        """The run that ends now, having written these tokens."""
        wall_s = time.perf_counter() - self._start[0]
        cpu_s = time.process_time() - self._start[1]
        return BaselineRun(tuple(tokens), self.forwards, self.fed, wall_s, cpu_s)


@contextmanager
def metered(model: PreTrainedModel) -> Iterator[Meter]:
    """Inference with fused attention, counted; the attention set before comes back at the end."""

    def hook(module: torch.nn.Module, args: object, output: Any) -> None:
        meter.count(output.last_hidden_state.shape[:2].numel())

    before = model.config._attn_implementation
    handle = decoder_of(model).register_forward_hook(hook)
    try:
        model.set_attn_implementation(ATTENTION)
        with torch.inference_mode():
            meter = Meter()  # last of all: its clock starts here
            yield meter
    finally:
        handle.remove()
        model.set_attn_implementation(before)


def reencode_prefix(
    model: PreTrainedModel,
    source: Sequence[Sequence[int]],
    prompt: PromptIds,
    num_tokens: int,
    k: int,
) -> BaselineRun:
    """Wait-k with nothing but `generate`: after every READ, all that is known is encoded again.

    The model sees one text, `source so far | target head | target so far`, at ordinary positions.
    A READ moves the target, so no cache outlives a call of `generate`, which writes one token; once
    the source is complete, one call writes the rest. `k` units are read before the first token.
    Raises a ValueError as `check_work`.
    """
    check_work(source, prompt, num_tokens, k)
    tokens: list[int] = []
    units_read = min(k, len(source))
    with metered(model) as meter:
        while len(tokens) < num_tokens:
            complete = units_read == len(source)
            text = [*_source_text(source[:units_read], prompt, complete), *prompt.target_head]
            count = num_tokens - len(tokens) if complete else 1
            tokens += _generate(model, [*text, *tokens], count)
            units_read = min(units_read + 1, len(source))
        return meter.stop(tokens)


def offline_generate(
    model: PreTrainedModel, source: Sequence[Sequence[int]], prompt: PromptIds, num_tokens: int
) -> BaselineRun:
    """The whole source, then `generate`: the least work a target of this length can take.

    The run has `num_tokens` forwards. Raises a ValueError as `check_work`.
    """
    check_work(source, prompt, num_tokens)
    text = [*_source_text(source, prompt, complete=True), *prompt.target_head]
    with metered(model) as meter:
        return meter.stop(_generate(model, text, num_tokens))


def check_work(
    source: Sequence[Sequence[int]], prompt: PromptIds, num_tokens: int, k: int = 1
) -> None:
    """Refuses a stream with nothing to read, to write, to start from or to wait for."""
    if not source or not all(len(unit) for unit in source):
        raise ValueError("a baseline needs a source: give at least one unit, each of some tokens")
    if not prompt.target_head:
        raise ValueError("the target needs a first token: give prompt.target_head one")
    if num_tokens < 1:
        raise ValueError(f"num_tokens={num_tokens}: give 1 or more")
    if k < 1:
        raise ValueError(f"wait-k needs k >= 1, got {k}")


def _source_text(units: Sequence[Sequence[int]], prompt: PromptIds, complete: bool) -> list[int]:
    tail = prompt.source_tail if complete else ()
    return [*prompt.source_head, *(token for unit in units for token in unit), *tail]


def _generate(model: PreTrainedModel, text: Sequence[int], count: int) -> list[int]:
    """Exactly this many tokens after a text, greedily; what the model recommends is overruled."""
    settings = GenerationConfig(
        min_new_tokens=count,  # no end of the target before
        max_new_tokens=count,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=0,  # asked for, never used in a batch of one
    )
    ids_1S = torch.tensor([list(text)], device=model.device)
    mask_1S = torch.ones_like(ids_1S)
    output_1S = model.generate(ids_1S, attention_mask=mask_1S, generation_config=settings)
    return output_1S[0, len(text) :].tolist()
