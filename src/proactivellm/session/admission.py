"""Chooses the lanes of the next step and plans what each feeds; changes nothing but windows.

A plan is made for every lane that has something to do; the limits say how many of them fit one
step, and the cache who of them has room. Nothing is counted as read before its forward succeeded.
"""

from collections.abc import Sequence
from typing import Any

from proactivellm.core.layout import TARGET
from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.base import Policy
from proactivellm.session import lane as lanes
from proactivellm.session import writing
from proactivellm.session.events import Event
from proactivellm.session.isolation import out_of_memory, reason
from proactivellm.session.limits import Limits
from proactivellm.session.residence import Residence
from proactivellm.session.sight import Horizon, check_sight
from proactivellm.session.state import SessionState
from proactivellm.session.window import Window, trim


class Admission:
    """Chooses the lanes of a step."""

    def __init__(
        self,
        model: StreamingCausalLM,
        limits: Limits,
        window: Window | None,
        residence: Residence,
        starts: Sequence[bool],
    ) -> None:
        self.model = model
        self.limits = limits
        self.window = window
        self.residence = residence
        self.starts = starts
        check_sight(limits.sight, model, window is not None or limits.entries is not None)
        sight = limits.sight
        self.horizon = None if sight is None else Horizon(sight, model, residence)
        self.active: dict[int, None] = {}  # lanes that may have something to do, next one first

    def forget(self, lane: int) -> None:
        """Plan nothing more for a lane."""
        self.active.pop(lane, None)
        if self.horizon is not None:
            self.horizon.forget(lane)

    def check_asked(self, state: SessionState, units: Sequence[Unit]) -> None:
        """Raise ValueError if a stream needs a question and has none; `units` are its next ones."""
        if self.horizon is not None:
            self.horizon.check(state, units)

    def past(self, lane: int, to_save: bool) -> dict[str, Any]:
        """What a snapshot has of what is out of a lane's sight; ValueError if that is to be saved.

        Empty where all is in sight.
        """
        if self.horizon is None:
            return {}
        if to_save:
            raise ValueError("a stream with bounded sight cannot be saved")
        return {"past": self.horizon.past(lane)}

    def go_on(self, lane: int, past: Any) -> None:
        """A lane has a stream from a snapshot, with that past; None: all of it is in sight."""
        self.active[lane] = None
        if self.horizon is not None and past is not None:
            self.horizon.remember(lane, past)

    def schedule(
        self,
        states: Sequence[SessionState | None],
        policies: Sequence[Policy],
        events: list[Event],
    ) -> list[lanes.Planned]:
        """Plan the next step of as many active lanes as the limits allow; none has begun.

        Lanes left out come first next time. What lanes read that needs no forward, and the ends of
        those that cannot go on, are added to `events`.

        Raises:
            Exception: if memory ran out for every lane; all are as they were.
        """
        plans = self._plan_all(states, policies, events)
        step: list[lanes.Planned] = []
        tokens = 0
        deferred: list[int] = []
        waiting = False  # for pages: lanes that have none do not overtake the one that waits
        no_memory: Exception | None = None
        for lane, planned in plans.items():
            num_new, resident = planned.input.size, self.residence.holds(lane)
            try:
                too_much = step and tokens + num_new > self.limits.step_tokens
                overtakes = waiting and not resident
                if too_much or overtakes or not self._has_room_for(planned, step, states):
                    waiting |= not too_much and not resident
                    deferred.append(lane)
                    continue
            except Exception as error:
                if out_of_memory(error):
                    no_memory = error
                    deferred.append(lane)
                else:
                    events += writing.fail(planned.state, lane, reason(error))
                continue
            step.append(planned)
            tokens += num_new
        self.active = dict.fromkeys([*deferred, *(planned.input.lane for planned in step)])
        if no_memory is not None and not step:
            raise no_memory
        return step

    def _plan_all(
        self,
        states: Sequence[SessionState | None],
        policies: Sequence[Policy],
        events: list[Event],
    ) -> dict[int, lanes.Planned]:
        plans: dict[int, lanes.Planned] = {}
        for lane in self.active:
            state = states[lane]
            assert state is not None
            try:
                if writing.is_empty(state):
                    events += writing.end_empty(state, lane)
                elif planned := self._plan(lane, state, policies[lane], events):
                    plans[lane] = planned
            except Exception as error:
                fault = f"policy {policies[lane].name} could not be asked: {reason(error)}"
                events += writing.fail(state, lane, fault)
        self.active = dict.fromkeys(plans)
        return plans

    def _plan(
        self, lane: int, state: SessionState, policy: Policy, events: list[Event]
    ) -> lanes.Planned | None:
        """What a lane would do next, after it has forgotten what does not fit its window."""
        prompt = self.model.prompt
        while planned := lanes.plan_step(state, lane, policy, prompt, self._chunk(state)):
            if self._forgets(lane, state, planned):
                continue
            if self.horizon is not None:
                if self.horizon.adjust(planned):
                    continue
                planned = self.horizon.reach(planned)
            if planned.input.size:
                return planned
            # Nothing of what it read is fed.
            self.residence.pass_over(planned.input, self.model.layout)
            keep_features = self.window is not None  # positions count a moment without tokens
            events += lanes.begin_step(planned, policy.early, keep_features)
        return None

    def _forgets(self, lane: int, state: SessionState, planned: lanes.Planned) -> bool:
        """Void what is to be fed again: all that is in view, or of a layout that does, the target.

        Whether anything was.
        """
        if self.window is not None and trim(state, self.window, planned.num_read, self.starts):
            self.residence.forget(lane)
            return True
        if not (self.model.layout.reencoded and planned.num_read and state.counts[TARGET]):
            return False
        # The source comes before the target and has not seen it: its entries are as they would be.
        state.counts[TARGET] = 0
        self.residence.cut(lane, state.num_entries)
        return True

    def _chunk(self, state: SessionState) -> int:
        """Source tokens of a step: with a window, several units never outgrow it together."""
        chunk, prompt = self.limits.step_tokens, self.model.prompt
        if self.window is not None:  # what is dropped may not depend on how units were pushed
            around = len(prompt.source_head) + len(prompt.source_tail)
            chunk = min(chunk, self.window.source - state.num_in_view - around)
        return chunk

    def _has_room_for(
        self,
        planned: lanes.Planned,
        step: Sequence[lanes.Planned],
        states: Sequence[SessionState | None],
    ) -> bool:
        """Find pages for a lane's new tokens; idle lanes, then the youngest, make way."""
        mine = planned.input
        self.model.check_position(mine)
        length = planned.state.num_entries + mine.size
        if self.residence.fits(mine.lane, length):
            return True
        taken = {mine.lane, *(other.input.lane for other in step)}
        others = [lane for lane, state in enumerate(states) if state and lane not in taken]
        idle = [lane for lane in others if lane not in self.active]
        return self.residence.make_room(mine.lane, length, idle, others)
