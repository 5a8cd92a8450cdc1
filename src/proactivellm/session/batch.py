"""The READ/WRITE loop: many streams in one forward per step; a session is a batch of one lane.

Legend: B = lanes in use, P = lanes that probe in this step, V = vocabulary, U = units.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from proactivellm.model.causal_lm import StepOutput, StreamingCausalLM
from proactivellm.model.probe import unit_attention
from proactivellm.output.detokenize import Detokenizer
from proactivellm.policy.base import DraftPolicy, Observation, Policy
from proactivellm.session import lane as lanes
from proactivellm.session.sampling import Sampling, sample
from proactivellm.session.state import SessionState, Write
from proactivellm.units.unit import Unit

TARGET_ALLOWANCE = (32, 4)  # target tokens allowed: 32 + 4 per source token read


class Batch:
    """Streams that advance together, one forward per step.

    Args:
        model: the streaming model.
        policy: decides READ or WRITE for every lane.
        num_lanes: streams held at once.
        sampling: how tokens are chosen; the model's generation settings if left out.
    """

    def __init__(
        self,
        model: StreamingCausalLM,
        policy: Policy,
        num_lanes: int = 1,
        sampling: Sampling | None = None,
    ) -> None:
        if num_lanes < 1:
            raise ValueError(f"a batch needs at least one lane, got {num_lanes}")
        self.model = model
        self.policy = policy
        self.sampling = sampling or Sampling.from_generation_config(model.model.generation_config)
        self.cache = model.new_cache(num_lanes)
        self.states: list[SessionState | None] = [None] * num_lanes
        self.forwards = 0
        self.by_token = model.settings.boundary == "token"
        self.starts = self._per_token(model.word_starts)
        self.decides = self._per_token(model.decision_points)
        self.end_ids = sorted(model.end_token_ids)

    def open(self, sampling: Sampling | None = None) -> int:
        """Start a stream in a free lane.

        Args:
            sampling: of this stream, else that of the batch.

        Returns:
            The lane.

        Raises:
            RuntimeError: if no lane is free.
        """
        if None not in self.states:
            raise RuntimeError(f"all {len(self.states)} lanes are in use; release one first")
        lane = self.states.index(None)
        head = list(self.model.prompt.target_head)
        self.states[lane] = SessionState(
            target=head,
            num_head=len(head),
            sampling=sampling or self.sampling,
            detokenizer=Detokenizer(self.model.tokenizer),
            at_boundary=True,
        )
        return lane

    def state(self, lane: int) -> SessionState:
        """State of a stream.

        Args:
            lane: from `open`.

        Returns:
            The state, live.

        Raises:
            RuntimeError: if no stream is open there.
        """
        state = self.states[lane]
        if state is None:
            raise RuntimeError(f"no stream is open in lane {lane}")
        return state

    def push(self, lane: int, units: Iterable[Unit]) -> None:
        """Make source units available to a stream.

        Args:
            lane: from `open`.
            units: in order; the last of the stream has `final` set.

        Raises:
            ValueError: if a unit follows the final one.
        """
        state = self.state(lane)
        for unit in units:
            if state.closed:
                raise ValueError("the source is closed: its final unit was already pushed")
            state.pending.append(unit)
            state.closed = unit.final
            if unit.is_end and not state.units_read and len(state.pending) == 1:
                state.finished = True  # an empty source has an empty target

    def release(self, lane: int) -> None:
        """Free a lane.

        Args:
            lane: from `open`.
        """
        self.state(lane)
        self.states[lane] = None
        self.cache.clear(lane)

    def step(self) -> list[Write] | None:
        """One forward for every lane that has something to do.

        Returns:
            The tokens written, or None if every lane waits for input or is finished.
        """
        inputs = [
            planned
            for lane, state in enumerate(self.states)
            if state is not None
            and (planned := lanes.plan_step(state, lane, self.policy, self.model.prompt))
        ]
        if not inputs:
            return None
        attention = "attention" in self.policy.needs
        output = self.model.step(self.cache, inputs, attention=attention)
        self.forwards += 1
        writes = self._resolve([i.lane for i in inputs if i.probes], output) if output else []
        for planned in inputs:
            state = self.state(planned.lane)
            self.cache.lengths[planned.lane] = state.num_source + state.settled
        return writes

    def snapshot(self, lane: int) -> dict[str, Any]:
        """A stream as plain values and tensors, for cloning and saving.

        Args:
            lane: from `open`.

        Returns:
            `state` and `cache`.
        """
        return {"state": self.state(lane).state_dict(), "cache": self.cache.snapshot(lane)}

    def restore(self, lane: int, snapshot: dict[str, Any]) -> None:
        """Continue a stream in a lane.

        Args:
            lane: from `open`; what it held is lost.
            snapshot: from `snapshot`, of the same model.
        """
        detokenizer = Detokenizer(self.model.tokenizer)
        self.states[lane] = SessionState.from_state_dict(snapshot["state"], detokenizer)
        self.cache.restore(lane, snapshot["cache"])

    def _resolve(self, probing: list[int], output: StepOutput) -> list[Write]:
        """Turn distributions into tokens, and tokens into WRITEs or wishes to READ."""
        states = [self.state(lane) for lane in probing]
        drafts = isinstance(self.policy, DraftPolicy)
        open_P = [not s.source_finished and not drafts for s in states]
        logits_PV = output.logits_PV
        if any(open_P) and self.end_ids:
            forbidden = torch.zeros_like(logits_PV, dtype=torch.bool)
            forbidden[:, self.end_ids] = torch.tensor(open_P, device=logits_PV.device)[:, None]
            logits_PV = logits_PV.masked_fill(forbidden, float("-inf"))
        steps = [s.num_written + len(s.draft) for s in states]
        history = [[*s.read_ids, *s.target, *s.draft] for s in states]
        tokens = sample(logits_PV, [s.sampling for s in states], steps, history).tolist()
        words = [
            s.words - (not self._starts_word(s, t)) for s, t in zip(states, tokens, strict=True)
        ]
        observation = self._observe(states, words, logits_PV, output)
        decisions = self.policy.decide(observation).tolist()
        writes: list[Write] = []
        for lane, state, token, decision in zip(probing, states, tokens, decisions, strict=True):
            if isinstance(self.policy, DraftPolicy) and not state.source_finished:
                writes += self._extend_draft(self.policy, lane, state, token)
            else:
                writes += self._write_or_read(lane, state, token, decision)
        return writes

    def _write_or_read(
        self, lane: int, state: SessionState, token: int, decision: bool
    ) -> list[Write]:
        starts = self._starts_word(state, token)
        full = state.num_written >= self._allowance(state)
        if full and state.source_finished:
            state.truncated = state.finished = True
            text = state.detokenizer.finish()
            return [
                Write(lane=lane, token_id=None, text=text, units_read=state.units_read, final=True)
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
        if not complete:
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
            begins = self._starts_word(state, drafted)
            writes.append(lanes.write_token(state, lane, drafted, begins, False))
        lanes.end_draft(state, policy, committed)
        return writes

    def _per_token(self, flags: list[bool]) -> list[bool]:
        """Flags by token id for every row of the output layer; all True at token boundaries."""
        rows = self.model.model.get_output_embeddings().weight.shape[0]
        return [self.by_token or (i < len(flags) and flags[i]) for i in range(rows)]

    def _starts_word(self, state: SessionState, token: int) -> bool:
        return self.starts[token] or not state.words

    def _allowance(self, state: SessionState) -> int:
        """Target tokens a stream may have written by now."""
        config = self.model.model.generation_config
        if config is not None and config.max_new_tokens:
            return config.max_new_tokens
        base, per_token = TARGET_ALLOWANCE
        return base + per_token * state.num_source

    def _observe(
        self,
        states: Sequence[SessionState],
        words: Sequence[int],
        logits_PV: Tensor,
        output: StepOutput,
    ) -> Observation:
        """What the policy asked to see, and nothing else; `words` precede that of the token."""
        device = logits_PV.device
        needs = self.policy.needs
        probs_PV = logits_PV.softmax(-1) if needs & {"entropy", "confidence"} else None
        attention_PU = None
        if "attention" in needs:
            assert output.weights_LPHK is not None
            heads = getattr(self.policy, "heads", None)
            assert output.unit_PK is not None
            attention_PU = unit_attention(
                output.weights_LPHK, output.unit_PK, heads, output.num_units
            )
        return Observation(
            units_read_B=torch.tensor([s.units_read for s in states], device=device),
            words_written_B=torch.tensor(words, device=device),
            source_finished_B=torch.tensor([s.source_finished for s in states], device=device),
            entropy_B=entropy(probs_PV, getattr(self.policy, "top", 0))
            if probs_PV is not None and "entropy" in needs
            else None,
            max_prob_B=probs_PV.max(-1).values
            if probs_PV is not None and "confidence" in needs
            else None,
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
