"""What thinking while reading costs and saves, from logs of models that think.

Times are those of the clock of the log, on which arriving and computing overlap.
"""

from collections.abc import Sequence

import numpy as np

from proactivellm.metrics.bootstrap import Statistics, mean, ratio
from proactivellm.output.log import TEXT, Instance, LoggedThought

_SKIP = 1  # tokens of a thought that is none: the control token alone


def measure_thinking(instances: Sequence[Instance]) -> dict[str, Statistics]:
    """Statistics of tokens by stage, of when it was thought, and of how long that was waited for.

    Tokens are those that were decoded, control tokens included, but for the one that opens the
    answer.

    Returns:
        None if nothing was thought; else, by name, means over the sources that were thought about:
        `thought_tokens` (about units of the source), `integration_tokens` (the first deep stage),
        `reflection_tokens` (those after it), `answer_tokens` (the end of stream included), and
        `late_tokens`: all of these that came after the last unit. `think_rate`: the share of all
        units with a thought; where the log tells which are needed, also `think_rate_needed` and
        `think_rate_filler`. `waited_tokens` (source tokens read before the first thought),
        `first_thought_s` (the time to it), `answer_delay_s` (from the end of the source to the
        first word of the answer, of those that were answered).
    """
    if not any(instance.thoughts for instance in instances):
        return {}
    stages = [_by_stage(instance) for instance in instances]
    names = ("thought_tokens", "integration_tokens", "reflection_tokens", "answer_tokens")
    measured = {
        name: mean(_of_thinkers(instances, [float(each[place]) for each in stages]))
        for place, name in enumerate((*names, "late_tokens"))
    }
    measured["think_rate"] = _rate(instances, None)
    if any(instance.needed for instance in instances):
        measured["think_rate_needed"] = _rate(instances, True)
        measured["think_rate_filler"] = _rate(instances, False)
    waited = [None if i.waited_tokens is None else float(i.waited_tokens) for i in instances]
    begun = [i.thoughts[0].began_ms / 1000 if i.thoughts else None for i in instances]
    measured["waited_tokens"], measured["first_thought_s"] = mean(waited), mean(begun)
    measured["answer_delay_s"] = mean(_of_thinkers(instances, [_delay_s(i) for i in instances]))
    return measured


def _of_thinkers(
    instances: Sequence[Instance], values: Sequence[float | None]
) -> list[float | None]:
    return [value if i.thoughts else None for i, value in zip(instances, values, strict=True)]


def _by_stage(instance: Instance) -> tuple[int, int, int, int, int]:
    """Tokens of thoughts, of the first stage, of the others, of the answer, and those of all that
    came late.
    """
    tokens, late, answer = [0, 0, 0], 0, len(instance.token_delays)
    for thought in instance.thoughts or ():
        tokens[min(thought.stage, 2)] += thought.tokens
        late += thought.tokens * (thought.units_read >= _num_units(instance))
    return tokens[0], tokens[1], tokens[2], answer, late + answer


def _num_units(instance: Instance) -> int:
    """Of the source; of media, whose length is a time, those that were thought about."""
    if instance.source_type == TEXT:
        return int(instance.source_length)
    return sum(not thought.stage for thought in instance.thoughts or ())


def _delay_s(instance: Instance) -> float | None:
    if instance.first_token_ms is None or instance.source_ms is None:
        return None
    return (instance.first_token_ms - instance.source_ms) / 1000


def _rate(instances: Sequence[Instance], needed: bool | None) -> Statistics:
    """Units with a thought over units, of the corpus; of those needed, or not, alone."""
    counts = [_thought_about(instance, needed) for instance in instances]
    return Statistics(np.array(counts, np.float64).reshape(-1, 2), ratio)


def _thought_about(instance: Instance, needed: bool | None) -> tuple[int, int]:
    about: list[LoggedThought] = [each for each in instance.thoughts or () if not each.stage]
    unknown: list[bool | None] = [None] * _num_units(instance)
    labels = [*instance.needed] if instance.needed else unknown
    chosen = [place for place, label in enumerate(labels) if needed in (None, label)]
    return sum(p < len(about) and about[p].tokens > _SKIP for p in chosen), len(chosen)
