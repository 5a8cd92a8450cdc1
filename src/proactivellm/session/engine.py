"""The engine: many streams, one forward per step; the only READ/WRITE loop there is.

Streams come and go at any step. A step mixes lanes that read with lanes that probe or write; a lane
that waits for input is not looked at. What a stream writes does not depend on the others.
"""

from collections.abc import Iterable
from typing import Any

from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.model.lanes import LaneInput
from proactivellm.model.pages import StoreFull
from proactivellm.output.detokenize import Detokenizer
from proactivellm.policy.attention import check_attention
from proactivellm.policy.base import Policy
from proactivellm.session import lane as lanes
from proactivellm.session.limits import EngineFull, Limits, QueueFull
from proactivellm.session.outcome import Outcomes
from proactivellm.session.residence import Residence
from proactivellm.session.sampling import Sampling
from proactivellm.session.state import SessionState, Write
from proactivellm.session.window import Window, trim
from proactivellm.units.unit import Unit


class Engine:
    """Streams that advance together.

    Args:
        model: the streaming model.
        policy: decides READ or WRITE for streams that bring none of their own.
        limits: what it holds and does at most; one stream if left out.
        sampling: how tokens are chosen; the model's generation settings if left out.
        window: what a stream keeps in view; everything if left out.

    Raises:
        ValueError: if the prompt leaves no room in the window.
    """

    def __init__(
        self,
        model: StreamingCausalLM,
        policy: Policy,
        limits: Limits | None = None,
        sampling: Sampling | None = None,
        window: Window | None = None,
    ) -> None:
        self.model = model
        self.policy = policy
        self.limits = limits or Limits()
        self.sampling = sampling or Sampling.from_generation_config(model.model.generation_config)
        self.window = window
        if window is not None:
            window.check_prompt(model.prompt)
        self.cache = model.new_cache(self.limits.streams, self.limits.entries)
        self.residence = Residence(self.cache)
        self.outcomes = Outcomes(model)
        self.states: list[SessionState | None] = [None] * self.limits.streams
        self.policies: list[Policy] = [policy] * self.limits.streams
        self.forwards = self.tokens = 0  # forward passes, and tokens sent through them
        self._active: dict[int, None] = {}  # lanes that may have something to do, next one first

    @property
    def has_room(self) -> bool:
        """Whether a stream can be opened now."""
        return None in self.states

    def open(self, sampling: Sampling | None = None, policy: Policy | None = None) -> int:
        """Start a stream.

        Args:
            sampling: of this stream, else that of the engine.
            policy: of this stream, else that of the engine.

        Returns:
            Its lane, by which it is called until it is released.

        Raises:
            EngineFull: if as many streams are open as the limits allow.
            ValueError: if the policy asks for attention and the model shows none, or for heads
                that it does not have.
        """
        policy = policy or self.policy
        check_attention(policy, self.model)
        if not self.has_room:
            raise EngineFull(f"all {len(self.states)} lanes are in use; release one first")
        lane = self.states.index(None)
        head = list(self.model.prompt.target_head)
        self.states[lane] = SessionState(
            target=head,
            num_head=len(head),
            sampling=sampling or self.sampling,
            detokenizer=Detokenizer(self.model.tokenizer),
            at_boundary=True,
        )
        self.policies[lane] = policy
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
        """Make source units available to a stream; those after the end of its target are dropped.

        Args:
            lane: from `open`.
            units: in order; the last of the stream has `final` set.

        Raises:
            ValueError: if a unit follows the final one.
            QueueFull: if the stream's queue has no room; units before that are in it.
        """
        state = self.state(lane)
        self._active.setdefault(lane)
        for unit in units:
            if state.closed:
                raise ValueError("the source is closed: its final unit was already pushed")
            if state.finished:
                state.closed = unit.final
                continue
            if self.limits.pending is not None and len(state.pending) >= self.limits.pending:
                raise QueueFull(
                    f"{len(state.pending)} units of lane {lane} wait to be read: push after a step"
                )
            state.pending.append(unit)
            state.closed = unit.final
            if unit.is_end and not state.units_read and len(state.pending) == 1:
                state.finished = True  # an empty source has an empty target

    def release(self, lane: int) -> None:
        """End a stream and free its lane.

        Args:
            lane: from `open`.
        """
        self.state(lane)
        self.states[lane] = None
        self._active.pop(lane, None)
        self.residence.forget(lane)

    def rollback(self, lane: int) -> list[Unit]:
        """Take a stream back to its last written token; it may go on from there.

        Args:
            lane: from `open`.

        Returns:
            The units that were pushed and not read, now gone from its queue.
        """
        state = self.state(lane)
        unread = list(state.pending)
        state.pending.clear()
        state.closed = state.source_finished
        if state.draft:  # it was not complete, so that it is no hypothesis to agree with
            lanes.drop_draft(state)
            self.residence.cut(lane, state.num_entries)
        return unread

    def cancel(self, lane: int) -> None:
        """End a stream after its last written token; its text stays until `release`.

        Args:
            lane: from `open`.
        """
        self.rollback(lane)
        state = self.state(lane)
        if not state.finished:
            state.finished = state.cancelled = state.closed = True
            state.detokenizer.finish()

    def step(self) -> list[Write] | None:
        """One forward for the lanes that have something to do.

        Returns:
            The tokens written, or None if every lane waits for input or is finished.
        """
        failures: list[Write] = []
        inputs = self._schedule(failures)
        if not inputs:
            return failures or None
        needs = set().union(*(self.policies[i.lane].needs for i in inputs if i.probes))
        output = self.model.step(self.cache, inputs, attention="attention" in needs)
        self.forwards += 1
        self.tokens += sum(planned.num_new for planned in inputs)
        probing = [i.lane for i in inputs if i.probes]
        writes: list[Write] = []
        if output is not None:
            states = [self.state(lane) for lane in probing]
            policies = [self.policies[lane] for lane in probing]
            writes = self.outcomes.resolve(probing, states, policies, output)
        for planned in inputs:
            self.cache.lengths[planned.lane] = self.state(planned.lane).num_entries
        return failures + writes

    def snapshot(self, lane: int) -> dict[str, Any]:
        """A stream as plain values and tensors, for cloning and saving.

        Args:
            lane: from `open`.

        Returns:
            `state` and `cache`.
        """
        state = self.state(lane).state_dict()
        return {"state": state, "cache": self.residence.snapshot(lane)}

    def restore(self, lane: int, snapshot: dict[str, Any]) -> None:
        """Continue a stream in a lane.

        Args:
            lane: from `open`; what it held is lost.
            snapshot: from `snapshot`, of the same model.

        Raises:
            ValueError: if it is of another model; the lane stays as it is.
        """
        detokenizer = Detokenizer(self.model.tokenizer)
        state = SessionState.from_state_dict(snapshot["state"], detokenizer)
        self.residence.restore(lane, snapshot["cache"])
        self.states[lane] = state
        self._active.pop(lane, None)
        self._active[lane] = None

    def _schedule(self, failures: list[Write]) -> list[LaneInput]:
        """Begin the next step of as many active lanes as the limits allow.

        Lanes left out come first next time; those that cannot go on are ended.
        """
        inputs: list[LaneInput] = []
        tokens = 0
        deferred: list[int] = []
        waiting = False  # for pages: lanes that have none do not overtake the one that waits
        plans = {lane: planned for lane in self._active if (planned := self._plan(lane))}
        self._active = dict.fromkeys(plans)
        for lane, planned in plans.items():
            step, resident = planned.input, self.residence.holds(lane)
            try:
                too_much = inputs and tokens + step.num_new > self.limits.step_tokens
                overtakes = waiting and not resident
                if too_much or overtakes or not self._has_room_for(step, inputs):
                    waiting |= not too_much and not resident
                    deferred.append(lane)
                    continue
            except (StoreFull, ValueError) as error:
                failures.append(lanes.fail(self.state(lane), lane, str(error)))
                continue
            lanes.begin_step(self.state(lane), planned, self.window is not None)
            inputs.append(step)
            tokens += step.num_new
        self._active = dict.fromkeys([*deferred, *(step.lane for step in inputs)])
        return inputs

    def _plan(self, lane: int) -> lanes.Planned | None:
        """What a lane would do next, after it has forgotten what does not fit its window."""
        state, policy = self.state(lane), self.policies[lane]
        prompt = self.model.prompt
        while planned := lanes.plan_step(state, lane, policy, prompt, self._chunk(state)):
            incoming = sum(len(tokens) for _, tokens in planned.pieces)
            starts = self.outcomes.starts
            if self.window is not None and trim(state, self.window, incoming, starts):
                self.residence.forget(lane)
            elif planned.input.num_new:
                return planned
            else:
                lanes.begin_step(state, planned, self.window is not None)  # it read nothing
        return None

    def _chunk(self, state: SessionState) -> int:
        """Source tokens of a step: with a window, several units never outgrow it together."""
        chunk, prompt = self.limits.step_tokens, self.model.prompt
        if self.window is not None:  # what is dropped may not depend on how units were pushed
            around = len(prompt.source_head) + len(prompt.source_tail)
            chunk = min(chunk, self.window.source - state.num_in_view - around)
        return chunk

    def _has_room_for(self, step: LaneInput, begun: list[LaneInput]) -> bool:
        """Find pages for a lane's new tokens; idle lanes, then the youngest, make way."""
        self.model.check_position(step)
        length = self.state(step.lane).num_entries + step.num_new
        if self.residence.fits(step.lane, length):
            return True
        taken = {step.lane, *(other.lane for other in begun)}
        others = [lane for lane, state in enumerate(self.states) if state and lane not in taken]
        idle = [lane for lane in others if lane not in self._active]
        return self.residence.make_room(step.lane, length, idle, others)
