"""What thinking while reading costs and saves, from logs of models that think.

Times are those of the clock of the log, on which arriving and computing overlap.
"""

from collections.abc import Sequence
from statistics import fmean

from proactivellm.output.log import Instance


def thinking(instances: Sequence[Instance]) -> dict[str, float]:
    """Means over the sources that were thought about; empty if none was.

    Keys: `waited_tokens` (source tokens read before the first thought), `first_thought_s`,
    `answer_delay_s` (from the end of the source to the first word of the answer, of those that
    were answered), `thought_tokens` (about units of the source), `deep_tokens` (after its end).
    """
    thought = [instance for instance in instances if instance.thoughts]
    if not thought:
        return {}
    means = {
        "waited_tokens": fmean(instance.waited_tokens or 0 for instance in thought),
        "first_thought_s": fmean((i.thoughts or [])[0].began_ms / 1000 for i in thought),
        "thought_tokens": fmean(_tokens(instance, deep=False) for instance in thought),
        "deep_tokens": fmean(_tokens(instance, deep=True) for instance in thought),
    }
    delays = [
        (instance.first_token_ms - instance.source_ms) / 1000
        for instance in thought
        if instance.first_token_ms is not None and instance.source_ms is not None
    ]
    return means | ({"answer_delay_s": fmean(delays)} if delays else {})


def _tokens(instance: Instance, deep: bool) -> int:
    return sum(each.tokens for each in instance.thoughts or () if bool(each.stage) == deep)
