"""Decisions: bounds settle what they can before the forward, rules are asked about the rest.

Legend: P = lanes that probe in this step, R = those of them that are asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from proactivellm.forward.lanes import StepOutput
from proactivellm.policy.base import DraftPolicy, Policy
from proactivellm.policy.evidence import Evidence, Recurrent, Rows, Seen
from proactivellm.policy.reason import Reason
from proactivellm.session.isolation import attempt, attempt_rows, out_of_memory, reason
from proactivellm.session.lane import Planned
from proactivellm.session.state import SessionState
from proactivellm.session.whole_view import WholeView


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a lane that probes has to be told."""

    state: SessionState
    lane: int
    policy: Policy
    watch: tuple[Evidence, ...] = ()  # what somebody looks at, whoever decides
    # Reasons that need no look: where the candidate begins a word, and where it goes on with the
    # last one. None: the rule is asked. Both None while a draft is made.
    by_bounds: tuple[Reason | None, Reason | None] = (None, None)
    error: Exception | None = None  # why the bounds could not be settled

    @cached_property
    def drafts(self) -> bool:
        """Whether the candidate lengthens a draft instead of being decided on."""
        return isinstance(self.policy, DraftPolicy) and self.by_bounds == (None, None)

    @cached_property
    def is_open(self) -> bool:
        """Whether the rule may have to be asked."""
        return None in self.by_bounds and not self.drafts and self.error is None

    @cached_property
    def evidence(self) -> tuple[Evidence, ...]:
        """What has to be computed for it."""
        own = self.policy.evidence if self.is_open else self.recurrent
        return (*own, *self.watch)

    @cached_property
    def recurrent(self) -> tuple[Recurrent, ...]:
        """What the policy will look back at, whatever decides now."""
        if Reason.WRITE_SOURCE_FINISHED in self.by_bounds or self.drafts or self.error:
            return ()
        return tuple(each for each in self.policy.evidence if isinstance(each, Recurrent))


def question(planned: Planned, policy: Policy, watch: tuple[Evidence, ...]) -> Question:
    """What a planned step will have to ask; integers only, its forward has not run."""
    state, lane = planned.state, planned.input.lane
    if planned.source_finished:
        finished = (Reason.WRITE_SOURCE_FINISHED,) * 2
        return Question(state=state, lane=lane, policy=policy, watch=watch, by_bounds=finished)
    if planned.silent and policy.waits_in_silence:
        silent = (Reason.READ_SILENCE,) * 2
        return Question(state=state, lane=lane, policy=policy, watch=watch, by_bounds=silent)
    if isinstance(policy, DraftPolicy):
        return Question(state=state, lane=lane, policy=policy, watch=watch)
    # The candidate is not known yet: it may go on with the last word, whose bounds hold then.
    try:
        bounds = _bounds(planned, policy)
    except Exception as error:
        fault = undecided(policy, reason(error))
        return Question(state=state, lane=lane, policy=policy, watch=watch, error=fault)
    return Question(state=state, lane=lane, policy=policy, watch=watch, by_bounds=bounds)


def _bounds(planned: Planned, policy: Policy) -> tuple[Reason | None, Reason | None]:
    """See `Question.by_bounds`."""
    words = planned.state.words
    if policy.restarts:
        settle = partial(planned.sentences.settle, policy, planned.units_read)
        begins = settle(words, begins=True)
        return begins, settle(words - 1, begins=False) if words else begins
    at_once = policy.settle(planned.units_read, words)
    return at_once, policy.settle(planned.units_read, words - 1) if words else at_once


