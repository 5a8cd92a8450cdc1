"""What the laws are stated with: random streams, forced targets, and the one masked forward.

A `Recorder` is a `StreamingCausalLM` that keeps the logits of every probe; where a target is
forced, the session sees a distribution with that one token in it, so that nothing of the session
is replaced.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tests import two_groups
from torch import Tensor

from proactivellm.backbone.prompt import Prompt, PromptIds, StreamSettings
from proactivellm.core import schedule
from proactivellm.core.layout import TARGET, Layout
from proactivellm.core.packing import Sample, pack
from proactivellm.core.schedule import Schedule
from proactivellm.core.unit import Unit
from proactivellm.forward.attention import ATTENTION
from proactivellm.forward.cache import ArrivalCache
from proactivellm.forward.causal_lm import LaneInput, StepOutput, StreamingCausalLM
from proactivellm.modality import loading
from proactivellm.policy.fixed import WaitK
from proactivellm.session.session import Session
from proactivellm.train.block_attention import PACKED_ATTENTION, register
from proactivellm.train.views import collate, packed_output, view_rows

TOLERANCE = 1e-4  # of the largest logit
END = 2  # <|end|> of tests.tokenizers
MAX_TOKENS = 12  # random models seldom end by themselves
FIRST_TEXT_ID = 4  # smaller ids are control tokens
PROMPT = Prompt(source_head="<s>:", source_tail="<|end|>.", target_head="<s>=")
NO_PROMPT = Prompt()


class Recorder(StreamingCausalLM):
    """Keeps the logits of every probe; forces targets where told to.

    `forced[lane]` is the target wanted there. `logits[lane, t]` are those of the latest probe for
    target token t, `num_probes` counts all of them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.forced: dict[int, Sequence[int]] = {}
        self.logits: dict[tuple[int, int], Tensor] = {}
        self.num_probes = 0

    def step(
        self, cache: ArrivalCache, inputs: Sequence[LaneInput], attention: bool = False
    ) -> StepOutput | None:
        output = super().step(cache, inputs, attention)
        if output is None:
            return None
        logits_PV = output.logits_PV.clone()
        for row, lane in enumerate([lane for lane in inputs if lane.probe is not None]):
            t = lane.counts[TARGET] + lane.added[TARGET] - len(self.prompt.target_head)
            self.logits[lane.lane, t] = output.logits_PV[row]
            self.num_probes += 1
            if lane.lane in self.forced:
                logits_PV[row] = -torch.inf
                logits_PV[row, self.forced[lane.lane][t]] = 0.0
        return replace(output, logits_PV=logits_PV)

    def recorded(self, num_target: int, lane: int = 0) -> Tensor:
        """Logits [N, V] of the target tokens of a lane."""
        return torch.stack([self.logits[lane, t] for t in range(num_target)])


def load(
    folder: Path,
    prompt: Prompt = PROMPT,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = torch.float32,
    quantization: str = "none",
    **settings: Any,
) -> Recorder:
    """The model of a folder, with these settings; its targets end after MAX_TOKENS tokens.

    A folder is read, and checked against the law, once; each model is a copy that may be changed.
    """
    loaded = _load(folder, device, dtype, quantization)
    model = Recorder(
        copy.deepcopy(loaded.model), loaded.tokenizer, StreamSettings(prompt=prompt, **settings)
    )
    assert model.model.generation_config is not None
    model.model.generation_config.max_new_tokens = MAX_TOKENS
    return model


@functools.cache
def _load(
    folder: Path, device: str, dtype: torch.dtype | None, quantization: str
) -> StreamingCausalLM:
    return loading.load(
        folder,
        settings=StreamSettings(prompt=PROMPT),
        device=device,
        dtype=dtype,
        quantization=quantization,
    )


def random_ids(count: int, vocab_size: int, seed: int) -> list[int]:
    """Ids of text tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(FIRST_TEXT_ID, vocab_size, (count,), generator=generator).tolist()


def random_units(count: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Units of 1 to 3 tokens."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 4, (count,), generator=generator).tolist()
    ids = iter(random_ids(sum(sizes), vocab_size, seed + 1))
    return [[next(ids) for _ in range(size)] for size in sizes]


def as_units(source: Sequence[Sequence[int]], final: bool = True) -> list[Unit]:
    """Token ids as units, the last one final."""
    last = len(source) - 1
    return [Unit(token_ids=tuple(u), final=final and i == last) for i, u in enumerate(source)]


def chunks(units: Sequence[Unit], size: int | None) -> Iterator[Sequence[Unit]]:
    """The units in pushes of this size; None = all at once."""
    size = size or len(units) or 1
    for start in range(0, len(units), size):
        yield units[start : start + size]


def feed(session: Session, units: Sequence[Unit], size: int | None) -> Session:
    """Push all units, `size` at a time."""
    for chunk in chunks(units, size):
        session.push(chunk)
    return session


def sample_of(
    prompt: PromptIds,
    source: Sequence[Sequence[int]],
    target: Sequence[int],
    own_tail: bool = False,
) -> Sample:
    """The training sample of a stream; `own_tail` makes the closing text a unit of its own."""
    units = [list(prompt.source_head), *map(list, source)]
    if own_tail:
        units.append([])
    units[-1] += prompt.source_tail
    return two_groups.sample_of(units, prompt.target_head, target)


def masked_logits(
    model: StreamingCausalLM, sample: Sample, schedules: Sequence[Schedule]
) -> Tensor:
    """Logits [W, N, V] of one masked forward over all views, with the attention of training."""
    batch = collate([pack(sample, two_groups.views_of(schedules), model.layout)])
    return masked_logits_of(model, batch, model.layout)


def masked_logits_of(model: StreamingCausalLM, batch: dict[str, Tensor], layout: Layout) -> Tensor:
    """Logits [W, N, V] of the rows of a packed batch that predict, group after group."""
    batch = {name: column.to(model.device) for name, column in batch.items()}
    register()
    model.model.set_attn_implementation(PACKED_ATTENTION)
    try:
        with torch.inference_mode():
            hidden_BSD = packed_output(model.model, batch, layout, model.windows).last_hidden_state
            return model.parts.project(view_rows(hidden_BSD, batch)[0])
    finally:
        model.model.set_attn_implementation(ATTENTION)


def law_logits(model: StreamingCausalLM, sample: Sample, g: Schedule) -> Tensor:
    """Logits [N, V] that a stream under g has to have: of one masked forward.

    Under a layout that encodes anew at each READ, a token is predicted by a forward of its own.
    """
    if not model.layout.reencoded:
        return masked_logits(model, sample, [g])[0]
    by_units = {units: masked_logits(model, sample, [[units] * len(g)])[0] for units in set(g)}
    return torch.stack([by_units[units][t] for t, units in enumerate(g)])


def gap(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, as a share of the largest logit."""
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


def law_gap(
    model: Recorder, source: Sequence[Sequence[int]], target: Sequence[int], k: int
) -> float:
    """How far a session under wait-k is from one masked forward under its schedule."""
    model.forced = {0: target}
    feed(Session(model, WaitK(k=k)), as_units(source), 2)
    g = schedule.wait_k(k, len(source), len(target))
    expected = masked_logits(model, sample_of(model.prompt, source, target), [g])[0]
    return gap(model.recorded(len(target)), expected)
