"""The policy that counts words as an encoder hears them: cheap evidence, as no LM is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.evidence import Evidence, Rows, Seen
from proactivellm.policy.options import option

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM


@dataclass(frozen=True)
class Spoken(Evidence):
    """Words of the source that are over, as a CTC head of the encoder hears them, [P].

    The word under way counts by how likely it is over (`Unit.spoken`).
    """

    def of(self, rows: Rows) -> Tensor:
        """See `Rows.spoken_P`."""
        return rows.spoken_P

    def check(self, model: StreamingCausalLM) -> None:
        """Refuses (ValueError) a model that has no head of CTC."""
        if getattr(model.front_end, "ctc", None) is None:
            raise ValueError(
                "nothing counts the words that were said: the model has no head of CTC (ctc.pt), "
                "which `ctc_weight` in the table [speech] of a recipe trains"
            )


@dataclass(frozen=True, kw_only=True)
class Ctc(ThresholdPolicy):
    """Write when a CTC head of the encoder has heard so many words more than were written.

    The threshold is above 0: at 1 a word is written once a word that may be it is over, at 0.5 once
    that is likely, at 2 one word later. So it is a wait-k over words that were said, in place of
    units (StreamSpeech, Zhang et al. 2024, arXiv 2406.03049, decides on CTC as well).
    """

    name: ClassVar[str] = "ctc"
    evidence = (Spoken(),)

    # What was heard may be written in a pause: more than that is not.
    silence: str = option(default="write", parse=str)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_threshold(self.threshold > 0, "above 0 words")

    def statistic(self, seen: Seen) -> Tensor:
        return seen[self.evidence[0]] - seen.words_written_B

    def writes(self, seen: Seen) -> Tensor:
        return self.statistic(seen) >= self.threshold
