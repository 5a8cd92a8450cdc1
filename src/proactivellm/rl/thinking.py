"""Rollouts of models that think while they read, and what a token of them was worth to the model.

Log-probabilities are those of one masked forward, under the mask of tokens and the positions that
the engine had (the law). Legend: B = rollouts, S = tokens of a packed sequence, T = tokens that
were written, D = model width, V = vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from proactivellm.core.layout import SOURCE, TARGET, THOUGHT
from proactivellm.core.masks import visibility
from proactivellm.core.packing import IGNORE, Packed, Sample, Written, pack
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.packed import as_tensors, masked_hidden
from proactivellm.modality.sentences import segmenter_for
from proactivellm.policy.base import Policy
from proactivellm.policy.evidence import entropy
from proactivellm.rl.written import Rollout, Run, Source, drive
from proactivellm.session.events import Event, Thought
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling
from proactivellm.session.thoughts import Place, Thinker
from proactivellm.stream import Job, source_turns
from proactivellm.stream.clock import ArrivalClock
from proactivellm.stream.streams import Streams

DEEP, ANSWER = -1, -2  # in place of the number of a sentence


@dataclass(frozen=True, kw_only=True)
class ThoughtRollout(Rollout):
    """A rollout with its thoughts; tokens, schedule and end are of the answer."""

    opening: Sequence[int]  # ids of the question
    thoughts: list[int]  # ids written, what closes them all included
    thought_schedule: list[int]  # units read when each was predicted, the end of the source as one
    places: list[Place]  # of thoughts and answer: before each token that was written
    parts: list[int]  # of each of these: the sentence that it is about, DEEP or ANSWER
    bounds: list[bool]  # whether it closes a thought, or opens a stage or the answer

    @property
    def written(self) -> list[int]:
        """All ids that were written, in order."""
        return [*self.thoughts, *self.tokens]

    @property
    def is_whole(self) -> bool:
        """Whether the model ended all thoughts and the answer by itself, and no limit."""
        return self.ended and not any(
            place.num_tokens >= place.longest for place in self.places if not place.begins
        )

    def spent(self, deep: bool) -> int:
        """Tokens of thoughts about sentences, or of deep stages."""
        return sum(part == DEEP if deep else part >= 0 for part in self.parts)


class _ThoughtRun(Run):
    """A stream that thinks on its way."""

    def __init__(self, streams: Streams, source: Source, sampling: Sampling) -> None:
        stream = streams.open(clock=ArrivalClock(), sampling=sampling)
        question, _ = source.job.asked
        self.opening = segmenter_for(streams.engine.model).ask(question)
        streams.engine.ask(stream.lane, self.opening)
        super().__init__(stream, source)
        assert streams.engine.model.thinking is not None
        self.limits, self.ids = streams.engine.limits, streams.engine.model.thinking
        self.thoughts, self.thought_schedule = list[int](), list[int]()
        self.places, self.parts, self.bounds = list[Place](), list[int](), list[bool]()
        self._begins, self._count = True, 0

    def note(self, event: Event) -> None:
        """Keep a token that was written."""
        before = len(self.tokens)
        super().note(event)
        if isinstance(event, Thought):
            self.thoughts.append(event.token_id)
            self.thought_schedule.append(event.units_read + event.source_finished)
            opens = event.token_id in (self.ids.answer, *self.ids.stages)
            stage = event.stage - 1 if event.stage else None
            part = event.number if stage is None else DEEP
            self._keep(part, event.closes or opens, stage)
            goes_on = not (event.closes or event.answers)
            self._begins, self._count = event.closes, self._count + 1 if goes_on else 0
        elif len(self.tokens) > before:
            self._keep(ANSWER, False, None)

    def _keep(self, part: int, bound: bool, num_done: int | None) -> None:
        place = Place(
            answers=part == ANSWER,
            begins=self._begins,
            num_done=num_done,
            num_tokens=self._count,
            depth=self.limits.depth,
            longest=self.limits.thought_tokens,
        )
        self.places.append(place)
        self.parts.append(part)
        self.bounds.append(bound)

    def thought_rollout(self) -> ThoughtRollout:
        """What became of it; ValueError if it failed."""
        return ThoughtRollout(
            **vars(self.rollout()),
            opening=self.opening,
            thoughts=self.thoughts,
            thought_schedule=self.thought_schedule,
            places=self.places,
            parts=self.parts,
            bounds=self.bounds,
        )


def make_problems(model: StreamingCausalLM, jobs: Sequence[Job]) -> list[Source]:
    """Texts with something to think about; ValueError where one is a recording or has no words."""
    if model.thinking is None:
        raise ValueError("the model does not think: its folder names no control tokens for it")
    if any(job.media for job in jobs):
        raise ValueError("thinking is reinforced on texts, and there are recordings")
    turns = [(job, source_turns(model, job)) for job in jobs]
    if empty := [job.index for job, each in turns if not each]:
        raise ValueError(f"source {empty[0]} has no words: there is nothing to think about")
    return [Source(job=job, units=each[0]) for job, each in turns]


def think(
    model: StreamingCausalLM,
    policy: Policy,
    sources: Sequence[Source],
    *,
    group: int,
    limits: Limits,
    temperature: float = 1.0,
    seed: Sequence[int] = (0,),
) -> list[list[ThoughtRollout]]:
    """`group` rollouts of each problem, many at once, each as if it had been alone.

    Tokens are drawn of the whole distribution. Draws are a function of `seed`, the index of the job
    and the number within the group.

    Raises:
        ValueError: a source could not be streamed.
    """
    streams = Streams(model, policy, limits, Sampling())

    def begin(source: Source, number: int) -> Callable[[], _ThoughtRun]:
        draws = np.random.default_rng([*seed, source.job.index, number])
        sampling = Sampling(temperature=temperature, seed=int(draws.integers(2**31)))
        return lambda: _ThoughtRun(streams, source, sampling)

    waiting = [begin(source, number) for source in sources for number in range(group)]
    runs = drive(streams, waiting, limits.streams)
    done = [run.thought_rollout() for run in runs]
    return [done[at : at + group] for at in range(0, len(done), group)]


def thought_log_probs(
    model: StreamingCausalLM, rollouts: Sequence[ThoughtRollout], temperature: float = 1.0
) -> list[Tensor]:
    """Log-probability [T] of each token that was written, thoughts first; gradients may flow.

    They are those of the rollout up to rounding. One that could not have been another has 0, and no
    gradient.
    """
    each = zip(rollouts, _distributions(model, rollouts, temperature), strict=True)
    return [_of_written(log_p_TV, rollout) for rollout, log_p_TV in each]


@torch.no_grad()
def thought_entropy(
    model: StreamingCausalLM, rollouts: Sequence[ThoughtRollout], temperature: float = 1.0
) -> float:
    """The mean over all tokens that were chosen, nats; 0 where none was."""
    chosen = []
    for rollout, log_p_TV in zip(
        rollouts, _distributions(model, rollouts, temperature), strict=True
    ):
        chosen.append(entropy(log_p_TV.exp())[_of_written(log_p_TV, rollout) != 0])
    every = torch.cat(chosen)
    return float(every.mean()) if len(every) else 0.0


def _distributions(
    model: StreamingCausalLM, rollouts: Sequence[ThoughtRollout], temperature: float
) -> Iterator[Tensor]:
    """By rollout, the log-probabilities [T, V] of all that could have been written."""
    thinker = Thinker(model)
    packed = [_pack(model, each) for each in rollouts]
    columns = as_tensors(packed)
    hidden_BSD = masked_hidden(model, columns, visibility(model.layout, columns, columns))
    for rollout, hidden_SD, label_S in zip(rollouts, hidden_BSD, columns["label"], strict=True):
        logits_TV = model.project(hidden_SD[(label_S != IGNORE).to(hidden_SD.device)])
        forbidden_TV = torch.zeros_like(logits_TV)
        thinker.restrict(rollout.places, forbidden_TV)
        yield ((logits_TV + forbidden_TV) / temperature).log_softmax(-1)


def _of_written(log_p_TV: Tensor, rollout: ThoughtRollout) -> Tensor:
    written_T = torch.tensor(rollout.written, device=log_p_TV.device)
    return log_p_TV.gather(-1, written_T[:, None])[:, 0]


def _pack(model: StreamingCausalLM, one: ThoughtRollout) -> Packed:
    """A rollout as one sequence under the schedule that came about."""
    assert model.thinking is not None
    prompt, units = model.prompt, [list(unit.token_ids) for unit in one.source.units]
    read = [[*prompt.source_head, *one.opening], *units, list(prompt.source_tail)]
    sample = Sample(
        read={SOURCE: read},
        written={
            THOUGHT: Written(head=prompt.target_head, tokens=one.thoughts),
            TARGET: Written(head=[model.thinking.answer], tokens=one.tokens),
        },
    )
    answer = [sample.num_units] * len(one.tokens)
    return pack(sample, [{THOUGHT: one.thought_schedule, TARGET: answer}], model.layout)
