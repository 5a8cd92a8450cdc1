"""Misleading time: how long a listener has a word before them that turns out to be wrong."""

from collections.abc import Mapping, Sequence

from proactivellm.metrics.bootstrap import Statistics, mean
from proactivellm.metrics.transcripts import normalise
from proactivellm.metrics.units import TargetUnit
from proactivellm.output.log import Instance


def measure_misleading(
    instances: Sequence[Instance], finals: Sequence[Instance], unit: TargetUnit
) -> Statistics:
    """Misleading time of every instance against what was right in the end, and its mean.

    Args:
        finals: of the same sources in any order, such as the log of the same model's `offline`:
            their predictions are taken to be right.
        unit: of the words that are compared.

    Raises:
        ValueError: an instance has no final output, or one of another source.
    """
    by_index: Mapping[int, Instance] = {final.index: final for final in finals}
    values: list[float | None] = []
    for instance in instances:
        final = by_index.get(instance.index)
        if final is None or final.source != instance.source:
            raise ValueError(
                f"instance {instance.index} has no final output of the same source: give the log "
                "of `offline` over the same sources"
            )
        written = unit.convert(instance)
        if instance.revisions:  # when each text was shown is not in the log
            values.append(None)
            continue
        right = unit.split(final.prediction)
        values.append(
            misleading_time(written.units(), written.delays, instance.source_length, right)
        )
    return mean(values)


def misleading_time(
    words: Sequence[str], delays: Sequence[float], source_length: float, final: Sequence[str]
) -> float | None:
    """Share of the listening time in which the text shown has a word that the final one has not.

    Output that only appends takes nothing back: it misleads from the moment at which its first
    wrong word is written to the end of the source, `max(0, 1 - delay / source_length)`; 0 if no
    word is wrong. A word is wrong if `wrong_words` says so.

    Args:
        words: as written.
        delays: of each word, in the unit of `source_length`.
        final: words of the text that is right in the end.

    Returns:
        0 to 1; None of an empty source.
    """
    if not source_length:
        return None
    wrong = wrong_words(words, final)
    return max(0.0, 1 - delays[wrong[0]] / source_length) if wrong else 0.0


def wrong_words(words: Sequence[str], final: Sequence[str]) -> list[int]:
    """Places of the words without a partner in the longest common subsequence with the final text.

    Of several, the one that pairs early words first. Words are compared in lower case without
    punctuation (`transcripts.normalise`); those of punctuation alone are never wrong.
    """
    ours, theirs = ([normalise(word) for word in side] for side in (words, final))
    places = [place for place, word in enumerate(ours) if word]
    ours, theirs = [ours[place] for place in places], [word for word in theirs if word]
    longest = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]  # of what begins at i, j
    for i in reversed(range(len(ours))):
        for j in reversed(range(len(theirs))):
            equal = ours[i] == theirs[j]
            one_less = longest[i + 1][j + 1] + 1 if equal else 0
            longest[i][j] = max(longest[i + 1][j], longest[i][j + 1], one_less)
    wrong, begin = list[int](), 0
    for i, word in enumerate(ours):
        partner = next(
            (
                j
                for j in range(begin, len(theirs))
                if theirs[j] == word and longest[i + 1][j + 1] + 1 == longest[i][begin]
            ),
            None,
        )
        if partner is None:
            wrong.append(places[i])
        else:
            begin = partner + 1
    return wrong
