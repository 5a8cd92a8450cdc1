"""A run that is asked to stop: it ends after the update that it is at, and loses none."""

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Stops(Protocol):
    """Whether a run is asked to stop, as by Ctrl-C; see `cli.stopping`."""

    @property
    def came(self) -> bool:
        """Whether it is."""

    def noting(self, told: str = "") -> AbstractContextManager[None]:
        """In here that is only noted, and `told` is said; elsewhere it raises KeyboardInterrupt."""


class NoStops:
    """Nobody asks."""

    came = False

    def noting(self, told: str = "") -> AbstractContextManager[None]:
        """See `Stops`."""
        return nullcontext()


class InOrder(TrainerCallback):
    """Saves a checkpoint after the update in which a run was asked to stop, and ends it.

    Several processes stop together, whichever of them was asked.
    """

    def __init__(self, stops: Stops) -> None:
        self.stops = stops
        self.stopped = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """After an update."""
        if state.global_step >= state.max_steps or not _agreed(args, self.stops.came):
            return
        self.stopped = control.should_save = control.should_training_stop = True

    # Its evaluation follows an update, and may take longer: it is not to be followed by another.
    on_evaluate = on_step_end


def leave_signals(begin: Callable[[int], None] | None, worker: int) -> None:
    """Begins a process that prepares batches, and has it ignore what asks the whole run to stop.

    A terminal tells all processes; without batches, the update under way could not be finished.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if begin is not None:
        begin(worker)


def _agreed(args: TrainingArguments, came: bool) -> bool:
    """Whether any of the processes was asked."""
    if args.world_size == 1:
        return came
    asked = torch.tensor(int(came), device=args.device)
    torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
    return bool(asked)
