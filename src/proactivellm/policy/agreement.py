"""Policies that draft ahead after each READ and commit what looks stable: local agreement, hold-n.

Drafts are token ids that follow the committed prefix; a policy returns how many to commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from proactivellm.policy.base import BoundedPolicy, DraftPolicy
from proactivellm.policy.options import check_int, option


@dataclass(frozen=True, kw_only=True)
class _Drafting(BoundedPolicy, DraftPolicy):
    main_key: ClassVar[str | None] = "n"

    n: int = option()
    draft: int = option(default=12)
    every: int = option(default=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("draft", self.draft, 1)
        check_int("every", self.every, 1)

    @property
    def lookahead(self) -> int:
        return self.draft


@dataclass(frozen=True, kw_only=True)
class LocalAgreement(_Drafting):
    """Commit the longest common prefix of the last n hypotheses.

    Liu et al. 2020 (arXiv 2005.11185). Until there are n hypotheses nothing is committed.

    Args:
        n: Hypotheses that must agree, at least 2.
        draft: Tokens drafted at most at a time, at least 1.
        every: Source units from one draft to the next, at least 1.
    """

    name: ClassVar[str] = "local-agreement"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("n of local-agreement", self.n, 2)

    @property
    def history(self) -> int:
        return self.n

    def commit(self, drafts: Sequence[Sequence[int]]) -> int:
        newest = drafts[-self.n :]
        if len(newest) < self.n:
            return 0
        num_agreed = 0
        for tokens in zip(*newest, strict=False):  # ends with the shortest, its last token included
            if len(set(tokens)) > 1:
                break
            num_agreed += 1
        return num_agreed


@dataclass(frozen=True, kw_only=True)
class HoldN(_Drafting):
    """Commit the newest hypothesis without its last n tokens.

    Liu et al. 2020 (arXiv 2005.11185). Whole words are committed, so that `hold-n:1,every=4` is
    fixed chunking: after each 4 units all but the last word is written, as far as min_lag allows.

    Args:
        n: Tokens held back, at least 0.
        draft: Tokens drafted at most at a time, more than n.
        every: Source units from one draft to the next, at least 1.
    """

    name: ClassVar[str] = "hold-n"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("n of hold-n", self.n, 0)
        if self.draft <= self.n:
            raise ValueError(
                f"draft={self.draft} must be above n={self.n}: hold-n would never commit a token"
            )

    @property
    def history(self) -> int:
        return 1

    def commit(self, drafts: Sequence[Sequence[int]]) -> int:
        return max(0, len(drafts[-1]) - self.n) if drafts else 0
