"""Policies that share a lane for as long as they decide alike."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from proactivellm.policy.base import Policy
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.evidence import Evidence, Seen
from proactivellm.policy.reason import Reason


class Crowd(Policy):
    """The policies of one lane, by number; they differ in threshold and bounds only.

    Where they disagree the lane READs, which changes nothing that is written, and `leavers` are
    those that would have written. Whoever drives the lane takes them out (`part`) and lets them
    probe there again, in a lane of their own.
    """

    name: ClassVar[str] = "crowd"

    def __init__(self, members: Mapping[int, ThresholdPolicy]) -> None:
        self._one = next(iter(members.values()))
        self._enter(members)

    def _enter(self, members: Mapping[int, ThresholdPolicy]) -> None:
        self.members = dict(members)
        self.leavers: set[int] = set()
        # Those that differ in their bounds only have one answer, where no bound holds.
        self._rules: dict[ThresholdPolicy, list[int]] = {}
        for number, policy in self.members.items():
            rule = replace(policy, min_lag=0, max_lag=None)
            self._rules.setdefault(rule, []).append(number)

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """That of each of them."""
        return self._one.evidence

    @property
    def spec(self) -> str:
        """For logs, which nobody reads: a crowd cannot be asked for."""
        return self._one.spec

    @property
    def min_lag(self) -> int:
        """The least: the others READ while it probes."""
        return min(each.min_lag for each in self.members.values())

    @property
    def stride(self) -> float:
        """That of each of them."""
        return self._one.stride

    @property
    def silence(self) -> str:
        """That of each of them."""
        return self._one.silence

    def settle(self, units_read: int, words_written: int) -> Reason | None:
        """What the bounds of all say; None if those of one of them leave it open."""
        said = {each.settle(units_read, words_written) for each in self.members.values()}
        return said.pop() if len(said) == 1 else None

    def decide(self, seen: Seen) -> Tensor:
        """What all would decide, or READ; of one lane, as each has a crowd of its own."""
        counters = int(seen.units_read_B), int(seen.words_written_B)
        write: set[int] = set()
        for rule, numbers in self._rules.items():
            by_rule = Reason.WRITE_RULE if bool(rule.writes(seen)) else Reason.READ_RULE
            for number in numbers:
                settled = self.members[number].settle(*counters)
                write |= {number} if (by_rule if settled is None else settled).writes else set()
        all_write = len(write) == len(self.members)
        self.leavers = set() if all_write else write
        code = Reason.WRITE_RULE if all_write else Reason.READ_RULE
        return torch.full_like(seen.units_read_B, int(code))

    def absent(self, units_read: int, words_written: int) -> set[int]:
        """Those that do not probe yet where the next token is known to begin a word."""
        wanted = {n: each.required_units(words_written) for n, each in self.members.items()}
        return {number for number, units in wanted.items() if units is None or units > units_read}

    def part(self, numbers: Collection[int]) -> dict[int, ThresholdPolicy]:
        """Takes some of them out, and gives them."""
        leave = {number: self.members[number] for number in numbers}
        self._enter({n: each for n, each in self.members.items() if n not in leave})
        return leave
