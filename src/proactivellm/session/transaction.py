"""A step as a transaction: counters change when its forward has succeeded, and not before.

A forward writes its entries behind those that count, where the next one overwrites them: one that
fails has nothing to undo.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from proactivellm.forward.cache import ArrivalCache
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import StepOutput
from proactivellm.policy.base import Policy
from proactivellm.policy.evidence import Evidence
from proactivellm.session import lane as lanes
from proactivellm.session import writing
from proactivellm.session.deciding import Question, question
from proactivellm.session.events import Event
from proactivellm.session.isolation import attempt, common_fault, reason
from proactivellm.session.outcome import Outcomes
from proactivellm.session.speculation import Speculator


class Steps:
    """Runs planned steps; counts the forwards that succeeded, and tokens sent through them."""

    def __init__(
        self,
        model: StreamingCausalLM,
        cache: ArrivalCache,
        outcomes: Outcomes,
        speculator: Speculator,
        keep_features: bool,
    ) -> None:
        self.model = model
        self.cache = cache
        self.outcomes = outcomes
        self.speculator = speculator
        self.keep_features = keep_features  # whether pieces that are no ids may be wanted again
        self.forwards = self.tokens = 0

    def run(
        self,
        plans: Sequence[lanes.Planned],
        policies: Sequence[Policy],
        watches: Sequence[tuple[Evidence, ...]],
        events: list[Event],
    ) -> None:
        """One forward for all lanes; if it fails, one for each, and whose fails again ends.

        Policies, and evidence to report, are those of all lanes of the engine. What happens is
        added to `events`.

        Raises:
            Exception: if it is no fault of one lane (see `isolation.common_fault`); none has begun.
        """

        def forward(some: Sequence[lanes.Planned]) -> StepOutput | None:
            inputs = [planned.input for planned in some]
            asked = [questions[i.lane].evidence for i in inputs if i.probe is not None]
            # Rows of proposed tokens may be asked where the first one is settled by bounds.
            asked += [policies[p.input.lane].evidence for p in some if p.proposed]
            attention = any(evidence.attention for each in asked for evidence in each)
            return self.model.step(self.cache, inputs, attention=attention)

        questions = {
            lane: question(planned, policies[lane], watches[lane])
            for lane, planned in ((planned.input.lane, planned) for planned in plans)
            if planned.input.probe is not None
        }
        results = attempt(forward, plans)
        errors = [result for _, result in results if isinstance(result, Exception)]
        if fault := common_fault(errors, len(plans)):
            raise fault
        for group, result in results:
            if isinstance(result, Exception):
                (failed,) = group
                events += writing.fail(failed.state, failed.input.lane, reason(result))
                continue
            self._settle(group, policies, questions, result, events)

    def _settle(
        self,
        plans: Sequence[lanes.Planned],
        policies: Sequence[Policy],
        questions: Mapping[int, Question],
        output: StepOutput | None,
        events: list[Event],
    ) -> None:
        """Count what was read, then write; entries and counters agree whatever is raised."""
        self.forwards += 1
        self.tokens += sum(planned.input.size for planned in plans)
        try:
            for planned in plans:
                early = policies[planned.input.lane].early
                events += lanes.begin_step(planned, early, self.keep_features)
            if output is not None:
                self._resolve(plans, policies, questions, output, events)
        finally:  # also where memory ran out while tokens were chosen: reading is done by then
            for planned in plans:
                self.cache.lengths[planned.input.lane] = planned.state.num_entries

    def _resolve(
        self,
        plans: Sequence[lanes.Planned],
        policies: Sequence[Policy],
        questions: Mapping[int, Question],
        output: StepOutput,
        events: list[Event],
    ) -> None:
        """Settle the row of each lane that probes; then, as long as it writes what was proposed,
        the row of that token, as if it had been fed by the next step.
        """
        probing = [planned for planned in plans if planned.input.probe is not None]
        ends = list(accumulate(planned.input.rows for planned in probing))
        # Of each lane that goes on: its plan, its row of the output, proposed tokens written.
        going = [(p, end - p.input.rows, 0) for p, end in zip(probing, ends, strict=True)]
        asked = [questions[planned.input.lane] for planned in probing]
        found: list[Event] = []
        try:
            while going:
                found += self.outcomes.resolve(asked, output.at([row for _, row, _ in going]))
                rounds, going, asked = going, [], []
                for planned, row, num_kept in rounds:
                    lane = planned.input.lane
                    onward = self.speculator.onward(planned, policies[lane], num_kept)
                    if onward is not None:
                        going.append((planned, row + 1, num_kept + 1))
                        asked.append(question(onward, policies[lane], ()))
        finally:
            order = {planned.input.lane: place for place, planned in enumerate(probing)}
            events += sorted(found, key=lambda event: order[event.lane])
