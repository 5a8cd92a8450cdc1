"""A step as a transaction: counters change when its forward has succeeded, and not before.

A forward writes its entries behind those that count, where the next one overwrites them: one that
fails has nothing to undo.
"""

from collections.abc import Sequence

from proactivellm.model.cache import ArrivalCache
from proactivellm.model.causal_lm import StreamingCausalLM
from proactivellm.model.lanes import StepOutput
from proactivellm.policy.base import Policy
from proactivellm.session import lane as lanes
from proactivellm.session.apart import attempt, common_fault, reason
from proactivellm.session.outcome import Outcomes
from proactivellm.session.state import Write


class Steps:
    """Runs planned steps.

    Args:
        model: runs the forwards.
        cache: holds the lanes.
        keep_features: whether pieces that are no ids may be wanted again.

    Attributes:
        forwards: forwards that succeeded.
        tokens: tokens sent through them.
    """

    def __init__(self, model: StreamingCausalLM, cache: ArrivalCache, keep_features: bool) -> None:
        self.model = model
        self.cache = cache
        self.keep_features = keep_features
        self.forwards = self.tokens = 0

    def run(
        self,
        plans: Sequence[lanes.Planned],
        policies: Sequence[Policy],
        outcomes: Outcomes,
        writes: list[Write],
    ) -> None:
        """One forward for all lanes; if it fails, one for each, and whose fails again ends.

        Args:
            plans: of the lanes.
            policies: of all lanes of the engine.
            outcomes: turns distributions into writes.
            writes: what was written is added to it, the ends of lanes that failed included.

        Raises:
            Exception: if it is the fault of no one lane (see `apart.common_fault`); none has begun.
        """

        def forward(some: Sequence[lanes.Planned]) -> StepOutput | None:
            inputs = [planned.input for planned in some]
            asked = [policies[i.lane].needs for i in inputs if i.probe is not None]
            needs = set().union(*asked)
            return self.model.step(self.cache, inputs, attention="attention" in needs)

        results = attempt(forward, plans)
        errors = [result for _, result in results if isinstance(result, Exception)]
        if fault := common_fault(errors, len(plans)):
            raise fault
        for group, result in results:
            if isinstance(result, Exception):
                (failed,) = group
                writes.append(lanes.fail(failed.state, failed.input.lane, reason(result)))
            else:
                self._settle(group, result, policies, outcomes, writes)

    def _settle(
        self,
        plans: Sequence[lanes.Planned],
        output: StepOutput | None,
        policies: Sequence[Policy],
        outcomes: Outcomes,
        writes: list[Write],
    ) -> None:
        """Count what was read, then write; entries and counters agree whatever is raised."""
        self.forwards += 1
        self.tokens += sum(planned.input.size for planned in plans)
        try:
            for planned in plans:
                lanes.begin_step(planned, self.keep_features)
            if output is not None:
                probing = [planned for planned in plans if planned.input.probe is not None]
                numbers = [planned.input.lane for planned in probing]
                states = [planned.state for planned in probing]
                asked = [policies[lane] for lane in numbers]
                writes += outcomes.resolve(numbers, states, asked, output)
        finally:
            for planned in plans:
                self.cache.lengths[planned.input.lane] = planned.state.num_entries
