"""A step as a transaction: counters change when its forward has succeeded, and not before.

A forward writes its entries behind those that count, where the next one overwrites them: one that
fails has nothing to undo.
"""

from collections.abc import Sequence

from proactivellm.forward.cache import ArrivalCache
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.lanes import StepOutput
from proactivellm.policy.base import Policy
from proactivellm.policy.evidence import Evidence
from proactivellm.policy.reason import Reason
from proactivellm.session import lane as lanes
from proactivellm.session import writing
from proactivellm.session.deciding import Question, question
from proactivellm.session.events import Event
from proactivellm.session.isolation import attempt, common_fault, reason
from proactivellm.session.outcome import Outcomes


class Steps:
    """Runs planned steps; counts the forwards that succeeded, and tokens sent through them."""

    def __init__(
        self,
        model: StreamingCausalLM,
        cache: ArrivalCache,
        outcomes: Outcomes,
        keep_features: bool,
    ) -> None:
        self.model = model
        self.cache = cache
        self.outcomes = outcomes
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
            early = [policies[planned.input.lane].early for planned in group]
            asked = [questions[p.input.lane] for p in group if p.input.probe is not None]
            self._settle(group, early, asked, result, events)

    def _settle(
        self,
        plans: Sequence[lanes.Planned],
        early: Sequence[Reason],
        questions: Sequence[Question],
        output: StepOutput | None,
        events: list[Event],
    ) -> None:
        """Count what was read, then write; entries and counters agree whatever is raised."""
        self.forwards += 1
        self.tokens += sum(planned.input.size for planned in plans)
        try:
            for planned, why in zip(plans, early, strict=True):
                events += lanes.begin_step(planned, why, self.keep_features)
            if output is not None:
                events += self.outcomes.resolve(questions, output)
        finally:  # also where memory ran out while tokens were chosen: reading is done by then
            for planned in plans:
                self.cache.lengths[planned.input.lane] = planned.state.num_entries
