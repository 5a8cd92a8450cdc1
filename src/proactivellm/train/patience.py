"""The early end of a run that no longer gets better at streaming."""

import logging
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

log = logging.getLogger(__name__)


class Patience(TrainerCallback):
    """Ends a run after `evaluations` without a lower validation loss under a schedule; 0 = never.

    All that it knows is in the log of the run, so that a resumed run ends where the first would.
    """

    def __init__(self, evaluations: int, schedule: str) -> None:
        self.evaluations = evaluations
        self.name = f"eval_nll_{schedule}"

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Called after an evaluation has been logged."""
        losses = {e["step"]: e[self.name] for e in state.log_history if self.name in e}
        values = list(losses.values())
        best = values.index(min(values))
        if not 0 < self.evaluations < len(values) - best:
            return
        control.should_training_stop = True
        log.warning(
            "the run ends early, at update %d: its lowest %s was %g, at update %d",
            state.global_step,
            self.name,
            values[best],
            list(losses)[best],
        )
