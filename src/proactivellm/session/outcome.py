"""Turns the distributions of a step into tokens, and tokens into WRITEs or wishes to READ.

All lanes are judged at once on the device; one small copy brings tokens and decisions to the host.
Legend: P = lanes that probe in this step, V = vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from proactivellm.core.layout import TARGET
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import StepOutput
from proactivellm.policy.base import DraftPolicy
from proactivellm.policy.reason import Reason
from proactivellm.session import drafts, writing
from proactivellm.session.deciding import Question, StepEvidence, ask_rules, undecided
from proactivellm.session.events import Event, Probed
from proactivellm.session.isolation import attempt_rows, out_of_memory, reason
from proactivellm.session.sampling import sample
from proactivellm.session.state import SessionState
from proactivellm.session.thoughts import Place, Thinker
from proactivellm.session.whole_view import WholeView
from proactivellm.session.window import Window

TARGET_ALLOWANCE = (32, 4)  # target tokens allowed: 32 + 4 per source token read
NOT_FINITE = (
    "the model's output is not finite (NaN or infinite): look at its weights and at the features "
    "it was given; float16 overflows where bfloat16 and float32 do not"
)


class NotFinite(ValueError):
    """The logits of a lane are NaN or infinite."""


class Outcomes:
    """Samples, decides and writes for the lanes of a step."""

    def __init__(
        self, model: StreamingCausalLM, window: Window | None = None, num_lanes: int = 1
    ) -> None:
        self.model = model
        self.window = window
        self.whole = WholeView(model, num_lanes)
        self.thinker = None if model.thinking is None else Thinker(model)
        self.by_token = model.settings.boundary == "token"
        self.early_end = model.settings.early_end
        self.end_ids = sorted(model.end_token_ids)
        self.starts = self._per_token(model.word_starts)
        self.decides = self._per_token(model.decision_points)
        self._starts_V = torch.tensor(self.starts, device=model.device)
        self._ends_E = torch.tensor(self.end_ids, dtype=torch.long, device=model.device)

    @torch.inference_mode()
    def resolve(self, questions: Sequence[Question], output: StepOutput) -> list[Event]:
        """Turn distributions into tokens, and tokens into WRITEs or wishes to READ.

        A lane whose logits are not finite, or whose sampling, policy or detokenizer fails, ends
        with its error; the others get their outcome of the same forward.

        The states of the lanes and the logits are changed.

        Raises:
            Exception: if memory ran out for every lane; each will probe again.
        """
        errors = {p: asked.error for p, asked in enumerate(questions) if asked.error}
        logits_PV = output.logits_PV
        finite_P = logits_PV.amax(-1).isfinite()  # NaN comes out of it, -inf forbids a token
        if self.thinker is not None:
            self.thinker.restrict([Place.of(asked.state) for asked in questions], logits_PV)
        tokens_P = self._sample(logits_PV, [asked.state for asked in questions], errors)
        if any(asked.evidence for asked in questions):
            self._forbid_ends(questions, logits_PV)
        evident = StepEvidence(questions, output, tokens_P, self._starts_V, errors, self.whole)
        codes_P = ask_rules(questions, evident, errors)
        if len(errors) == len(questions) and all(map(out_of_memory, errors.values())):
            raise errors[0]
        codes_P = torch.zeros_like(tokens_P) if codes_P is None else codes_P
        verdicts = torch.stack([tokens_P, codes_P, finite_P.long()]).T.tolist()
        events: list[Event] = []
        for p, (asked, (token, code, finite)) in enumerate(zip(questions, verdicts, strict=True)):
            try:
                if not finite:
                    raise NotFinite(NOT_FINITE)
                if p in errors:
                    raise errors[p]
                if self.thinker is not None and asked.state.group != TARGET:
                    events.append(self.thinker.write(asked.state, asked.lane, token))
                    continue
                why = None if asked.drafts else self._reason(asked, token, code)
                if asked.watch:
                    seen = evident.seen([p], asked.evidence)
                    probed = Probed(lane=asked.lane, token_id=token, reason=why, seen=seen)
                    events.append(probed)
                if why is None:
                    self._extend_draft(asked, token, events)
                else:
                    events += self._settle(asked, token, why)
                    if why.writes and asked.recurrent:
                        asked.state.past = evident.past(p, asked.recurrent)
            except Exception as error:
                events += writing.fail(asked.state, asked.lane, reason(error))
        return events

    def _forbid_ends(self, questions: Sequence[Question], logits_PV: Tensor) -> None:
        """What is looked at holds no ends where a lane may not end: it would READ (`_reason`).

        A draft may end, as it is no target.
        """
        rows = [p for p, asked in enumerate(questions) if self._holds_ends(asked)]
        if rows and self.end_ids:
            rows_R = torch.tensor(rows, device=logits_PV.device)
            logits_PV[rows_R[:, None], self._ends_E] = float("-inf")

    def _holds_ends(self, asked: Question) -> bool:
        """Whether the target may not end before its source; a draft is no target."""
        return not (self.early_end or asked.state.source_finished or asked.drafts)

    def _reason(self, asked: Question, token: int, code: int) -> Reason:
        """Why the candidate is written or not; the only place where the order is laid down."""
        state = asked.state
        if token in self.end_ids and self._holds_ends(asked):
            # The next best token would be one that the model does not mean, often one of many.
            return Reason.READ_END_HELD
        if state.num_written >= self._allowance(state):
            return Reason.READ_LENGTH_LIMIT
        if state.source_finished:
            return Reason.WRITE_SOURCE_FINISHED
        starts = self._starts_word(state, token)
        if not (starts or self.decides[token]):
            return Reason.WRITE_INSIDE_WORD
        by_bounds = asked.by_bounds[0 if starts else 1]
        if by_bounds is not None:
            return by_bounds
        try:
            return Reason(code)
        except ValueError:
            raise undecided(asked.policy, f"{code} is no code of `Reason`") from None

    def _settle(self, asked: Question, token: int, why: Reason) -> list[Event]:
        state, lane = asked.state, asked.lane
        starts = self._starts_word(state, token)
        if why == Reason.READ_LENGTH_LIMIT and state.source_finished:
            return writing.cut(state, lane)
        if not why.writes:
            writing.wish_read(state, starts or why == Reason.READ_END_HELD, why)
            return []
        events = self._write(state, lane, token, why)
        state.at_boundary = self.by_token
        return events

    def _write(self, state: SessionState, lane: int, token: int, why: Reason) -> list[Event]:
        if token in self.end_ids:
            return writing.write_end(state, lane, token, why)
        starts = self._starts_word(state, token)
        return [writing.write_token(state, lane, token, starts, why)]

    def _extend_draft(self, asked: Question, token: int, events: list[Event]) -> None:
        """Lengthen a draft by one token; at its end, write what the policy trusts."""
        state, policy = asked.state, asked.policy
        assert isinstance(policy, DraftPolicy)
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
        reasons = drafts.reasons_to_commit(state, policy, starts, whole)
        for drafted, why in zip(state.draft, reasons, strict=False):
            events += self._write(state, asked.lane, drafted, why)
        drafts.end_draft(state, policy, len(reasons))

    def _sample(
        self, logits_PV: Tensor, states: Sequence[SessionState], errors: dict[int, Exception]
    ) -> Tensor:
        """The next token of each lane, [P]; those that cannot be sampled are noted."""

        def draw(rows: Sequence[int]) -> Tensor:
            chosen = [states[p] for p in rows]
            logits = logits_PV if len(rows) == len(states) else logits_PV[list(rows)]
            steps = [s.num_sampled + len(s.draft) for s in chosen]
            history = [
                s.seen.of(s, logits.device) if s.sampling.repetition_penalty != 1 else ()
                for s in chosen
            ]
            return sample(logits, [s.sampling for s in chosen], steps, history)

        return attempt_rows(
            draw, range(len(states)), torch.zeros_like(logits_PV[:, 0]).long(), errors
        )

    def _per_token(self, flags: list[bool]) -> list[bool]:
        """Flags by token id for every row of the output layer; all True at token boundaries.

        What ends the target closes the word before it, and is decided on as a word.
        """
        rows = self.model.parts.output_layer.weight.shape[0]
        per_token = [True] * rows if self.by_token else (flags + [False] * rows)[:rows]
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
