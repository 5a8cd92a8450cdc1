"""What scores count in a target: tokens of BLEU, and words, characters or subwords of latency.

Words are what white space separates, and some scripts have none between words: there, what is
counted is chosen by the script of the references. Whoever knows better names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proactivellm.metrics.tokenizers import Choice, choose_tokenizer
from proactivellm.metrics.units import AUTO, TargetUnit, choose_unit, target_texts
from proactivellm.output.log import Instance, Task, is_unspaced


@dataclass(frozen=True, kw_only=True)
class Counting:
    """What is to be counted, as it is asked for.

    Attributes:
        tokenize: of BLEU, a tokenizer of sacrebleu, see `tokenizers.choose_tokenizer`; "auto" = by
            the script of the references.
        unit: of latency, "word", "char" or "spm:FILE" (pieces of that SentencePiece model), as
            SimulEval has it; "auto" = by the script of the references, or of the predictions if
            there are none.
    """

    tokenize: str = AUTO
    unit: str = AUTO


@dataclass(frozen=True)
class Counted:
    """What is counted of certain logs.

    Attributes:
        tokenizer: of BLEU.
        unit: of latency.
        unspaced: whether most letters of the target are of a script without spaces.
        coarse: whether times of words stand for those of the smaller unit.
    """

    tokenizer: Choice
    unit: TargetUnit
    unspaced: bool = False
    coarse: bool = False

    def facts(self, task: Task) -> dict[str, Any]:
        """What scores tell about it.

        Returns:
            `target_unit`, and `counting_note` where something else than usual is counted.
        """
        notes = []
        if task == "translation" and self.tokenizer.note:
            notes.append(self.tokenizer.note)
        elif task != "translation" and self.unspaced:
            name = "WER" if task == "asr" else "F1"
            notes.append(f"{name}: a character of a script without spaces is a word")
        if self.unit.name != "word":
            notes.append(f"latency by {self.unit.label} of the target")
        if self.coarse:
            notes.append("the log has times of words, which stand for all that is in a word")
        facts: dict[str, Any] = {"target_unit": self.unit.label}
        return facts | ({"counting_note": "; ".join(notes)} if notes else {})


def resolve(instances: Sequence[Instance], counting: Counting | None = None) -> Counted:
    """Decides what is counted.

    Args:
        instances: of one log, or of several that are compared.

    Raises:
        ValueError: there is no such unit or tokenizer, or what it needs is not there.
    """
    counting = counting or Counting()
    texts = target_texts(instances)
    has_references = any(instance.reference for instance in instances)
    tokenizer = choose_tokenizer(texts if has_references else [], counting.tokenize)
    unit = choose_unit(instances, counting.unit)
    coarse = unit.name != "word" and any(i.delays and i.latency_unit == "word" for i in instances)
    return Counted(tokenizer, unit, is_unspaced(texts), coarse)
