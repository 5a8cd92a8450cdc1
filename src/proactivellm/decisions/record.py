"""Records a trace: the engine runs as always, and what it reports of every probe is kept.

Nothing is decided here: reasons, evidence and what was written are the engine's. The evidence that
a picture shows besides that of the policy is watched, which changes nothing that is written.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from proactivellm.core.unit import Unit
from proactivellm.decisions.trace import Probe, Trace
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.sentences import segmenter_for
from proactivellm.output.detokenize import Detokenizer
from proactivellm.output.scripts import characters
from proactivellm.output.source_units import source_units
from proactivellm.policy.base import Policy
from proactivellm.policy.endogenous import ThresholdPolicy
from proactivellm.policy.evidence import Attention, Confidence, Entropy, Evidence, Seen
from proactivellm.policy.reason import Reason
from proactivellm.session.events import Event, Probed, Write
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.stream import Job, Streams, source_turns

_DIGITS = 6  # of the numbers in a trace


def record(
    model: StreamingCausalLM,
    policy: Policy,
    job: Job,
    *,
    window: Window | None = None,
    model_name: str = "",
) -> list[Trace]:
    """Streams one source and keeps what was seen at every probe; tokens are chosen greedily.

    A text gives one trace, a recording one for each of its turns, of which units are called by when
    they end. Targets and delays, in units, are those of an ordinary run.

    Args:
        window: what the stream keeps in view; everything if left out.
        model_name: for the trace.

    Raises:
        ValueError: the source cannot be streamed.
    """
    policy = policy.bound_to(model)
    if not job.media:
        units = segmenter_for(model).segment(job.source)
        return [_record_turn(model, policy, job, units, window, model_name)]
    turns = source_turns(model, job)
    return [_record_turn(model, policy, job, units, window, model_name) for units in turns if units]


def _record_turn(
    model: StreamingCausalLM,
    policy: Policy,
    job: Job,
    units: Sequence[Unit],
    window: Window | None,
    model_name: str,
) -> Trace:
    streams = Streams(model, policy, sampling=Sampling(), window=window)
    recorder = _Recorder(streams, policy, window.sinks if window else 0)
    stream = recorder.stream
    stream.push(units)
    stream.close()
    ahead = recorder.ahead()  # before each step, which changes the text and the draft
    while (events := streams.step()) is not None:
        recorder.note(events, ahead)
        ahead = recorder.ahead()
    if stream.error:
        raise ValueError(f"source {job.index}: {stream.error}")
    words, delays = recorder.words()
    return Trace(
        index=job.index,
        model=model_name,
        policy=policy.spec,
        source=[unit.text or f"{unit.end_s:.2f}s" for unit in units if not unit.is_end],
        words=words,
        delays=delays,
        probes=recorder.probes,
        prediction=stream.state.detokenizer.text,
        reference=job.reference,
        threshold=policy.threshold if isinstance(policy, ThresholdPolicy) else None,
    )


class _Recorder:
    """Turns the events of one lane into probes."""

    def __init__(self, streams: Streams, policy: Policy, sinks: int) -> None:
        model = streams.engine.model
        self.policy, self.sinks = policy, sinks
        self.by_token = model.settings.boundary == "token"
        self.end_ids = model.end_token_ids
        self.probes: list[Probe] = []
        own = [each for each in policy.evidence if isinstance(each, Attention)]
        shown = (own or [Attention()])[:1] if model.shows_attention else []
        self.attention: Evidence | None = shown[0] if shown else None
        self.stream = streams.open(watch=(Entropy(), Confidence(), *shown, *policy.evidence))
        self._unwritten = 0  # index of the probe that the next Write belongs to

    def ahead(self) -> tuple[Detokenizer, int, int]:
        """The text with the draft, the length of the draft, and the number of rows written.

        The next candidate is added to these.
        """
        state = self.stream.state
        twin = state.detokenizer.clone()
        for drafted in state.draft:
            twin.push(drafted)
        return twin, len(state.draft), len(self.words()[0])

    def note(self, events: list[Event], ahead: tuple[Detokenizer, int, int]) -> None:
        """Adds the probe of a step, and what came of it and of those of its draft before."""
        for event in events:
            if isinstance(event, Probed):
                twin, drafted, num_words = ahead
                self._unwritten = len(self.probes) - drafted
                self.probes.append(self._probe(event, twin, num_words + drafted))
            elif isinstance(event, Write) and event.reason is not None:
                probe = self.probes[self._unwritten]
                probe = replace(probe, decision="WRITE", reason=event.reason.text)
                self.probes[self._unwritten] = probe
                self._unwritten += 1

    def words(self) -> tuple[list[str], list[int]]:
        """What was written, by unit, and the delays; by token, where every one is decided on."""
        pieces = [
            (text.strip(), int(units))
            for text, units, _ in self.stream.transcript.texts
            if text.strip()
        ]
        if self.by_token:
            return [text for text, _ in pieces], [units for _, units in pieces]
        transcript = self.stream.transcript
        words = [unit.text for unit in source_units(transcript.text)]
        return words, [int(units) for units in transcript.times(words)[0]]

    def _probe(self, event: Probed, twin: Detokenizer, row: int) -> Probe:
        """What was seen; READ until something is written."""
        ends = event.token_id in self.end_ids
        num_before = len(characters(twin.text))
        text = ("" if ends else twin.push(event.token_id)) + twin.finish()
        if not self.by_token:
            row = _row_of(num_before, twin.text, ends)
        statistic = None
        if isinstance(self.policy, ThresholdPolicy):
            statistic = round(float(self.policy.statistic(event.seen)), _DIGITS)
        return Probe(
            units_read=int(event.seen.units_read_B),
            word=row,
            token=event.token_id,
            text=text,
            decision="READ",
            reason=(Reason.READ_RULE if event.reason is None else event.reason).text,
            entropy=round(float(event.seen[Entropy()]), _DIGITS),
            max_prob=round(float(event.seen[Confidence()]), _DIGITS),
            attention=self._attention(event.seen),
            statistic=statistic,
        )

    def _attention(self, seen: Seen) -> list[float]:
        """By unit read; what left the window between the sinks and the rest gets 0."""
        if self.attention is None:
            return []
        in_view = int(seen.units_in_view_B)
        shares = [round(share, _DIGITS) for share in seen[self.attention][0].tolist()[:in_view]]
        dropped = [0.0] * (int(seen.units_read_B) - in_view)
        return [*shares[: self.sinks], *dropped, *shares[self.sinks :]]


def _row_of(place: int, text: str, ends: bool) -> int:
    """The unit of a text that holds its character at a place, white space not counted."""
    last = list(accumulate(len(unit.text) for unit in source_units(text)))
    if ends:
        return len(last)
    return next((row for row, end in enumerate(last) if place < end), max(0, len(last) - 1))
