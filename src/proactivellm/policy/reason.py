"""Why a lane READs or WRITEs: the codes that policies answer with and events carry."""

from enum import IntEnum


class Reason(IntEnum):
    """The reason of a decision; its value is the code in a tensor, `text` is what people read."""

    READ_RULE = 0
    READ_MIN_LAG = 1
    READ_END_HELD = 2
    READ_LENGTH_LIMIT = 3
    READ_SILENCE = 4
    WRITE_RULE = 8  # from here on: WRITE
    WRITE_MAX_LAG = 9
    WRITE_INSIDE_WORD = 10
    WRITE_SOURCE_FINISHED = 11

    @property
    def writes(self) -> bool:
        """Whether the decision is WRITE."""
        return self >= Reason.WRITE_RULE

    @property
    def text(self) -> str:
        """In words; traces and pages show it beside the decision."""
        return _TEXTS[self]


_TEXTS = {
    Reason.READ_RULE: "policy",  # its own rule: a statistic, a schedule, agreeing drafts
    Reason.READ_MIN_LAG: "min_lag",  # too little was read for the next word
    Reason.READ_END_HELD: "end held",  # it would end the target, and the source goes on
    Reason.READ_LENGTH_LIMIT: "length limit",  # as much was written as the source read allows
    Reason.READ_SILENCE: "silence",  # nobody speaks in the newest unit
    Reason.WRITE_RULE: "policy",
    Reason.WRITE_MAX_LAG: "max_lag",  # the next word was overdue
    Reason.WRITE_INSIDE_WORD: "inside a word",  # a word that was begun is written to its end
    Reason.WRITE_SOURCE_FINISHED: "source finished",  # nothing is left to wait for
}
