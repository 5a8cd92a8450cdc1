"""Whether samples fit the positions of a model, asked before a run starts.

One sample beyond them would not only be wrong itself: `longrope` chooses the angles of a whole
batch by its largest position, so that it would change its neighbours too.
"""

from collections.abc import Sequence

from transformers import PreTrainedModel

from proactivellm.backbone.decoder import position_limit
from proactivellm.core.layout import Layout
from proactivellm.core.packing import Sample
from proactivellm.modality.base import TooLongError
from proactivellm.tasks.item import Item, place_of
from proactivellm.train.samples import Encoder


def positions_needed(sample: Sample, layout: Layout) -> int:
    """The largest position id, and one, of a sample under any schedule that may be drawn for it."""
    numbers = layout.numbers(sample.sizes).next
    return max(
        numbers[counter] + offset
        for counter, offset in zip(layout.counter, layout.offset, strict=True)
    )


class Fit:
    """Knows the samples that a model has positions for; its limit is that of sessions.

    Args:
        skip: leave out what does not fit, in place of refusing it.
    """

    def __init__(
        self, model: PreTrainedModel, encoder: Encoder, layout: Layout, skip: bool
    ) -> None:
        self.limit = position_limit(model.config)
        self.model_type = model.config.get_text_config().model_type
        self.encoder = encoder
        self.layout = layout
        self.skip = skip
        self.left_out: list[str] = []

    def __call__(self, items: Sequence[Item]) -> bool:
        """Whether a sample fits; if not, it is noted, or refused (ValueError) unless `skip`."""
        problem = self._problem(items)
        if not problem:
            return True
        place = place_of(items, f"the sample {items[0].target[:40]!r}")
        if not self.skip:
            raise ValueError(
                f"{place}: {problem}: shorten it, join fewer with data.concat, or leave out what "
                "does not fit with data.skip_too_long = true"
            )
        self.left_out.append(place)
        return False

    def _problem(self, items: Sequence[Item]) -> str:
        """What does not fit; empty if all does."""
        if self.limit is None and not items[0].media:
            return ""
        try:
            sample = self.encoder.longest(items)
        except TooLongError as error:
            return str(error)
        needed = positions_needed(sample, self.layout)
        if self.limit is None or needed <= self.limit:
            return ""
        return f"needs {needed} positions, and model type {self.model_type!r} has {self.limit}"
