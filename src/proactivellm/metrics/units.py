"""The unit of a target in which latency is measured: words, characters or subwords.

In: instances with the times of one unit. Out: the same with the times of another.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from proactivellm.output.log import Instance, LatencyUnit
from proactivellm.output.scripts import characters, is_unspaced

AUTO = "auto"
Times = tuple[list[float], list[float]]  # delays, elapsed
_NAMES: dict[LatencyUnit, str] = {"word": "words", "char": "characters", "spm": "subwords"}


@dataclass(frozen=True)
class TargetUnit:
    """What lags are counted in; `model` is the file of the SentencePiece model of "spm"."""

    name: LatencyUnit
    model: str = ""
    # Every lag of every policy asks for the length of the same references.
    _cache: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def label(self) -> str:
        """The unit as tables name it."""
        return _NAMES[self.name] + (f" of {Path(self.model).name}" if self.model else "")

    def split(self, text: str) -> list[str]:
        """The words of a text, its characters without white space, or its pieces."""
        if self.name == "word":
            return text.split()
        if self.name == "char":
            return characters(text)
        return [str(piece) for piece in self._processor.encode(text, out_type=str)]

    def length(self, text: str | None) -> int | None:
        """How many units a text has; None if there is no text."""
        if text is None:
            return None
        if text not in self._cache:
            self._cache[text] = len(self.split(text))
        return self._cache[text]

    def convert(self, instance: Instance) -> Instance:
        """The instance with delays and times of this unit; itself if it counts this unit already.

        A unit has the times of its last character. A log of words tells only when the whole word
        was there: then all of its characters have these times.
        """
        if instance.latency_unit == self.name:
            return instance
        delays, elapsed = _character_times(instance)
        ends = list(self._ends(instance.prediction)) if delays else []
        pieces = self.split(instance.prediction) if self.name == "spm" else None
        return replace(
            instance,
            latency_unit=self.name,
            prediction_length=len(ends),
            delays=[delays[end] for end in ends],
            elapsed=[elapsed[end] for end in ends],
            prediction_spm=pieces,
        )

    def _ends(self, text: str) -> Iterator[int]:
        """Of each unit, the number of its last character, white space not counted."""
        lengths = [len(unit) for unit in _without_marks(self.split(text), self.name)]
        num_characters, total = len(characters(text)), max(sum(lengths), 1)
        for end in accumulate(lengths):
            # A model may normalise the text to more or fewer characters: they are spread evenly.
            yield max(-(-end * num_characters // total) - 1, 0)

    @cached_property
    def _processor(self) -> Any:
        return _load_pieces(self.model)


def choose_unit(instances: Sequence[Instance], wanted: str = AUTO) -> TargetUnit:
    """What the lags of one log, or of several that are compared, are counted in.

    With "auto": characters, if most letters of the references (else of the predictions) are of a
    script without spaces, or if the log counts them and has no white space at all; else words. See
    `counting.Counting` for what else may be wanted. Raises a ValueError for any other unit, or a
    file that is no model.
    """
    name, _, model = wanted.partition(":")
    if name == "spm" and model:
        unit = TargetUnit("spm", model)
        unit.split("a")  # a file that is no model is told at once
        return unit
    if wanted in ("word", "char"):
        return TargetUnit("word" if wanted == "word" else "char")
    if wanted != AUTO:
        raise ValueError(
            f"latency unit {wanted!r}: give word, char, or spm:FILE with a SentencePiece model"
        )
    if is_unspaced(target_texts(instances)):
        return TargetUnit("char")
    # The log of a tool may count characters without saying so of a script that has spaces.
    in_characters = {i.latency_unit for i in instances if i.delays} == {"char"}
    has_spaces = any(len(i.prediction.split()) > 1 for i in instances)
    return TargetUnit("char" if in_characters and not has_spaces else "word")


def target_texts(instances: Iterable[Instance]) -> list[str]:
    """Texts in the language of the target: the references, or the predictions if there are none."""
    instances = list(instances)
    references = [i.reference for i in instances if i.reference]
    return references or [i.prediction for i in instances]


def _without_marks(units: Sequence[str], name: LatencyUnit) -> list[str]:
    """Units without white space, for which pieces have a mark."""
    return ["".join(u.replace("\u2581", " ").split()) for u in units] if name == "spm" else [*units]


def _character_times(instance: Instance) -> Times:
    """Delay and time of every character but white space."""
    lengths = [len(unit) for unit in _without_marks(instance.units(), instance.latency_unit)]
    delays, elapsed = (
        [time for time, length in zip(times, lengths, strict=True) for _ in range(length)]
        for times in (instance.delays, instance.elapsed)
    )
    if len(delays) != len(characters(instance.prediction)):
        raise ValueError(
            f"instance {instance.index}: the pieces in prediction_spm are not its prediction"
        )
    return delays, elapsed


def _load_pieces(file: str) -> Any:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise ValueError(
            "latency in subwords needs sentencepiece, which is not installed: "
            "pip install sentencepiece"
        ) from None
    try:
        return SentencePieceProcessor(model_file=file)
    except (OSError, RuntimeError):
        raise ValueError(f"spm:{file}: not a file of a SentencePiece model") from None
