"""What rows of partial views are to learn of a trace: READ or WRITE, or to say nothing yet."""

import math
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from proactivellm.core.packing import IGNORE, MEDIA_ID, UNTAUGHT, Packed
from proactivellm.core.schedule import Schedule
from proactivellm.modality.base import Examples
from proactivellm.output.source_units import source_units
from proactivellm.tasks.item import Item, source_of

NO_ACTION, WRITE, READ = IGNORE, 0, 1
ROUNDING = 1e-6  # units by which a time may be off


def actions(
    g: Sequence[int], trace: Sequence[int] | None, decides: Sequence[bool], num_units: int
) -> list[int]:
    """What a view with the schedule `g` should have done before each token that it predicts.

    READ where fewer units are in view than the trace had read, and no action where a session would
    not ask: inside a word, or with the whole source read.

    Args:
        trace: units read before each token; None: the actions are told otherwise, and only those
            rows marked, as WRITE, that a session asks about.
        decides: by token that is predicted, whether a decision falls on it.
    """
    wanted = trace or [0] * len(g)
    return [
        (READ if h < units else WRITE) if asked and h < num_units else NO_ACTION
        for h, units, asked in zip(g, wanted, decides, strict=True)
    ]


def set_actions(packed: Packed, of_views: Sequence[Sequence[int]]) -> None:
    """Give the rows of a packed sample their actions, view by view; others have none."""
    each = [iter(view) for view in of_views]
    packed.action = [
        NO_ACTION if label == IGNORE else next(each[view])
        for label, view in zip(packed.label, packed.view, strict=True)
    ]


def teach_silence(packed: Packed, due: Schedule, views: Sequence[Schedule]) -> None:
    """Change the labels of rows that predict what is not due yet.

    The first of the tokens due together becomes the end of stream, the last label there is; the
    others, which follow what should not have been written yet, are not taught.

    Args:
        due: units that each token waits for.
        views: units in view before each token, of each view.
    """
    rows = [i for i, label in enumerate(packed.label) if label != IGNORE]
    end = packed.label[rows[-1]]
    begins = [not t or units > due[t - 1] for t, units in enumerate(due)]
    silent = [
        (end if begin else UNTAUGHT) if h < units else None
        for g in views
        for h, units, begin in zip(g, due, begins, strict=True)
    ]
    for row, label in zip(rows, silent, strict=True):
        if label is not None:
            packed.label[row] = label


def joined_delays(items: Sequence[Item]) -> list[int]:
    """Units that the traces of joined texts had read before each unit of their target."""
    delays = list[int]()
    for place, item in enumerate(items):
        # Beside others, what a source begins with may belong to the unit before.
        before = source_units(source_of(items[: place + 1]))
        read = len(before) - len(source_units(item.source))
        delays += [read + units for units in item.delays]
    return delays


def media_delays(
    items: Sequence[Item], media: Examples, units: Sequence[Sequence[int]]
) -> list[int]:
    """Units of a sample that tell each word of its target, by the times of its item.

    Args:
        items: one alone.
        media: what reads it.
        units: token ids of the sample by unit; those of media may follow a question.

    Raises:
        ValueError: several media are joined, or their units do not tell the time.
    """
    if media.unit_s is None or len(items) > 1:
        why = "several are joined" if media.unit_s else "their units do not tell the time"
        raise ValueError(f"what words of {media.kind} wait for is not known, as {why}")
    before = next((place for place, unit in enumerate(units) if MEDIA_ID in unit), 0)
    seen = [math.ceil(each / media.unit_s - ROUNDING) for each in items[0].evidence_s]
    return [min(before + max(1, each), len(units)) for each in seen]


def trace_of(
    delays: Sequence[int], target: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> Schedule:
    """Units that each token of a target waits for, of those that its words wait for.

    A token belongs to the last of the units (`output.source_units`) that the text has after it; the
    end of stream to the last one of all. An empty target waits for nothing.
    """
    texts = (
        tokenizer.decode(target[: t + 1], clean_up_tokenization_spaces=False)
        for t in range(len(target) - 1)
    )
    words = [max(1, len(source_units(text))) for text in texts]
    if not delays:
        return [0] * len(target)
    return [delays[min(word, len(delays)) - 1] for word in [*words, len(delays)]]
