"""A source that is to be streamed: a line of text, or files of media with a question."""

from dataclasses import dataclass, field

from proactivellm.modality.kinds import kind_of_media
from proactivellm.output.log import TEXT, Task
from proactivellm.output.source_units import joined, source_units
from proactivellm.policy.base import Policy
from proactivellm.stream.media import Replay


@dataclass(frozen=True, kw_only=True)
class Job:
    """One source to stream, with its reference."""

    index: int  # place in its file
    source: str  # source text; of media, the text that is read before them
    reference: str | None = None
    task: Task = "translation"
    # All answers that are accepted; None = the reference alone.
    answers: tuple[str, ...] | None = None
    num_asked: int = 0  # units of a text that a model that thinks reads before it, as the question
    needed: tuple[bool, ...] = ()  # by unit of such a text after that; none: not known
    # Of media: when they have told each word of the reference, in seconds; empty = not known.
    evidence_s: tuple[float, ...] = ()
    group: str = ""  # scores are told apart by it
    # What each step takes on the clock of its log entry, in seconds; None = as measured.
    step_s: float | None = None
    # Of this source alone; None = that of the run, whose name its log entry bears anyway.
    policy: Policy | None = None
    media: tuple[str, ...] = ()  # files that are the source, joined; empty = the source is text
    # Of the media, where several policies are to take them in.
    replay: Replay | None = field(default=None, compare=False, repr=False)

    @property
    def kind(self) -> str:
        """Of the source: text, or the modality of its files."""
        return kind_of_media(self.media) if self.media else TEXT

    @property
    def asked(self) -> tuple[str, str]:
        """Of a text: what is asked, and what is thought about."""
        units = source_units(self.source)
        return joined(units[: self.num_asked]), joined(units[self.num_asked :])

    @property
    def name(self) -> str:
        """The source as the log has it: its text, or the names of its files."""
        return " ".join([*self.media, self.source]).strip() if self.media else self.source
