"""Sentences of a stream, counted in units and words: where the one being written began."""

from dataclasses import dataclass, replace

from proactivellm.policy.base import Policy
from proactivellm.policy.reason import Reason


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Which part of the source the sentence being written stands for; a value.

    A sentence written stands for the source from where the one before it ended to the next sentence
    end read. Where the target ends a sentence that the source has not ended, the next one begins
    at that end of the source; where the source has ended several, it stands for all of them.
    """

    units: int = 0  # of the source, before the sentence being written
    words: int = 0  # of the target, before it
    heard: int = 0  # units up to the last sentence end read
    ended: bool = False  # whether the last word written ends it
    following: int | None = None  # if so: units before the next one; None: the source goes on

    def hear(self, units_read: int) -> "Sentences":
        """After the unit with this number, which ended a sentence, was read."""
        waited = self.ended and self.following is None
        return replace(self, heard=units_read, following=units_read if waited else self.following)

    def write(self, ended: bool) -> "Sentences":
        """After text was written that ends the sentence, or goes on with it."""
        if ended == self.ended:
            return self
        complete = ended and self.heard > self.units
        return replace(self, ended=ended, following=self.heard if complete else None)

    def begin_word(self, words: int) -> "Sentences":
        """As a word begins, after so many words."""
        if not self.ended:
            return self
        units = self.heard if self.following is None else self.following
        return Sentences(units=units, words=words, heard=self.heard)

    def required_units(self, policy: Policy, words: int, begins: bool = True) -> int | None:
        """What a policy that restarts requires to be read before a word; None: more than is read.

        Args:
            words: before the word.
            begins: whether it is a new word, not the one last begun.
        """
        units, first = self.units, self.words
        if begins and self.ended:
            if self.following is None:
                return None
            units, first = self.following, words
        if self.heard > units:  # all of it was read, so that there is nothing to wait for
            return self.heard
        required = policy.required_units(words - first)
        return None if required is None else units + required

    def settle(self, policy: Policy, units_read: int, words: int, begins: bool) -> Reason:
        """What a policy that restarts says of a word (see `required_units`)."""
        required = self.required_units(policy, words, begins)
        ready = required is not None and units_read >= required
        return Reason.WRITE_RULE if ready else policy.early
