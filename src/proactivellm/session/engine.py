"""The engine: many streams, one forward per step; the only READ/WRITE loop there is.

Streams come and go at any step. A step mixes lanes that read with lanes that probe or write; a lane
that waits for input is not looked at. What a stream writes does not depend on the others, nor on
what goes wrong with them: a step is a transaction, and whose fault it is ends alone.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from proactivellm.core.layout import SOURCE
from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.output.detokenize import Detokenizer
from proactivellm.policy.base import Policy
from proactivellm.policy.evidence import Evidence
from proactivellm.session import thoughts, writing
from proactivellm.session.admission import Admission
from proactivellm.session.drafts import drop_draft
from proactivellm.session.events import Event
from proactivellm.session.guard import Exclusive
from proactivellm.session.intake import Intake
from proactivellm.session.integrity import check
from proactivellm.session.limits import EngineFull, Limits, QueueFull
from proactivellm.session.outcome import Outcomes
from proactivellm.session.residence import Residence
from proactivellm.session.sampling import Sampling
from proactivellm.session.speculation import Speculator
from proactivellm.session.state import SessionState
from proactivellm.session.transaction import Steps
from proactivellm.session.window import Window, check_kept


class Engine:
    """Streams that advance together; for one thread at a time.

    In float32 a stream writes what it writes alone. In bfloat16 and float16 the same steps give the
    same writes again, but a neighbour changes how matrix products are rounded: a stream may write
    another token where two are almost equally likely.

    What happens is told by events: a `Read` for every unit, a `Write` for every token, and exactly
    one `End` for every stream, after which nothing follows.

    Args:
        policy: for streams that bring none of their own.
        limits: one stream if left out.
        sampling: the model's generation settings if left out.
        window: everything stays in view if left out.

    Raises:
        ValueError: if the prompt leaves no room in the window, or the model thinks and cannot do
            so with a window or speculation.
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
        thoughts.check_thinking(model, window, self.limits)
        if window is not None:
            window.check_prompt(model.prompt)
        self.cache = model.new_cache(self.limits.streams, self.limits.entries)
        self.residence = Residence(self.cache)
        self.outcomes = Outcomes(model, window, self.limits.streams)
        self.admission = Admission(model, self.limits, window, self.residence, self.outcomes.starts)
        self.intake = Intake(len(model.parts.embed.weight), model.parts.width)
        self.states: list[SessionState | None] = [None] * self.limits.streams
        self.policies: list[Policy] = [policy] * self.limits.streams
        self._watches: list[tuple[Evidence, ...]] = [()] * self.limits.streams
        self.speculator = Speculator(
            model, self.limits, window, self.residence, self.outcomes.starts
        )
        # With a window what stays in view is fed again, features too.
        self._steps = Steps(model, self.cache, self.outcomes, self.speculator, window is not None)
        self._unsent: list[Event] = []  # kept for the next step if this one raises
        self._checked = 0  # forwards when the books were last compared
        self._exclusive = Exclusive()

    @property
    def forwards(self) -> int:
        """Forward passes so far."""
        return self._steps.forwards

    @property
    def tokens(self) -> int:
        """Tokens sent through them."""
        return self._steps.tokens

    @property
    def has_room(self) -> bool:
        """Whether a stream can be opened now."""
        return None in self.states

    def open(
        self,
        sampling: Sampling | None = None,
        policy: Policy | None = None,
        watch: Iterable[Evidence] = (),
    ) -> int:
        """Start a stream in a lane, by whose number it is called until it is released.

        What is left out is that of the engine. Evidence to watch is reported of every probe
        (`Probed`), whoever decides, and changes nothing that is written.

        Raises:
            EngineFull: if as many streams are open as the limits allow.
            ValueError: if the model cannot show the evidence that is asked for, or thinks, which
                only policies that count can have it do, and nobody watches.
        """
        policy, watch = (policy or self.policy).bound_to(self.model), tuple(watch)
        policy.check(self.model)
        for evidence in watch:
            evidence.check(self.model)
        if self.model.thinking is not None:
            thoughts.check_policy(policy, watch)
        with self._exclusive:
            if not self.has_room:
                raise EngineFull(f"all {len(self.states)} lanes are in use; release one first")
            lane = self.states.index(None)
            head = list(self.model.prompt.target_head)
            state = self.states[lane] = SessionState(
                target=head,
                num_head=len(head),
                sampling=sampling or self.sampling,
                detokenizer=Detokenizer(self.model.tokenizer),
            )
            if self.model.thinking is not None:
                thoughts.begin_thinking(state, self.model, self.limits)
            self.policies[lane], self._watches[lane] = policy, watch
            return lane

    def ask(self, lane: int, ids: Sequence[int], depth: int | None = None) -> None:
        """Put the token ids of a question where the prompt has room for it before the first unit.

        `depth` as of `Limits`. ValueError if units were pushed already, or it thinks less deep.
        """
        with self._exclusive:
            state = self.state(lane)
            if state.closed or state.pending or state.counts[SOURCE]:
                raise ValueError("a question stands before its source, which has begun")
            thoughts.check_depth(self.model, depth)
            state.opening, state.question = self.model.prompt.opening(ids), list(ids)
            state.depth = depth or state.depth

    def state(self, lane: int) -> SessionState:
        """State of the stream of a lane, live; RuntimeError if none is open there."""
        state = self.states[lane]
        if state is None:
            raise RuntimeError(f"no stream is open in lane {lane}")
        return state

    def push(self, lane: int, units: Iterable[Unit]) -> None:
        """Make source units available to a stream; those after the end of its target are dropped.

        The last unit of the stream has `final` set.

        Raises:
            ValueError: if one of them cannot be read (a token id that the model does not have,
                features of another width or not finite), follows the final one, or needs a question
                that was not asked: none of them is in the queue.
            QueueFull: if the stream's queue has no room; units before that are in it.
        """
        with self._exclusive:
            state, units = self.state(lane), list(units)
            self.intake.check(units)
            self.admission.check_asked(state, units)
            if units and (state.closed or any(unit.final for unit in units[:-1])):
                raise ValueError("the source is closed: its final unit was already pushed")
            if units and self.model.thinking is not None:
                units = thoughts.without_final(units)
            self.admission.active.setdefault(lane)
            for unit in units:
                room = self.limits.pending is None or len(state.pending) < self.limits.pending
                if not (state.finished or room):
                    waiting = f"{len(state.pending)} units of lane {lane} wait to be read"
                    raise QueueFull(f"{waiting}: push after a step")
                state.closed = unit.final
                if not state.finished:
                    state.pending.append(unit)

    def release(self, lane: int) -> None:
        """End a stream and free its lane."""
        with self._exclusive:
            self.state(lane)
            self._forget(lane)
            self.residence.forget(lane)
            self.states[lane] = None

    def rollback(self, lane: int) -> list[Unit]:
        """Take a stream back to its last written token, from where it may go on.

        What was pushed and not read leaves its queue and is returned.
        """
        with self._exclusive:
            return self._take_back(lane)

    def cancel(self, lane: int) -> list[Event]:
        """End a stream after its last written token; its text stays until `release`.

        The events are text that was held back, if any, and the end; none if it had ended.
        """
        with self._exclusive:
            self._take_back(lane)
            state = self.state(lane)
            return [] if state.finished else writing.cancel(state, lane)

    def step(self) -> list[Event] | None:
        """One forward for the lanes that have something to do: what happened, in order by lane.

        None if every lane waits for input or is finished. A lane that cannot go on ends with its
        error; no other lane notices.

        Raises:
            RuntimeError: if another call is in progress.
            Exception: what the forward raised, if it did so for every lane (out of memory): all
                streams are as they were, and the step may be tried again.
        """
        with self._exclusive:
            plans = self.admission.schedule(self.states, self.policies, self._unsent)
            if plans:
                longer = self.speculator.extend(plans, self.policies, self._watches)
                self._steps.run(longer, self.policies, self._watches, self._unsent)
            events, self._unsent = self._unsent, []
            if plans or events:
                return events
            if self._checked != self.forwards:
                self.check_integrity(thorough=False)
                self._checked = self.forwards
            return None

    def check_integrity(self, thorough: bool = True) -> None:
        """Compare the counters of all streams with what the cache holds for them.

        Thoroughly: with every page and entry, which takes time in proportion to them. `step` does
        so by itself, not thoroughly, whenever it finds nothing to do.

        Raises:
            IntegrityError: if they contradict each other; names all that is wrong.
        """
        check(self.cache, self.residence, self.states, self.admission.active, thorough)

    def snapshot(self, lane: int, to_save: bool = True) -> dict[str, Any]:
        """A stream as plain values and tensors, `state` and `cache`, for saving and cloning.

        Of bounded sight, what it has forgotten cannot be saved (ValueError). A clone of this
        process needs no file: without `to_save`, what is out of sight is in `past`.
        """
        with self._exclusive:
            past = self.admission.past(lane, to_save)
            state = self.state(lane).state_dict()
            return {"state": state, "cache": self.residence.snapshot(lane), **past}

    def restore(self, lane: int, snapshot: dict[str, Any]) -> None:
        """Continue the stream of a snapshot in a lane; what that held is lost.

        Raises:
            ValueError: if it is of another model, or of a stream without a window that did not
                keep what the window of this engine would feed again; the lane stays as it is.
        """
        detokenizer = Detokenizer(self.model.tokenizer)
        state = SessionState.from_state_dict(snapshot["state"], detokenizer)
        length = snapshot["cache"]["kinds"].shape[1]
        if length != state.num_entries:
            raise ValueError(f"the snapshot has {length} entries and counts {state.num_entries}")
        if self.window is not None:
            check_kept(state)
        with self._exclusive:
            self.state(lane)
            self.residence.restore(lane, snapshot["cache"])
            self._forget(lane)
            self.states[lane] = state
            self.admission.go_on(lane, snapshot.get("past"))

    def _take_back(self, lane: int) -> list[Unit]:
        state = self.state(lane)
        unread = list(state.pending)
        state.pending.clear()
        state.closed = state.source_finished
        if state.draft:  # it was not complete, so that it is no hypothesis to agree with
            drop_draft(state)
            self.residence.cut(lane, state.num_entries)
        return unread

    def _forget(self, lane: int) -> None:
        self.admission.forget(lane)
        self._unsent = [event for event in self._unsent if event.lane != lane]
