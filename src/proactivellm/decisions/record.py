"""Records a trace: the engine runs as always, and what it sees at every probe is kept.

Nothing is decided here. The policy is asked by the engine, on the same values as in any run; the
one thing that is asked for in addition is the attention, which is captured beside the forward.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from proactivellm.decisions.trace import Probe, Reason, Trace
from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.model.lanes import StepOutput
from proactivellm.pipeline import Job, Transcript
from proactivellm.policy.base import BoundedPolicy, DraftPolicy, Observation, Policy
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.session.engine import Engine
from proactivellm.session.observing import entropy
from proactivellm.session.outcome import Outcomes
from proactivellm.session.sampling import Sampling
from proactivellm.session.state import SessionState, Write
from proactivellm.session.window import Window
from proactivellm.units.text import TextSegmenter
from proactivellm.units.unit import Unit

DIGITS = 6  # of the numbers in a trace


def record(
    model: StreamingCausalLM,
    policy: Policy,
    job: Job,
    *,
    window: Window | None = None,
    model_name: str = "",
) -> Trace:
    """Streams one source and keeps what was seen at every probe; tokens are chosen greedily.

    Args:
        model: the streaming model.
        policy: READ or WRITE.
        job: the source.
        window: what the stream keeps in view; everything if left out.
        model_name: for the trace.

    Returns:
        The trace; target and delays are those of an ordinary run.

    Raises:
        ValueError: the source cannot be streamed.
    """
    recorder = _Recorder(model, policy, window.sinks if window else 0)
    engine = Engine(model, recorder.watched_policy(), sampling=Sampling(), window=window)
    engine.outcomes = recorder
    lane = engine.open()
    units = TextSegmenter(model.tokenizer).segment(job.source)
    engine.push(lane, units or [Unit.end()])
    while engine.step() is not None:
        pass
    if error := engine.state(lane).error:
        raise ValueError(f"source {job.index}: {error}")
    words, delays = recorder.words()
    return Trace(
        index=job.index,
        model=model_name,
        policy=policy.spec,
        source=[unit.text for unit in units],
        words=words,
        delays=delays,
        probes=recorder.probes,
        prediction=engine.state(lane).detokenizer.text,
        reference=job.reference,
        threshold=policy.threshold if isinstance(policy, ThresholdPolicy) else None,
    )


class _Recorder(Outcomes):
    """The outcomes of the only lane of an engine, and a record of them."""

    def __init__(self, model: StreamingCausalLM, policy: Policy, sinks: int) -> None:
        super().__init__(model)
        self.policy = policy
        self.sinks = sinks
        self.probes: list[Probe] = []
        self.transcript = Transcript()
        self._seen: tuple[Observation, bool] | None = None  # by the policy, in this step

    def watched_policy(self) -> Policy:
        """The policy as it is, but that it asks for attention too and tells what it is shown."""
        kind = type(self.policy)
        extra = {"attention"} if self.model.shows_attention else set()

        def decide(policy: Policy, observation: Observation) -> Tensor:
            decision_B = kind.decide(policy, observation)
            self._seen = observation, bool(decision_B)
            return decision_B

        changes: dict[str, Any] = {"needs": kind.needs | extra, "decide": decide}
        make: Callable[..., Policy] = type(kind.__name__, (kind,), changes)
        fields = self.policy.option_fields()
        return make(**{field.name: getattr(self.policy, field.name) for field in fields})

    @torch.inference_mode()
    def resolve(
        self,
        probing: Sequence[int],
        states: Sequence[SessionState],
        policies: Sequence[Policy],
        output: StepOutput,
    ) -> list[Write]:
        """As in any engine; then note what was seen and what came of it."""
        (state,) = states
        drafting = isinstance(self.policy, DraftPolicy) and not state.source_finished
        draft, hypotheses = list(state.draft), list(state.hypotheses)
        first, twin = not state.words, state.detokenizer.clone()
        for drafted in draft:
            twin.push(drafted)
        writes = super().resolve(probing, states, policies, output)
        if state.error is not None:
            return writes
        token = int(output.logits_PV[0].argmax())  # ends are forbidden there by now
        ends = token in self.end_ids
        text = ("" if ends else twin.push(token)) + twin.finish()
        row = len(self.words()[0]) + len(draft)
        if not self.by_token:
            row = max(0, len(twin.text.split()) - (not ends))
        probe = self._probe(state, output.logits_PV[0], token, text, row)
        if not drafting:
            decision = bool(writes) and writes[0].token_id is not None
            probe = replace(probe, decision="WRITE" if decision else "READ")
            probe = replace(probe, reason=self._reason(probe, first))
        self.probes.append(probe)
        if drafting and not state.draft:
            self._settle_draft(len(draft) + 1, writes, hypotheses)
        self.transcript.add(writes, 0.0)
        return writes

    def words(self) -> tuple[list[str], list[int]]:
        """What was written, by word (by token, where every one is decided on), and the delays."""
        pieces = [
            (text.strip(), int(units)) for text, units, _ in self.transcript.pieces if text.strip()
        ]
        if self.by_token:
            return [text for text, _ in pieces], [units for _, units in pieces]
        prediction = "".join(text for text, _, _ in self.transcript.pieces)
        return prediction.split(), [int(units) for units in self.transcript.words()[0]]

    def _probe(
        self, state: SessionState, logits_V: Tensor, token: int, text: str, row: int
    ) -> Probe:
        """What was seen; of a decision, READ until more is known."""
        assert self._seen is not None
        observation, _ = self._seen
        statistic = None
        if isinstance(self.policy, ThresholdPolicy):
            statistic = round(float(self.policy.statistic(observation)), DIGITS)
        probs_V = logits_V.float().softmax(-1)
        return Probe(
            units_read=state.units_read,
            word=row,
            token=token,
            text=text,
            decision="READ",
            reason="policy",
            entropy=round(float(entropy(probs_V[None])), DIGITS),
            max_prob=round(float(probs_V.max()), DIGITS),
            attention=self._attention(observation),
            statistic=statistic,
        )

    def _attention(self, observation: Observation) -> list[float]:
        """By unit read; what left the window between the sinks and the rest gets 0."""
        if observation.attention_BU is None:
            return []
        in_view = int(observation.units_in_view_B)
        shares = [round(share, DIGITS) for share in observation.attention_BU[0].tolist()[:in_view]]
        dropped = [0.0] * (int(observation.units_read_B) - in_view)
        return [*shares[: self.sinks], *dropped, *shares[self.sinks :]]

    def _reason(self, probe: Probe, first: bool) -> Reason:
        """Why a token was written or not: the order is that of `Outcomes` and `Policy.decide`."""
        assert self._seen is not None
        observation, decision = self._seen
        units, words = int(observation.units_read_B), int(observation.words_written_B)
        if bool(observation.source_finished_B):
            return "source finished" if probe.decision == "WRITE" else "length limit"
        is_open = first or self.starts[probe.token] or self.decides[probe.token]
        if probe.decision == "READ":
            if decision or not is_open:
                return "length limit"
            bounded = isinstance(self.policy, BoundedPolicy)
            required = self.policy.required_units(words)
            return "min_lag" if bounded and required is not None and units < required else "policy"
        if not is_open:
            return "inside a word"
        if isinstance(self.policy, BoundedPolicy) and self.policy.overdue(units, words):
            rule = replace(self.policy, max_lag=None)
            return "policy" if bool(rule.decide(observation)) else "max_lag"
        return "policy"

    def _settle_draft(
        self, length: int, writes: Sequence[Write], hypotheses: Sequence[Sequence[int]]
    ) -> None:
        """A draft has ended: say of its probes which tokens were committed, and why."""
        assert isinstance(self.policy, DraftPolicy)
        drafted = [probe.token for probe in self.probes[-length:]]
        if drafted[-1] in self.end_ids and not self.early_end:
            drafted.pop()  # it is no part of the hypothesis
        trusted = self.policy.commit([*hypotheses, drafted][-self.policy.history :])
        for place in range(len(writes)):
            reason: Reason = "policy" if place < trusted else "max_lag"
            index = len(self.probes) - length + place
            self.probes[index] = replace(self.probes[index], decision="WRITE", reason=reason)
