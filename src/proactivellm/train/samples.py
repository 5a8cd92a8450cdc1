"""Training samples: items -> token ids -> random concatenations -> packed views.

Everything random is a function of (seed, index), so that a resumed run sees what the first would.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numpy as np
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from proactivellm.backbone.prompt import PromptIds
from proactivellm.core import schedule
from proactivellm.core.layout import SOURCE, TARGET, Layout
from proactivellm.core.packing import Packed, Sample, View, Written, pack
from proactivellm.core.schedule import Schedule
from proactivellm.modality.base import Examples
from proactivellm.modality.kinds import kind_of_media
from proactivellm.modality.text import TextSegmenter
from proactivellm.output.detokenize import decision_points, word_starts
from proactivellm.tasks.item import Item, place_of, source_of, target_of
from proactivellm.train.actions import (
    actions,
    joined_delays,
    media_delays,
    set_actions,
    teach_silence,
    trace_of,
)
from proactivellm.train.schedules import ViewPlan, evaluation_schedules, sampled_schedule


def prompted(units: Sequence[Sequence[int]], tokens: Sequence[int], prompt: PromptIds) -> Sample:
    """The sample of a source, ids by unit, and of what is written for it, within a prompt."""
    read = [list(ids) for ids in units]
    read[-1] += prompt.source_tail
    written = {TARGET: Written(head=prompt.target_head, tokens=tokens)}
    return Sample(read={SOURCE: [prompt.source_head, *read]}, written=written)


class SampleEncoder:
    """Text -> `Sample`, with the segmentation of sessions; `end_token_id` closes the target."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompt: PromptIds, end_token_id: int
    ) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.end_token_id = end_token_id
        self.segmenter = TextSegmenter(tokenizer)
        self.starts = word_starts(tokenizer)

    @cached_property
    def decides(self) -> list[bool]:
        """By token id: may a policy decide on the token?"""
        return decision_points(self.tokenizer)

    def encode(
        self, source: str, target: str, further_units: Sequence[Sequence[int]] = ()
    ) -> Sample:
        """The sample of one item; its last unit includes the prompt's source tail.

        `further_units` are ids of source units that follow those of the text.
        """
        units = [list(ids) for ids in self.segmenter.unit_token_ids(source)]
        # A source of which the tokenizer keeps nothing is one empty unit: it must not end the run.
        units = [*units, *map(list, further_units)] or [[]]
        ids = self.tokenizer.encode(target, add_special_tokens=False, split_special_tokens=True)
        return prompted(units, [*ids, self.end_token_id], self.prompt)

    def encode_media(
        self, question: str, target: str, units: Sequence[Sequence[int]]
    ) -> tuple[Sample, int]:
        """The sample of units of media, and how many units stand before them.

        A question is in the prompt, where that has a place for it, else units of its own.
        """
        if not question.strip() or self.prompt.num_open is None:
            sample = self.encode(question, target, units)
            return sample, sample.num_units - max(len(units), 1)
        sample = self.encode("", target, units)
        opening = self.prompt.opening(self.segmenter.whole(question.strip()))
        _, *read = sample.read[SOURCE]
        return replace(sample, read={SOURCE: [opening, *read]}), 0

    def word_index(self, target: Sequence[int]) -> list[int]:
        """The word, from 0, that each target token belongs to, the end of stream left out."""
        index = -1
        words = []
        for token in target[:-1]:
            index += bool(self.starts[token]) or index < 0
            words.append(index)
        return words


class Encoder(Protocol):
    """Makes samples of items, and knows what can be written of them when."""

    def length(self, item: Item) -> float:
        """How long an item is, in any unit, so that those of a batch are alike."""

    def join(self, items: Sequence[Item], rng: np.random.Generator | None = None) -> Sample:
        """One sample of several items; `rng` is that of what is drawn for it, None = nothing.

        ValueError if there are items that it does not take.
        """

    def longest(self, items: Sequence[Item]) -> Sample:
        """The same at its longest, whatever is drawn, for its size."""

    def views(self, sample: Sample, plan: ViewPlan, rng: np.random.Generator) -> list[View]:
        """The views that are learnt from."""

    def watched(self, sample: Sample) -> Mapping[str, View]:
        """By name, the views of evaluation while a model trains."""


