"""What is counted in a target: tokens for BLEU; words, characters or subwords for latency.

White space separates words, but some scripts write none. The script of the references decides what
is counted there, unless the caller names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proactivellm.metrics.tokenizers import Choice, choose_tokenizer
from proactivellm.metrics.units import AUTO, TargetUnit, choose_unit, target_texts
from proactivellm.output.log import Instance, Task
from proactivellm.output.scripts import is_unspaced


@dataclass(frozen=True, kw_only=True)
class Counting:
    """What the caller wants counted; "auto" leaves it to the script of the references."""

    tokenize: str = AUTO  # of BLEU, a tokenizer of sacrebleu, see `tokenizers.choose_tokenizer`
    # Of latency, "word", "char" or "spm:FILE" (pieces of that SentencePiece model), as SimulEval
    # has it.
    unit: str = AUTO


_COUNTS_WORDS: dict[Task, str] = {"asr": "WER", "qa": "F1", "summary": "ROUGE"}


@dataclass(frozen=True)
class Counted:
    """What was decided to be counted in certain logs."""

    tokenizer: Choice
    unit: TargetUnit
    unspaced: bool = False  # whether most letters of the target are of a script without spaces
    # Whether the log has times of words only, which stand for those of a smaller unit.
    coarse: bool = False

    def facts(self, task: Task) -> dict[str, Any]:
        """`target_unit`, and `counting_note` where something else than usual is counted."""
        notes = []
        if task == "translation" and self.tokenizer.note:
            notes.append(self.tokenizer.note)
        elif self.unspaced and (name := _COUNTS_WORDS.get(task)):
            notes.append(f"{name}: a character of a script without spaces is a word")
        if self.unit.name != "word":
            notes.append(f"latency by {self.unit.label} of the target")
        if self.coarse:
            notes.append("the log has times of words, which stand for all that is in a word")
        facts: dict[str, Any] = {"target_unit": self.unit.label}
        return facts | ({"counting_note": "; ".join(notes)} if notes else {})


def resolve(instances: Sequence[Instance], counting: Counting | None = None) -> Counted:
    """Decides what is counted in one log, or in several that are compared.

    Raises a ValueError if there is no such unit or tokenizer, or what it needs is not installed.
    """
    counting = counting or Counting()
    texts = target_texts(instances)
    has_references = any(instance.reference for instance in instances)
    # Without references there is no BLEU, and nothing to tell about its tokenizer.
    tokenizer = choose_tokenizer(texts if has_references else [], counting.tokenize)
    unit = choose_unit(instances, counting.unit)
    coarse = unit.name != "word" and any(i.delays and i.latency_unit == "word" for i in instances)
    return Counted(tokenizer, unit, is_unspaced(texts), coarse)
