"""What a step's distributions turn into: tokens, and of them WRITEs or wishes to READ.

All lanes are judged at once on the device; one small copy brings tokens and decisions to the host.
Legend: P = lanes that probe in this step, V = vocabulary, U = units in view.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.model.lanes import StepOutput
from proactivellm.model.layout import TARGET
from proactivellm.policy.base import DraftPolicy, Policy
from proactivellm.session import drafts
from proactivellm.session import lane as lanes
from proactivellm.session.apart import gather, out_of_memory, reason
from proactivellm.session.observing import ask, observe
from proactivellm.session.sampling import sample
from proactivellm.session.state import SessionState, Write
from proactivellm.session.window import Window

TARGET_ALLOWANCE = (32, 4)  # target tokens allowed: 32 + 4 per source token read
NOT_FINITE = (
    "the model's output is not finite (NaN or infinite): look at its weights and at the features "
    "it was given; float16 overflows where bfloat16 and float32 do not"
)


class NotFinite(ValueError):
    """The logits of a lane are NaN or infinite."""


class Verdict(NamedTuple):
    """What a probe came to.

    Attributes:
        token: the token that would be written.
        decision: whether the policy says WRITE.
        held: whether it would end a target whose source is open.
    """

    token: int
    decision: bool
    held: bool


class Outcomes:
    """Samples, decides and writes for the lanes of a step.

    Args:
        model: whose tokenizer says where words begin, and what ends a target.
        window: what a stream keeps in view; everything if None.
    """

    def __init__(self, model: StreamingCausalLM, window: Window | None = None) -> None:
        self.model = model
        self.window = window
        self.by_token = model.settings.boundary == "token"
        self.early_end = model.settings.early_end
        self.end_ids = sorted(model.end_token_ids)
        self.starts = self._per_token(model.word_starts)
        self.decides = self._per_token(model.decision_points)
        self._starts_V = torch.tensor(self.starts, device=model.device)
        self._ends_E = torch.tensor(self.end_ids, dtype=torch.long, device=model.device)

    @torch.inference_mode()
    def resolve(
        self,
        probing: Sequence[int],
        states: Sequence[SessionState],
        policies: Sequence[Policy],
        output: StepOutput,
    ) -> list[Write]:
        """Turn distributions into tokens, and tokens into WRITEs or wishes to READ.

        A lane whose logits are not finite, or whose sampling, policy or detokenizer fails, ends
        with its error; the others get their outcome of the same forward.

        Args:
            probing: lanes that probed.
            states: theirs; changed.
            policies: theirs.
            output: of the step; its logits are changed.

        Returns:
            The tokens written.

        Raises:
            Exception: if memory ran out for every lane; each will probe again.
        """
        writes: list[Write] = []
        verdicts = self._judge(states, policies, output)
        for lane, state, policy, verdict in zip(probing, states, policies, verdicts, strict=True):
            try:
                if isinstance(verdict, Exception):
                    raise verdict
                self._settle(lane, state, policy, verdict, writes)
            except Exception as error:
                writes.append(lanes.fail(state, lane, reason(error)))
        return writes

    def _judge(
        self, states: Sequence[SessionState], policies: Sequence[Policy], output: StepOutput
    ) -> list[Verdict | Exception]:
        """What each lane would write and whether it may; nothing of a lane has changed yet."""
        logits_PV = output.logits_PV
        errors: dict[int, Exception] = {}
        counters = [[s.units_read, s.words, s.source_finished, s.dropped_units] for s in states]
        counters_4P = torch.tensor(counters, device=logits_PV.device).T
        finite_P = logits_PV.amax(-1).isfinite()  # NaN comes out of it, -inf forbids a token
        tokens_P = self._sample(logits_PV, states, errors)
        held_P = self._hold_ends(states, policies, tokens_P, logits_PV)
        continues_P = ~self._starts_V[tokens_P] & (counters_4P[1] > 0)
        counters_4P[1] -= continues_P.long()  # words before that of the token
        decisions_P = self._decide(policies, counters_4P, output, errors)
        if len(errors) == len(states) and all(map(out_of_memory, errors.values())):
            raise errors[0]
        outcomes_4P = torch.stack([tokens_P, decisions_P.long(), held_P.long(), finite_P.long()])
        verdicts: list[Verdict | Exception] = []
        for p, (token, decision, held, finite) in enumerate(outcomes_4P.T.tolist()):
            if not finite:
                verdicts.append(NotFinite(NOT_FINITE))
            else:
                verdicts.append(errors.get(p) or Verdict(token, bool(decision), bool(held)))
        return verdicts

    def _settle(
        self,
        lane: int,
        state: SessionState,
        policy: Policy,
        verdict: Verdict,
        writes: list[Write],
    ) -> None:
        if verdict.held:
            lanes.wish_read(state, at_boundary=True)
        elif isinstance(policy, DraftPolicy) and not state.source_finished:
            self._extend_draft(policy, lane, state, verdict.token, writes)
        else:
            writes += self._write_or_read(lane, state, verdict.token, verdict.decision)

    def _hold_ends(
        self,
        states: Sequence[SessionState],
        policies: Sequence[Policy],
        tokens_P: Tensor,
        logits_PV: Tensor,
    ) -> Tensor:
        """Lanes that would end a target whose source is not finished READ, come what may: bool [P].

        The next best token instead would be one that the model does not mean, and often the first
        of many. A draft may end, as it is no target. What policies look at holds no ends.
        """
        open_rows = [
            p
            for p, (state, policy) in enumerate(zip(states, policies, strict=True))
            if not state.source_finished and not isinstance(policy, DraftPolicy)
        ]
        held_P = torch.zeros_like(tokens_P, dtype=torch.bool)
        if self.early_end or not (open_rows and self.end_ids):
            return held_P
        rows_R = torch.tensor(open_rows, device=logits_PV.device)
        logits_PV[rows_R[:, None], self._ends_E] = float("-inf")
        held_P[rows_R] = torch.isin(tokens_P[rows_R], self._ends_E)
        return held_P

    def _sample(
        self, logits_PV: Tensor, states: Sequence[SessionState], errors: dict[int, Exception]
    ) -> Tensor:
        """The next token of each lane, [P]; those that cannot be sampled are noted."""

        def draw(rows: Sequence[int]) -> Tensor:
            chosen = [states[p] for p in rows]
            logits = logits_PV if len(rows) == len(states) else logits_PV[list(rows)]
            samplings = [s.sampling for s in chosen]
            history: list[Tensor | list[int]] | None = None
            if any(sampling.repetition_penalty != 1 for sampling in samplings):
                history = [
                    s.seen.of(s, logits.device) if s.sampling.repetition_penalty != 1 else []
                    for s in chosen
                ]
            return sample(
                logits, samplings, [s.num_written + len(s.draft) for s in chosen], history
            )

        return gather(draw, range(len(states)), torch.zeros_like(logits_PV[:, 0]).long(), errors)

    def _decide(
        self,
        policies: Sequence[Policy],
        counters_4P: Tensor,
        output: StepOutput,
        errors: dict[int, Exception],
    ) -> Tensor:
        """WRITE or READ, bool [P]; one question per policy; lanes without an answer are noted."""
        logits_PV = output.logits_PV
        num_lanes = len(policies)
        decisions_P = torch.zeros(num_lanes, dtype=torch.bool, device=logits_PV.device)

        def ask_rows(policy: Policy, rows: Sequence[int]) -> Tensor:
            if len(rows) == num_lanes:
                return ask(policy, observe(policy, counters_4P, logits_PV, output, None))
            rows_R = torch.tensor(rows, device=logits_PV.device)
            seen = observe(policy, counters_4P[:, rows_R], logits_PV[rows_R], output, rows_R)
            return ask(policy, seen)

        for policy in {id(policy): policy for policy in policies}.values():
            rows = [p for p, other in enumerate(policies) if other is policy]
            decisions_P = gather(partial(ask_rows, policy), rows, decisions_P, errors)
        return decisions_P

    def _write_or_read(
        self, lane: int, state: SessionState, token: int, decision: bool
    ) -> list[Write]:
        starts = self._starts_word(state, token)
        full = state.num_written >= self._allowance(state)
        if full and state.source_finished:
            return [lanes.cut(state, lane)]
        open_to_decision = starts or self.decides[token]
        if not state.source_finished and (full or (open_to_decision and not decision)):
            lanes.wish_read(state, at_boundary=starts)
            return []
        ends = token in self.end_ids
        write = lanes.write_token(state, lane, token, starts, ends)
        state.at_boundary = self.by_token
        return [write]

    def _extend_draft(
        self,
        policy: DraftPolicy,
        lane: int,
        state: SessionState,
        token: int,
        writes: list[Write],
    ) -> None:
        """Lengthen a draft by one token; at its end, write what the policy trusts."""
        complete = token in self.end_ids
        if self.early_end or not complete:
            state.counts[TARGET] = len(state.target) + len(state.draft)
            state.draft.append(token)
        starts = [self.starts[t] for t in state.draft]
        # A draft is never trimmed: a word that does not end is taken as it is before it outgrows
        # the window, as policies that do not draft write it.
        longest = self.window is not None and drafts.fills(state, policy, self.window.target)
        whole = complete or self.by_token or longest
        full = state.num_written + len(state.draft) >= self._allowance(state)
        if not (complete or full or longest or drafts.draft_suffices(state, policy, starts, whole)):
            return
        committed = drafts.draft_length_to_commit(state, policy, starts, whole)
        for drafted in state.draft[:committed]:
            begins, ends = self._starts_word(state, drafted), drafted in self.end_ids
            writes.append(lanes.write_token(state, lane, drafted, begins, ends))
        drafts.end_draft(state, policy, committed)

    def _per_token(self, flags: list[bool]) -> list[bool]:
        """Flags by token id for every row of the output layer; all True at token boundaries.

        What ends the target closes the word before it, and is decided on as a word.
        """
        rows = self.model.model.get_output_embeddings().weight.shape[0]
        per_token = [self.by_token or (i < len(flags) and flags[i]) for i in range(rows)]
        for token in self.end_ids:
            per_token[token] = True
        return per_token

    def _starts_word(self, state: SessionState, token: int) -> bool:
        return self.starts[token] or not state.words

    def _allowance(self, state: SessionState) -> int:
        """Target tokens a stream may have written by now.

        `max_new_tokens` of the generation settings is the limit of one answer. It holds for the
        whole stream, and anew each time that source leaves the window: an endless stream would
        otherwise fall silent for good. What is in view allows no more than it would without a
        limit, lest words without end make a stream slower with every drop. Without the setting,
        each source token read allows some more.
        """
        config = self.model.model.generation_config
        base, per_token = TARGET_ALLOWANCE
        if config is None or not config.max_new_tokens:
            return base + per_token * state.source_tokens
        if not state.dropped_units:
            return int(config.max_new_tokens)
        renewed = base + per_token * state.num_in_view
        return state.written_at_drop + min(int(config.max_new_tokens), renewed)
