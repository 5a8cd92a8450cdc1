"""What a model writes by itself under random schedules: samples for a head, from sources alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from proactivellm.core import schedule
from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.core.packing import MEDIA_ID, Sample, Written
from proactivellm.core.schedule import Schedule
from proactivellm.core.unit import Unit
from proactivellm.evaluation.evaluate import with_replays
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.fixed import Fixed, Offline
from proactivellm.session.limits import Limits
from proactivellm.session.outcome import Outcomes
from proactivellm.session.sampling import Sampling
from proactivellm.stream import Job, opening_of, run_streams, source_turns

# Of the source, at most, before the first word: more is seldom met, and easily judged.
_FIRST_SHARE = (0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class OwnWrites:
    """One source, what the model wrote, and schedules under which to look at it."""

    sample: Sample
    media: Tensor | None  # embeddings of the source, if it is no text
    words: list[int]  # words begun before each token that is predicted, the end of stream included
    # By token that is predicted. Under the first one it was written, but for a token inside a word
    # before which the model wanted to end and had to read on: it saw more.
    schedules: list[Schedule]


class _Source(NamedTuple):
    """What is read of a job."""

    asked: list[int]  # a question that stands in the prompt
    units: list[Unit]


def own_writes(
    model: StreamingCausalLM, jobs: Sequence[Job], num_views: int, num_lanes: int, seed: int
) -> list[OwnWrites]:
    """Stream sources under random schedules; those of several turns, or one unit, are left out.

    References are not looked at. A schedule is a function of (seed, index of the job).
    """
    jobs = with_replays(jobs)
    sources, drawn, traced = dict[int, _Source](), dict[int, list[Schedule]](), list[Job]()
    for job in jobs:
        turns = source_turns(model, job)
        if len(turns) != 1 or len(turns[0]) < 2:  # which turn wrote what is not known
            continue
        rng = np.random.default_rng([seed, job.index])
        sources[job.index] = _Source(opening_of(model, job), turns[0])
        drawn[job.index] = [_draw(model, len(turns[0]), rng) for _ in range(num_views)]
        traced.append(replace(job, policy=Fixed(trace=tuple(drawn[job.index][0]))))
    limits, starts = Limits(streams=num_lanes), Outcomes(model).starts
    written = run_streams(model, Offline(), traced, limits=limits, sampling=Sampling())
    found = []
    for instance in sorted(written, key=lambda instance: instance.index):
        ids = model.tokenizer.encode(instance.prediction, add_special_tokens=False)
        if ids:
            source = sources[instance.index]
            found.append(_looked_at(model, source, ids, starts, drawn[instance.index]))
    return found


def _draw(model: StreamingCausalLM, num_units: int, rng: np.random.Generator) -> Schedule:
    """Units read before each word, for as many words as there are units."""
    if model.settings.early_end:  # an answer of a word or two may come anywhere
        return schedule.uniform(num_units, num_units, rng)
    return schedule.multinomial(num_units, num_units, rng, _FIRST_SHARE)


def _looked_at(
    model: StreamingCausalLM,
    source: _Source,
    ids: list[int],
    starts: Sequence[bool],
    traces: Sequence[Schedule],
) -> OwnWrites:
    asked, units = source
    words = [0]
    for token in ids:
        words.append(words[-1] + (starts[token] or not words[-1]))
    # The word that a token belongs to, which is what a trace counts; the end is one of its own.
    belongs = [max(0, word - 1) for word in words[1:]] + [words[-1]]
    schedules = []
    for trace in traces:
        trace = [*trace, *[len(units)] * (words[-1] + 1)]
        schedules.append([trace[word] for word in belongs])
    prompt = model.prompt
    media = [unit.features for unit in units if unit.features is not None]
    read = [
        list(u.token_ids) if u.features is None else [MEDIA_ID] * len(u.features) for u in units
    ]
    read[-1] += prompt.source_tail
    end = min(model.end_token_ids, default=0)  # only predicted, never fed
    sample = Sample(
        read={SOURCE: [prompt.opening(asked), *read]},
        written={TARGET: Written(head=prompt.target_head, tokens=[*ids, end])},
        grids={number: unit.grid for number, unit in enumerate(units, 1) if unit.grid is not None},
    )
    return OwnWrites(
        sample=sample,
        media=torch.cat(media) if media else None,
        words=words,
        schedules=schedules,
    )
