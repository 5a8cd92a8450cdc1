"""What a step's distributions turn into: tokens, and of them WRITEs or wishes to READ.

All lanes are judged at once on the device; one small copy brings tokens and decisions to the host.
Legend: P = lanes that probe in this step, V = vocabulary, U = units in view.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.model.lanes import StepOutput
from proactivellm.model.probe import unit_attention
from proactivellm.policy.base import DraftPolicy, Observation, Policy
from proactivellm.session import lane as lanes
from proactivellm.session.sampling import sample
from proactivellm.session.state import SessionState, Write

TARGET_ALLOWANCE = (32, 4)  # target tokens allowed: 32 + 4 per source token read


class Outcomes:
    """Samples, decides and writes for the lanes of a step.

    Args:
        model: whose tokenizer says where words begin, and what ends a target.
    """

    def __init__(self, model: StreamingCausalLM) -> None:
        self.model = model
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

        Args:
            probing: lanes that probed.
            states: theirs; changed.
            policies: theirs.
            output: of the step; its logits are changed.

        Returns:
            The tokens written.
        """
        logits_PV = output.logits_PV
        counters = [[s.units_read, s.words, s.source_finished, s.dropped_units] for s in states]
        counters_4P = torch.tensor(counters, device=logits_PV.device).T
        tokens_P = self._sample(logits_PV, states)
        held_P = self._hold_ends(states, policies, tokens_P, logits_PV)
        continues_P = ~self._starts_V[tokens_P] & (counters_4P[1] > 0)
        counters_4P[1] -= continues_P.long()  # words before that of the token
        decisions_P = self._decide(policies, counters_4P, logits_PV, output)
        outcomes_3P = torch.stack([tokens_P, decisions_P.long(), held_P.long()])
        writes: list[Write] = []
        for lane, state, policy, token, decision, held in zip(
            probing, states, policies, *outcomes_3P.tolist(), strict=True
        ):
            if held:
                lanes.wish_read(state, at_boundary=True)
            elif isinstance(policy, DraftPolicy) and not state.source_finished:
                writes += self._extend_draft(policy, lane, state, token)
            else:
                writes += self._write_or_read(lane, state, token, bool(decision))
        return writes

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

    def _sample(self, logits_PV: Tensor, states: Sequence[SessionState]) -> Tensor:
        samplings = [s.sampling for s in states]
        history = None
        if any(sampling.repetition_penalty != 1 for sampling in samplings):
            history = [s.history() if s.sampling.repetition_penalty != 1 else [] for s in states]
        steps = [s.num_written + len(s.draft) for s in states]
        return sample(logits_PV, samplings, steps, history)

    def _decide(
        self,
        policies: Sequence[Policy],
        counters_4P: Tensor,
        logits_PV: Tensor,
        output: StepOutput,
    ) -> Tensor:
        """WRITE or READ, bool [P]; one question per policy."""
        distinct = {id(policy): policy for policy in policies}.values()
        if len(distinct) == 1:
            return policies[0].decide(observe(policies[0], counters_4P, logits_PV, output, None))
        decisions_P = torch.zeros(len(policies), dtype=torch.bool, device=logits_PV.device)
        for policy in distinct:
            rows = [p for p, other in enumerate(policies) if other is policy]
            rows_R = torch.tensor(rows, device=logits_PV.device)
            seen = observe(policy, counters_4P[:, rows_R], logits_PV[rows_R], output, rows_R)
            decisions_P[rows_R] = policy.decide(seen)
        return decisions_P

    def _write_or_read(
        self, lane: int, state: SessionState, token: int, decision: bool
    ) -> list[Write]:
        starts = self._starts_word(state, token)
        full = state.num_written >= self._allowance(state)
        if full and state.source_finished:
            state.truncated = state.finished = True
            text = state.detokenizer.finish()
            return [
                Write(
                    lane=lane,
                    token_id=None,
                    text=text,
                    units_read=state.units_read,
                    final=True,
                    source_finished=state.source_finished,
                )
            ]
        open_to_decision = starts or self.decides[token]
        if not state.source_finished and (full or (open_to_decision and not decision)):
            lanes.wish_read(state, at_boundary=starts)
            return []
        ends = token in self.end_ids
        write = lanes.write_token(state, lane, token, starts, ends)
        state.at_boundary = self.by_token
        return [write]

    def _extend_draft(
        self, policy: DraftPolicy, lane: int, state: SessionState, token: int
    ) -> list[Write]:
        """Lengthen a draft by one token; at its end, write what the policy trusts."""
        complete = token in self.end_ids
        if self.early_end or not complete:
            state.settled = len(state.target) + len(state.draft)
            state.draft.append(token)
        starts = [self.starts[t] for t in state.draft]
        whole = complete or self.by_token
        full = state.num_written + len(state.draft) >= self._allowance(state)
        if not (complete or full or lanes.draft_suffices(state, policy, starts, whole)):
            return []
        committed = lanes.draft_length_to_commit(state, policy, starts, whole)
        writes = []
        for drafted in state.draft[:committed]:
            begins, ends = self._starts_word(state, drafted), drafted in self.end_ids
            writes.append(lanes.write_token(state, lane, drafted, begins, ends))
        lanes.end_draft(state, policy, committed)
        return writes

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
        """Target tokens a stream may have written by now."""
        config = self.model.model.generation_config
        if config is not None and config.max_new_tokens:
            return config.max_new_tokens
        base, per_token = TARGET_ALLOWANCE
        return base + per_token * state.source_tokens


def observe(
    policy: Policy,
    counters_4P: Tensor,
    logits_PV: Tensor,
    output: StepOutput,
    rows_P: Tensor | None,
) -> Observation:
    """What a policy asked to see, and nothing else.

    Args:
        policy: says what it needs.
        counters_4P: units read, words written, source finished, units dropped, int64.
        logits_PV: of its lanes.
        output: of the step.
        rows_P: its lanes among those of the output; None = all.

    Returns:
        The observation of these lanes.
    """
    units_P, words_P, finished_P, dropped_P = counters_4P
    needs = policy.needs
    probs_PV = logits_PV.softmax(-1) if needs & {"entropy", "confidence"} else None
    attention_PU = entropy_P = max_prob_P = None
    if "attention" in needs:
        assert output.weights_LPHK is not None and output.unit_PK is not None
        weights, units = output.weights_LPHK, output.unit_PK
        if rows_P is not None:
            weights, units = weights[:, rows_P], units[rows_P]
        heads = getattr(policy, "heads", None)
        attention_PU = unit_attention(weights, units, heads, output.num_units)
    if probs_PV is not None and "entropy" in needs:
        entropy_P = entropy(probs_PV, getattr(policy, "top", 0))
    if probs_PV is not None and "confidence" in needs:
        max_prob_P = probs_PV.max(-1).values
    return Observation(
        units_read_B=units_P,
        words_written_B=words_P,
        source_finished_B=finished_P.bool(),
        units_dropped_B=dropped_P,
        entropy_B=entropy_P,
        max_prob_B=max_prob_P,
        attention_BU=attention_PU,
    )


def entropy(probs_PV: Tensor, top: int = 0) -> Tensor:
    """Entropy of distributions.

    Args:
        probs_PV: probabilities, rows sum to 1.
        top: only over the most probable tokens, renormalised; 0 = all.

    Returns:
        nats, [P].
    """
    if top and top < probs_PV.shape[-1]:
        probs_PV = probs_PV.topk(top, dim=-1).values
        probs_PV = probs_PV / probs_PV.sum(-1, keepdim=True)
    return -torch.special.xlogy(probs_PV, probs_PV).sum(-1)