class ItemEncoder(Encoder):
    """Items -> `Sample`; without `media`, of texts only."""

    def __init__(self, text: SampleEncoder, media: Examples | None = None) -> None:
        self.text = text
        self.media = media

    def length(self, item: Item) -> float:
        media = self.media.length_per_s * (item.duration_s or 0.0) if self.media else 0.0
        return media + len(item.source) + 2 * len(item.target)

    def join(self, items: Sequence[Item], rng: np.random.Generator | None = None) -> Sample:
        """One sample of several items, one after the other; texts and media do not mix.

        Items of another kind than the first are left out. ValueError if the recipe has no front end
        for this kind.

        Args:
            rng: of the augmentation; None = none.
        """
        chosen, media = self._chosen(items)
        if media is None:
            return self._of_texts(chosen)
        example = media.read([item.media for item in chosen], rng)
        question = chosen[0].source
        target = "" if example.says_nothing else target_of(chosen)
        sample, before = self.text.encode_media(question, target, example.units)
        grids = dict(enumerate(example.grids, before + 1))
        # With a question, the target is an answer, and not what the features say.
        transcript = "" if question else target
        return replace(sample, features=example.features, transcript=transcript, grids=grids)

    def longest(self, items: Sequence[Item]) -> Sample:
        """The sample of several items at its longest, whatever augmentation draws, for its size.

        Without features; questions of items after the first are left out.
        """
        chosen, media = self._chosen(items)
        if media is None:
            return self._of_texts(chosen)
        units = media.longest([item.media for item in chosen])
        return self.text.encode_media(chosen[0].source, target_of(chosen), units)[0]

    def views(self, sample: Sample, plan: ViewPlan, rng: np.random.Generator) -> list[View]:
        length = len(sample.written[TARGET].tokens)
        g = [schedule.offline(sample.num_units, length)] if plan.full else []
        for _ in range(plan.num_partial):
            g.append(sampled_schedule(sample, self.text, plan, rng))
        return [{TARGET: each} for each in g]

    def watched(self, sample: Sample) -> Mapping[str, View]:
        schedules = evaluation_schedules(sample, self.text)
        return {name: {TARGET: g} for name, g in schedules.items()}

    def due(self, items: Sequence[Item], sample: Sample) -> Schedule:
        """Units that each token of the target of a sample of these items waits for.

        ValueError as `media_delays`.
        """
        chosen, media = self._chosen(items)
        units = sample.read[SOURCE][1:]
        delays = media_delays(chosen, media, units) if media else joined_delays(chosen)
        return trace_of(delays, sample.written[TARGET].tokens, self.text.tokenizer)

    def actions(self, plan: ViewPlan, sample: Sample, views: Sequence[View]) -> list[list[int]]:
        """What the control token is to learn in each view, by target token."""
        target, text = sample.written[TARGET].tokens, self.text
        trace = sample.due if plan.control == "data" else None
        by_token = plan.boundary == "token"
        decides = [by_token or not t or text.decides[id_] for t, id_ in enumerate(target[:-1])]
        ends = [*decides, True]  # the end of stream is decided on as a word
        return [actions(view[TARGET], trace, ends, sample.num_units) for view in views]

    def _chosen(self, items: Sequence[Item]) -> tuple[list[Item], Examples | None]:
        """The items of the first one's kind, and what reads them; None of texts."""
        if not items[0].media:
            return [item for item in items if not item.media], None
        kind = kind_of_media(items[0].media)
        if self.media is None or self.media.kind != kind:
            raise ValueError(f"there is {kind} among the items: give the recipe [{kind}]")
        return [item for item in items if item.media], self.media

    def _of_texts(self, items: Sequence[Item]) -> Sample:
        return self.text.encode(source_of(items), target_of(items))


def concatenation_plan(
    lengths: Sequence[float],
    concat: tuple[int, int],
    epochs: int,
    batch_size: int,
    seed: int,
    fits: Callable[[tuple[int, ...]], bool] = lambda sample: True,
) -> list[tuple[int, ...]]:
    """Which items make up each sample, in training order: a tuple of item indices per sample.

    Every item occurs once an epoch, in a run of random neighbours. Samples of similar length stand
    together so that batches need little padding, and batches are shuffled. The samples of an epoch
    that do not fill a batch are left out of it.

    Args:
        lengths: of each item, in any unit.
        concat: least and most items in a sample.
        fits: whether a sample is to be taken.
    """
    rng = np.random.default_rng(seed)
    size = np.asarray(lengths)
    plan: list[tuple[int, ...]] = []
    for _ in range(epochs):
        order = rng.permutation(len(lengths))
        counts = rng.integers(concat[0], concat[1] + 1, size=len(order))
        edges = np.concatenate([[0], np.cumsum(counts)])
        edges = np.append(edges[edges < len(order)], len(order))
        samples = [
            tuple(int(i) for i in order[a:b]) for a, b in zip(edges, edges[1:], strict=False)
        ]
        samples = [sample for sample in samples if fits(sample)]
        block = 50 * batch_size
        for start in range(0, len(samples), block):
            chunk = sorted(samples[start : start + block], key=lambda s: float(size[list(s)].sum()))
            batches = [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
            full = [batch for batch in batches if len(batch) == batch_size]
            rng.shuffle(full)  # type: ignore[arg-type]
            plan += [s for batch in full for s in batch]
    return plan


class PackedDataset(Dataset[Packed]):
    """Concatenated, packed samples; sample i is a function of (seed, i).

    Args:
        plan: item indices per sample.
    """

    def __init__(
        self,
        items: Sequence[Item],
        plan: Sequence[tuple[int, ...]],
        encoder: Encoder,
        views: ViewPlan,
        layout: Layout,
        seed: int,
    ) -> None:
        self.items = items
        self.plan = plan
        self.encoder = encoder
        self.views = views
        self.layout = layout
        self.seed = seed

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Packed:
        rng = np.random.default_rng([self.seed, index])
        items = [self.items[i] for i in self.plan[index]]
        sample = self.encoder.join(items, rng)
        if self.views.follows_traces:
            assert isinstance(self.encoder, ItemEncoder)  # whatever thinks decides by counts
            sample = replace(sample, due=self.encoder.due(items, sample))
        views = self.encoder.views(sample, self.views, rng)
        packed = pack(sample, views, self.layout)
        packed.index = index
        if self.views.silent_until_due:
            assert sample.due is not None
            teach_silence(packed, sample.due, [view[TARGET] for view in views])
        if self.views.control:
            assert isinstance(self.encoder, ItemEncoder)
            set_actions(packed, self.encoder.actions(self.views, sample, views))
        return packed

    def place(self, index: int) -> str:
        """Files and lines in which the items of a sample were read, for a message."""
        return place_of([self.items[i] for i in self.plan[index]], f"sample {index}")
