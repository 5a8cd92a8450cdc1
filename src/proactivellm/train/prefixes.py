"""What was written for a teacher to judge, as tensors beside those of a batch.

Legend: B = prefixes, S = tokens of the packed sequence, T = target tokens, K = tokens of a teacher.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor
from transformers import TrainerCallback, TrainerControl

from proactivellm.backbone.prompt import PromptIds
from proactivellm.core.layout import TARGET, Layout
from proactivellm.core.packing import Packed, pack
from proactivellm.core.schedule import offline
from proactivellm.forward.packed import pad_rows
from proactivellm.tasks.item import Item
from proactivellm.train.outputs import WRITTEN
from proactivellm.train.samples import prompted
from proactivellm.train.views import collate

if TYPE_CHECKING:
    from proactivellm.train.recipe import Recipe
    from proactivellm.train.trainer import StreamingTrainer


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """A target, whoever wrote it: each of its tokens is learnt after those before it."""

    units: Sequence[Sequence[int]]  # ids of the source, without the prompt
    tokens: Sequence[int]  # what ended the target included
    schedule: Sequence[int]  # units in the partial view of each token
    counted: Sequence[bool]  # by token, whether it is learnt from

    def packed(self, prompt: PromptIds, layout: Layout, views: Iterable[Sequence[int]]) -> Packed:
        """One sequence with a view for each of the schedules."""
        sample = prompted(self.units, self.tokens, prompt)
        return pack(sample, [{TARGET: list(g)} for g in views], layout)

    @property
    def whole(self) -> list[int]:
        """The schedule that sees the whole source at every token."""
        return offline(len(self.units), len(self.tokens))


class Prefixes(Protocol):
    """Where the prefixes of a run come from."""

    def extend(self, batches: Sequence[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The micro-batches of an update, each with the tensors of `as_batch` for its samples."""

    def advance(self) -> bool:
        """After an update; whether the run is to end."""

    def save(self, folder: str) -> None:
        """Write what a run goes on from."""

    def load(self, folder: str) -> None:
        """Go on from a checkpoint; ValueError if it has none of this."""


class MakePrefixes(Protocol):
    """Makes the prefixes of a run."""

    def __call__(
        self, recipe: "Recipe", trainer: "StreamingTrainer", held_out: Sequence[Item]
    ) -> Prefixes:
        """Of a trainer that is ready to run; ValueError if they do not fit it.

        `held_out` are the items of validation.
        """


class Advance(TrainerCallback):
    """Tells prefixes that an update is done, and ends the run where they say so."""

    def __init__(self, prefixes: Prefixes) -> None:
        self.prefixes = prefixes

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        """After an update."""
        if self.prefixes.advance():
            control.should_training_stop = True


def as_batch(
    prefixes: Sequence[Prefix], prompt: PromptIds, layout: Layout, full: bool
) -> dict[str, Tensor]:
    """Prefixes as the tensors of `views.collate`, all names with WRITTEN before them.

    Also `counted` [B, T], int64, by target token.

    Args:
        full: pack the view that sees the whole source before the partial one.
    """
    views = [[each.whole] * full + [each.schedule] for each in prefixes]
    packed = [each.packed(prompt, layout, g) for each, g in zip(prefixes, views, strict=True)]
    tensors = collate(packed)
    tensors["counted"] = pad_rows([list(map(int, each.counted)) for each in prefixes], 0)
    return prefixed(tensors)


def prefixed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under the names that a batch has for them."""
    return {f"{WRITTEN}{name}": tensor for name, tensor in tensors.items()}
