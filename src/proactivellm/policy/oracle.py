"""An oracle: what a policy could gain at most that knew when the model has read enough."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from proactivellm.policy.base import BoundedPolicy
from proactivellm.policy.evidence import Acceptance, Evidence, Seen
from proactivellm.policy.options import check_number, format_scalar, option, parse_float

AGREE = "agree"  # the share 1: the model would write the same token


def _parse_share(text: str) -> float:
    return 1.0 if text == AGREE else parse_float(text)


def _write_share(share: float) -> str:
    return AGREE if share == 1 else format_scalar(share)


@dataclass(frozen=True, kw_only=True)
class Oracle(BoundedPolicy):
    """Write what the model would write after the whole source: a ceiling, for evaluation only.

    A word is written when its first token, in the same place after the whole source, is at least
    `acceptable` times as probable as the most probable one; `agree`, which is 1, wants that one.
    """

    name: ClassVar[str] = "oracle"
    main_key: ClassVar[str | None] = "acceptable"
    clairvoyant: ClassVar[bool] = True
    evidence: ClassVar[tuple[Evidence, ...]] = (Acceptance(),)  # type: ignore[assignment]

    acceptable: float = option(parse=_parse_share, write=_write_share)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("acceptable", self.acceptable)
        if not 0 < self.acceptable <= 1:
            raise ValueError(f"acceptable must be above 0 and at most 1, got {self.acceptable}")

    def writes(self, seen: Seen) -> Tensor:
        return seen[Acceptance()] >= self.acceptable
