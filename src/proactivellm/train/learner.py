"""What the Trainer trains: the models of a run and its objectives, as one module.

All that touches weights happens inside its forward, evaluation too, so that it may be wrapped:
by DDP, by mixed precision, by FSDP, which has all weights in place only there.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from proactivellm.core.layout import Layout
from proactivellm.forward.controls import control_of
from proactivellm.forward.watch import watch_attention
from proactivellm.train.objectives.objective import Objective
from proactivellm.train.outputs import Outputs
from proactivellm.train.rows import rows_within
from proactivellm.train.sampled_softmax import SampledSoftmax


class Learner(nn.Module):
    """A causal LM, its front end if it has one, and objectives, whose losses are added.

    Args:
        front_end: trained in place.
        logits_mib: memory that logits and what is computed from them may take at once.
        read_id: the control token, which the model never writes; None = it has none.
        softmax: over which tokens losses of rows are; None = over all. Scores are over all.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        objectives: Sequence[Objective],
        front_end: Any = None,
        logits_mib: int = 1024,
        read_id: int | None = None,
        softmax: SampledSoftmax | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.front_end = front_end
        self.objectives = nn.ModuleDict({objective.name: objective for objective in objectives})
        self.layout = layout
        self.windows = watch_attention(model).windows
        self.logits_mib = logits_mib
        self.read_id = read_id
        self.softmax = softmax
        self.control = control_of(front_end)
        # Where FSDP asks which modules it wraps by themselves.
        self._no_split_modules = getattr(model, "_no_split_modules", None)

    @property
    def terms(self) -> list[Objective]:
        """The objectives, in the order of their parts."""
        return [cast(Objective, objective) for objective in self.objectives.values()]

    @property
    def part_names(self) -> list[str]:
        """What the parts of the loss are called."""
        return [name for objective in self.terms for name in objective.part_names]

    @property
    def needs_full(self) -> bool:
        """Whether an objective looks at the full view, which is then the first of the views."""
        return any(objective.needs_full for objective in self.terms)

    def rows_per_chunk(self, num_views: int, sampled: bool = False) -> int:
        """Target rows whose logits exist at once, over all tokens or those of `softmax`."""
        vocabulary = self.model.config.get_text_config().vocab_size
        if sampled and self.softmax is not None:
            vocabulary = self.softmax.most
        # Cutting a column out takes a copy of the gradient.
        copies = num_views if self.read_id is None else num_views + 1
        return rows_within(self.logits_mib, vocabulary, copies)

    def count(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the losses of a batch are means over, by objective."""
        return {objective.name: objective.count(batch) for objective in self.terms}

    def forward(self, scored: bool = False, **batch: Tensor) -> dict[str, Tensor]:
        """The training loss, or how well each view predicts.

        Args:
            scored: ask for `scores` in place of the loss.
            **batch: the tensors of `views.collate`, with `count_NAME` of an objective where it is
                part of a larger update.

        Returns:
            `loss` (scalar) and `parts` (detached, in the order of `part_names`); or `scores` [W,
            3]: sums of negative log-likelihood, hits, rows per view.

        Raises:
            ValueError: if no objective has anything to learn from the batch.
        """
        outputs = Outputs(self, batch)
        if scored:
            # Of the weights as they are, in whatever precision they are trained.
            with torch.autocast(batch["input_ids"].device.type, enabled=False):
                return {"scores": outputs.view_scores()}
        learnt = [objective(outputs) for objective in self.terms]
        loss = sum([one["loss"] for one in learnt[1:]], learnt[0]["loss"])
        if torch.is_grad_enabled() and not loss.requires_grad:
            raise ValueError(
                f"nothing can be learnt from a batch of texts alone by {', '.join(self.part_names)}"
            )
        return {"loss": loss, "parts": torch.cat([one["parts"] for one in learnt])}