class StepEvidence:
    """The evidence of a step: each one computed once, for all lanes that want it.

    Rows whose evidence cannot be computed are added to `errors`.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        output: StepOutput,
        tokens_P: Tensor,
        starts_V: Tensor,
        errors: dict[int, Exception],
        whole: WholeView,
    ) -> None:
        self._states = [asked.state for asked in questions]
        self._tokens_P, self._starts_V, self.device = tokens_P, starts_V, tokens_P.device
        self._values: dict[Evidence, tuple[Sequence[int], Tensor]] = {}
        views: dict[tuple[int, ...], Rows] = {}

        def compute(evidence: Evidence, rows: Sequence[int]) -> Tensor:
            if tuple(rows) not in views:
                chosen = None if len(rows) == len(questions) else self._index(rows)
                lanes = [(questions[p].lane, questions[p].state) for p in rows]
                ahead = partial(whole.logits, lanes)
                pasts = [state.past for _, state in lanes]
                spoken = [state.spoken for _, state in lanes]
                views[tuple(rows)] = Rows(output, tokens_P, chosen, ahead, pasts, spoken)
            values = evidence.of(views[tuple(rows)])
            if len(values) != len(rows):
                raise ValueError(f"it is {list(values.shape)}, and {len(rows)} lanes asked for it")
            return values

        for evidence, rows in _wanted(questions).items():
            known: list[int] = []
            parts: list[Tensor] = []
            for group, result in attempt(partial(compute, evidence), rows):
                if isinstance(result, Exception):
                    fault = ValueError(f"{evidence} could not be computed: {reason(result)}")
                    errors.setdefault(group[0], result if out_of_memory(result) else fault)
                else:
                    known += group
                    parts.append(result)
            if parts:
                self._values[evidence] = known, parts[0] if len(parts) == 1 else torch.cat(parts)

    def seen(self, rows: Sequence[int], wanted: Sequence[Evidence]) -> Seen:
        """What is shown of some lanes: that evidence, and their counters."""
        states = [self._states[p] for p in rows]
        counters = [[s.units_read, s.units_read - s.dropped_units, s.words] for s in states]
        units_R, in_view_R, words_R = torch.tensor(counters, device=self.device).T
        tokens_R = self._take(self._tokens_P, rows, range(len(self._states)))
        continues_R = ~self._starts_V[tokens_R] & (words_R > 0)
        return Seen(
            units_read_B=units_R,
            units_in_view_B=in_view_R,
            words_written_B=words_R - continues_R.long(),
            evidence={
                evidence: self._take(values, rows, known)
                for evidence, (known, values) in self._values.items()
                if evidence in wanted
            },
        )

    def past(self, row: int, wanted: Sequence[Recurrent]) -> dict[str, Tensor]:
        """What a lane keeps of this step if it writes: copies, for units in view."""
        state = self._states[row]
        in_view = state.units_read - state.dropped_units
        past = {}
        for evidence in wanted:
            known, values = self._values[evidence]
            past[evidence.key] = values[known.index(row)][..., :in_view].clone()
        return past

    def _take(self, values: Tensor, rows: Sequence[int], known: Sequence[int]) -> Tensor:
        """The values of `rows`, out of those of the rows `known`."""
        if list(rows) == list(known):
            return values
        return values[self._index([known.index(p) for p in rows])]

    def _index(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor(rows, device=self.device)


def ask_rules(
    questions: Sequence[Question], evident: StepEvidence, errors: dict[int, Exception]
) -> Tensor | None:
    """One question per policy, for all of its lanes that are open.

    Rows without an answer are added to `errors`.

    Returns:
        Codes of `Reason`, int64 [P], meaningless where nothing was open; None: nowhere.
    """
    rows_of: dict[int, list[int]] = {}
    for p, asked in enumerate(questions):
        if asked.is_open and p not in errors:
            rows_of.setdefault(id(asked.policy), []).append(p)
    if not rows_of:
        return None

    def ask_rows(policy: Policy, rows: Sequence[int]) -> Tensor:
        return ask(policy, evident.seen(rows, policy.evidence))

    codes_P = torch.zeros(len(questions), dtype=torch.long, device=evident.device)
    for rows in rows_of.values():
        work = partial(ask_rows, questions[rows[0]].policy)
        codes_P = attempt_rows(work, rows, codes_P, errors)
    return codes_P


def ask(policy: Policy, seen: Seen) -> Tensor:
    """What a policy decides: codes, int64 [R].

    Raises:
        ValueError: if it fails, or gives anything else; names the policy.
    """
    try:
        codes_R = policy.decide(seen)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise undecided(policy, reason(error)) from error
    units_R = seen.units_read_B
    if not isinstance(codes_R, Tensor):
        raise ValueError(f"policy {policy.name} decided {codes_R!r}: it has to give a tensor")
    if codes_R.shape != units_R.shape or codes_R.dtype != torch.long:
        raise ValueError(
            f"policy {policy.name} decided {codes_R.dtype} {list(codes_R.shape)}: it has to give "
            f"int64 [{len(units_R)}], codes of `Reason` (or bool from `writes`, True = WRITE)"
        )
    return codes_R.to(units_R.device)


def undecided(policy: Policy, fault: str) -> ValueError:
    """The error of a lane whose policy failed."""
    return ValueError(f"policy {policy.name} could not decide: {fault}")


def _wanted(questions: Sequence[Question]) -> dict[Evidence, list[int]]:
    """The rows that want each evidence."""
    wanted: dict[Evidence, list[int]] = {}
    for p, asked in enumerate(questions):
        for evidence in dict.fromkeys(asked.evidence):
            wanted.setdefault(evidence, []).append(p)
    return wanted
