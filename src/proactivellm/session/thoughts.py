"""Thoughts of a stream that thinks while it reads: what may follow, and what each token changes.

The rule is that of StreamingThinker (arXiv 2510.17238): thought t is about sentence t and sees the
source up to it; what closes a thought is fed with the next sentence in view, and so already sees
it. A policy that counts says how many sentences are read before each thought, as it does for words.
Legend: P = lanes that probe, V = vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from proactivellm.core.layout import SOURCE, TARGET, THOUGHT
from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.output.detokenize import Detokenizer
from proactivellm.policy.base import Policy
from proactivellm.policy.evidence import Evidence
from proactivellm.policy.fixed import Scheduled
from proactivellm.session.events import Thought
from proactivellm.session.limits import Limits
from proactivellm.session.state import SessionState
from proactivellm.session.window import Window


def check_thinking(model: StreamingCausalLM, window: Window | None, limits: Limits) -> None:
    """Refuse (ValueError) what an engine of a model that thinks cannot do."""
    if model.thinking is None:
        if limits.depth is not None:
            raise ValueError(
                f"depth={limits.depth}: the model does not think, its folder names no control "
                "tokens for it"
            )
        return
    if window is not None:
        raise ValueError("a model that thinks keeps all it has read in view: leave the window out")
    if model.speculation is not None:
        raise ValueError("a model that thinks takes no proposed tokens: leave speculation out")
    check_depth(model, limits.depth)


def check_depth(model: StreamingCausalLM, depth: int | None) -> None:
    """Refuse (ValueError) a depth of reasoning that a model does not have; None = it decides."""
    deepest = 0 if model.thinking is None else len(model.thinking.stages) + 1
    if depth is not None and not 1 <= depth <= deepest:
        raise ValueError(f"depth={depth}: the model thinks at depths 1 to {deepest}")


def check_policy(policy: Policy, watch: Sequence[Evidence]) -> None:
    """Refuse (ValueError) a policy that looks at more than counts, and evidence to watch."""
    if watch:
        raise ValueError("a model that thinks decides by counts alone: there is nothing to watch")
    if not isinstance(policy, Scheduled) or policy.restarts:
        raise ValueError(
            f"policy {policy.spec!r} looks at what is written: a model that thinks reads sentence "
            "by sentence under wait-k:1, or all at once under offline"
        )


def begin_thinking(state: SessionState, model: StreamingCausalLM, limits: Limits) -> None:
    """Let a stream that has just been opened think before it answers."""
    assert model.thinking is not None
    state.group = THOUGHT
    state.thought = state.target
    state.target = [model.thinking.answer]  # what closes the thoughts opens the answer
    state.num_head = 1
    state.counts = {SOURCE: 0, THOUGHT: 0, TARGET: 0}
    state.depth, state.longest_thought = limits.depth, limits.thought_tokens
    # Where the source sees thoughts, what is read before they are written would be another source.
    state.reads_ahead = SOURCE in model.layout.independent([SOURCE])


def without_final(units: Sequence[Unit]) -> list[Unit]:
    """The same, with the end of the source apart from its last sentence, as in training."""
    *before, last = units
    if not last.final or last.is_end:
        return [*units]
    return [*before, replace(last, final=False), Unit.end(last.end_s)]


class Place(NamedTuple):
    """Where a stream stands in the protocol of its thoughts, before its next token."""

    answers: bool  # whether that is of the answer
    begins: bool  # whether it begins a thought or a stage, or opens the answer
    num_done: int | None  # deep stages that are done; None: there are units to think about
    num_tokens: int  # of the thought so far
    depth: int | None
    longest: int  # tokens of a thought

    @classmethod
    def of(cls, state: SessionState) -> "Place":
        """That of a stream."""
        return cls(
            answers=state.group == TARGET,
            begins=state.at_boundary,
            num_done=state.words - state.units_read if state.thinks_deep else None,
            num_tokens=state.num_thought_tokens,
            depth=state.depth,
            longest=state.longest_thought,
        )


class Thinker:
    """Keeps the streams of a model to the protocol of its thoughts."""

    def __init__(self, model: StreamingCausalLM) -> None:
        assert model.thinking is not None
        self.ids = model.thinking
        self.tokenizer = model.tokenizer
        self._ends = sorted(model.end_token_ids)

    def restrict(self, places: Sequence[Place], logits_PV: Tensor) -> None:
        """Forbid, in place, what may not follow: -inf."""
        for p, place in enumerate(places):
            allowed, forbidden = self.may_follow(place)
            if allowed:
                index = torch.tensor(allowed, device=logits_PV.device)
                kept = logits_PV[p, index].clone()
                logits_PV[p] = -torch.inf
                logits_PV[p, index] = kept
            else:
                logits_PV[p, torch.tensor(forbidden, device=logits_PV.device)] = -torch.inf

    def may_follow(self, place: Place) -> tuple[list[int], list[int]]:
        """The only tokens that may follow, or those that may not."""
        ids, num_done = self.ids, place.num_done
        if place.answers:
            return [], [*ids.all]
        if place.begins and num_done is not None:
            stage = [*ids.stages[num_done : num_done + 1]]
            if place.depth is None:
                return [ids.answer, *stage], []
            return (stage if num_done < place.depth - 1 else [ids.answer]), []
        if place.begins:  # an empty thought is a skip
            return [], [ids.end, ids.answer, *ids.stages, *self._ends]
        if place.num_tokens >= place.longest:
            return [ids.end], []
        return [], [ids.skip, ids.answer, *ids.stages, *self._ends]

    def write(self, state: SessionState, lane: int, token: int) -> Thought:
        """Append a token of a thought; what closes them all begins the answer."""
        closes = token in self.ids.closing
        text = self._text(state, token, closes)
        thought = Thought(
            lane=lane,
            token_id=token,
            text=text,
            units_read=state.units_read,
            source_finished=state.source_finished,
            number=state.words,
            stage=state.words - state.units_read + 1 if state.thinks_deep else 0,
            closes=closes,
            answers=token == self.ids.answer,
        )
        state.counts[THOUGHT] = len(state.thought)
        state.thought_delays.append(state.units_read)
        state.at_boundary = closes or thought.answers
        if thought.answers:
            state.group, state.words = TARGET, 0
            return thought
        state.thought.append(token)
        state.num_thought_tokens += 1
        if closes:
            state.words += 1
            state.num_thought_tokens = 0
        return thought

    def _text(self, state: SessionState, token: int, closes: bool) -> str:
        """What of the thought became certain."""
        words = state.thought_words
        if words is None:  # the stream goes on from a snapshot, or the thought begins
            words = Detokenizer(self.tokenizer)
            first = len(state.thought) - state.num_thought_tokens
            for earlier in state.thought[first:]:
                words.push(earlier)
        state.thought_words = None if closes else words
        return words.finish() if closes else words.push(token)
