"""Samples of a model that thinks while it reads: sentences, a thought for each, stages, the answer.

The source is cut as sessions cut it (`SentenceSegmenter`), whatever sentences it was written in, so
that training and streaming see the same units. What closes the source is a unit of its own: the
last sentence is thought about before it is known to be the last.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from proactivellm.backbone.prompt import PromptIds
from proactivellm.backbone.thinking import ThinkingIds
from proactivellm.core.layout import SOURCE, TARGET, THOUGHT
from proactivellm.core.packing import Sample, View, Written
from proactivellm.modality.sentences import SentenceSegmenter
from proactivellm.output.sentences import places_in
from proactivellm.output.source_units import joined_texts
from proactivellm.policy.base import Policy
from proactivellm.policy.fixed import Offline, WaitK
from proactivellm.tasks.item import Item
from proactivellm.tasks.reasoning.problem import Problem
from proactivellm.train.samples import Encoder
from proactivellm.train.schedules import ViewPlan
from proactivellm.train.thinking_table import ThinkingTable


class ThoughtEncoder:
    """Text -> `Sample` with the groups source, thought and target.

    Args:
        end_token_id: closes the answer.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: PromptIds,
        thinking: ThinkingIds,
        end_token_id: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.thinking = thinking
        self.end_token_id = end_token_id
        self._segmenter = SentenceSegmenter(tokenizer)

    def encode(
        self,
        question: str,
        sentences: Sequence[str],
        thoughts: Sequence[str],
        stages: Sequence[str],
        answer: str,
    ) -> Sample:
        """The sample of one problem.

        A thought belongs to the unit in which its sentence ends; those of one unit are joined.

        Args:
            question: read before the sentences; may be empty.
            thoughts: one for each sentence; an empty one is skipped.
            stages: the deep ones, at most as many as the model has; an empty one is left out.

        Raises:
            ValueError: if there are not as many thoughts as sentences, no sentence at all, or more
                stages than the model has.
        """
        if len(sentences) != len(thoughts):
            raise ValueError(f"{len(sentences)} sentences have {len(thoughts)} thoughts: give each")
        segmenter = self._segmenter.clone()
        segmenter_opening = segmenter.ask(question)
        units = [unit for unit in segmenter.segment(joined_texts(sentences)) if not unit.is_end]
        if not units:
            raise ValueError("the source has no sentence: there is nothing to think about")
        about = _aligned(thoughts, sentences, [unit.text for unit in units])
        opening = [*self.prompt.source_head, *segmenter_opening]
        return self.assemble(opening, [[*u.token_ids] for u in units], about, stages, answer)

    def assemble(
        self,
        opening: Sequence[int],
        units: Sequence[Sequence[int]],
        thoughts: Sequence[str],
        stages: Sequence[str],
        answer: str,
    ) -> Sample:
        """The sample of units that are there, ids of each; one thought about each of them.

        `opening` are ids before the units. The rest as for `encode`, with the same errors.
        """
        if len(stages) > len(self.thinking.stages):
            raise ValueError(
                f"{len(stages)} deep stages, and the model has {len(self.thinking.stages)}"
            )
        tokens = [token for thought in thoughts for token in self._thought(thought)]
        for opener, stage in zip(self.thinking.stages, stages, strict=False):
            if stage.strip():
                tokens += [opener, *self._ids(stage), self.thinking.end]
        tokens.append(self.thinking.answer)
        read = [list(opening), *map(list, units), list(self.prompt.source_tail)]
        return Sample(
            read={SOURCE: read},
            written={
                THOUGHT: Written(head=self.prompt.target_head, tokens=tokens),
                TARGET: Written(
                    head=[self.thinking.answer], tokens=[*self._ids(answer), self.end_token_id]
                ),
            },
        )

    def _thought(self, text: str) -> list[int]:
        return [*self._ids(text), self.thinking.end] if text else [self.thinking.skip]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def thought_view(
    sample: Sample, thinking: ThinkingIds, required_units: Callable[[int], int | None]
) -> View:
    """The schedules of thoughts and answer as a session makes them under a policy.

    Thoughts take the place of words: a token of thought j, from 0, its end included, sees as many
    units as are required for it; deep stages and the answer see all of them.

    Args:
        required_units: of a policy that looks at counters alone (`Policy.required_units`).
    """
    all_units, g, thought = sample.num_units, list[int](), 0
    for token in sample.written[THOUGHT].tokens:
        required = required_units(thought) if thought < all_units - 1 else None
        g.append(all_units if required is None else min(max(required, thought + 1), all_units))
        thought += token in thinking.closing
    return {THOUGHT: g, TARGET: [all_units] * len(sample.written[TARGET].tokens)}


class ThinkingEncoder(Encoder):
    """Items with thoughts -> `Sample`, at depths and under policies that a recipe says."""

    def __init__(self, encoder: ThoughtEncoder, table: ThinkingTable) -> None:
        self.encoder = encoder
        self.table = table

    @abstractmethod
    def sample(self, items: Sequence[Item], depth: int) -> Sample:
        """That of one item at a depth; ValueError if nothing is thought in it."""

    def join(self, items: Sequence[Item], rng: np.random.Generator | None = None) -> Sample:
        least, deepest = self.table.depth
        depth = deepest if rng is None else int(rng.integers(least, deepest + 1))
        return self.sample(items, depth)

    def longest(self, items: Sequence[Item]) -> Sample:
        return self.sample(items, self.table.depth[1])

    def views(self, sample: Sample, plan: ViewPlan, rng: np.random.Generator) -> list[View]:
        least, most = self.table.wait_k
        k = [int(rng.integers(least, most + 1)) for _ in range(plan.num_partial)]
        policies: list[Policy] = [*[Offline()] * plan.full, *(WaitK(k=each) for each in k)]
        return [self._view(sample, policy) for policy in policies]

    def watched(self, sample: Sample) -> Mapping[str, View]:
        views = {"offline": self._view(sample, Offline())}
        return views | {f"wait-{k}": self._view(sample, WaitK(k=k)) for k in (1, 3, 5)}

    def _view(self, sample: Sample, policy: Policy) -> View:
        return thought_view(sample, self.encoder.thinking, policy.required_units)


class ProblemEncoder(ThinkingEncoder):
    """Items with problems."""

    def length(self, item: Item) -> float:
        _thought_through(item)  # each item comes here before anything is learnt
        return len(item.source) + 2 * len(item.target)

    def sample(self, items: Sequence[Item], depth: int) -> Sample:
        """Of one problem, whose sentences are the units."""
        (item,) = items
        problem = _thought_through(item)
        stages = problem.stages[: depth - 1]
        return self.encoder.encode(
            *(problem.question, problem.sentences, problem.thoughts, stages, problem.answer)
        )


def _thought_through(item: Item) -> Problem:
    if item.problem is None or not item.problem.thoughts:
        place = item.place or "an item"
        raise ValueError(f"{place}: there are no thoughts to learn from: write them first")
    return item.problem


def _aligned(thoughts: Sequence[str], sentences: Sequence[str], units: Sequence[str]) -> list[str]:
    """The thoughts about each unit, joined: those of the sentences that end in it."""
    about: list[list[str]] = [[] for _ in units]
    for thought, place in zip(thoughts, places_in(sentences, units), strict=True):
        about[place] += [thought] if thought.strip() else []
    return [" ".join(each) for each in about]
