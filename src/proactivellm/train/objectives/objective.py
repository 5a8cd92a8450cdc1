"""One term of the loss: the interface, and the kind that looks at distributions of target rows.

A run learns the sum of its objectives over one forward, whose outputs they share. Legend: R =
target rows, V = vocabulary, P = parts of a loss.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch import Tensor, nn
from transformers import PreTrainedModel

from proactivellm.core.packing import IGNORE
from proactivellm.files.toml import Strict

if TYPE_CHECKING:
    from proactivellm.train.outputs import Outputs


FRONT_END = "front_end"  # section of keys that stand in the table of the modality


class Objective(nn.Module, ABC):
    """One term of the loss; its weights, if it has any, are saved in checkpoints."""

    name: ClassVar[str]  # of the objective, and of its file in a checkpoint
    Settings: ClassVar[type[Strict]]  # its keys in the recipe, in the table `section`
    section: ClassVar[str] = "objective"
    # Those of its keys that are weights, one for each part; if all are 0, the run is without it.
    weight_keys: ClassVar[tuple[str, ...]]
    # Those by which it looks at the view that sees the whole source.
    full_keys: ClassVar[tuple[str, ...]] = ()
    part_names: ClassVar[tuple[str, ...]]  # what its parts are called in the log
    # What it asks of the decoder beside hidden states.
    decoder_arguments: ClassVar[dict[str, Any]] = {}
    # Whether a model learns something by it alone; by a penalty it does not.
    teaches: ClassVar[bool] = False

    def __init__(self, settings: Any, model: Any = None, front_end: Any = None) -> None:
        super().__init__()
        self.settings = settings
        self.weights = tuple(getattr(settings, key) for key in self.weight_keys)
        self.needs_full = any(getattr(settings, key) for key in self.full_keys)

    @classmethod
    def wanted(cls, settings: Any) -> bool:
        """Whether a table of the recipe gives it a weight."""
        return any(getattr(settings, key) for key in cls.weight_keys)

    @classmethod
    def make(cls, settings: Any, model: PreTrainedModel, front_end: Any) -> Self | None:
        """The objective of a run; None where it has no weight. ValueError if it does not fit the
        model.

        `settings` are the table of the recipe, with the keys of `Settings` among others.
        """
        return cls(settings, model, front_end) if cls.wanted(settings) else None

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        """What its sums over a batch become means over: target rows of one view."""
        return ((batch["label"] != IGNORE) & (batch["view"] == 0)).sum()

    @abstractmethod
    def forward(self, outputs: "Outputs") -> dict[str, Tensor]:
        """The loss of a batch: `loss`, weighted, and `parts` [P], detached, as in `part_names`."""


@dataclass(frozen=True)
class ViewRows:
    """Some target rows as one view sees them: log-probabilities, and what each row is to write."""

    log_p_RV: Tensor
    label_R: Tensor  # token; negative: nothing is taught
    # Log-probabilities of the same rows with the whole source visible; None if no objective needs
    # them.
    full_RV: Tensor | None = None
    # Of a model with a control token, which is no part of the distributions above, nor counted in
    # labels: its log-odds against all that may be written, and the action that each row is to
    # learn, of `train.actions`; None where none is learnt.
    read_R: Tensor | None = None
    action_R: Tensor | None = None


class RowObjective(Objective):
    """A sum over target rows, which is shown their distributions some rows at a time."""

    def of_full(self, rows: ViewRows) -> Tensor:
        """The parts of the full view, summed over rows: [P]."""
        return rows.log_p_RV.new_zeros(len(self.part_names))

    def of_partial(self, rows: ViewRows) -> Tensor:
        """The parts of a partial view, summed over rows: [P]; of several the mean is learnt."""
        return rows.log_p_RV.new_zeros(len(self.part_names))

    def forward(self, outputs: "Outputs") -> dict[str, Tensor]:
        """The weighted sum of the means over rows, nats per token."""
        parts = outputs.row_means(self)
        weighted = [w * part for w, part in zip(self.weights, parts.unbind(), strict=True)]
        return {"loss": sum(weighted[1:], weighted[0]), "parts": parts.detach()}
