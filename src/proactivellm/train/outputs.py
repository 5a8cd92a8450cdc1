"""What the models make of a batch, for all objectives; each output is made when first asked for.

So CTC alone runs no language model. Legend: B = batch, S = tokens of the packed sequence, H = LM
width, A = samples with a recording, P = encoder outputs, D = encoder width, E = embeddings.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from proactivellm.backbone.decoder import Parts
from proactivellm.core.packing import MEDIA_ID
from proactivellm.train.objectives.objective import Objective, RowObjective
from proactivellm.train.rows import row_sums, view_scores
from proactivellm.train.views import packed_output, view_rows

if TYPE_CHECKING:
    from proactivellm.train.learner import Learner


class Outputs:
    """Outputs of a learner's models; made and used inside its forward only.

    Args:
        learner: has the models.
        batch: from `views.collate`.
    """

    def __init__(self, learner: "Learner", batch: dict[str, Tensor]) -> None:
        self.learner = learner
        self.batch = batch

    @cached_property
    def heard_APD(self) -> Tensor | None:
        """Outputs of the encoder; None in a batch without recordings."""
        if "mel" not in self.batch:
            return None
        return self.learner.front_end.encoder(self.batch["mel"], self.batch["num_frames"])

    @cached_property
    def embeddings_BSH(self) -> Tensor:
        """Input embeddings, with what is heard in place of the ids MEDIA_ID."""
        ids_BS = self.batch["input_ids"]
        audio_BS = ids_BS == MEDIA_ID
        text_BSH = self.learner.model.get_input_embeddings()(ids_BS.masked_fill(audio_BS, 0))
        if self.heard_APD is None:
            return text_BSH
        front_end = self.learner.front_end
        embedded_AEH = front_end.embed_outputs(self.heard_APD, self.batch["num_frames"])
        count_A = audio_BS.sum(1)[self.batch["mel_rows"]]
        place_E = torch.arange(embedded_AEH.shape[1], device=ids_BS.device)
        heard = embedded_AEH[place_E < count_A[:, None]]
        return text_BSH.masked_scatter(audio_BS[..., None], heard.to(text_BSH.dtype))

    @cached_property
    def decoded(self) -> Any:
        """What the decoder of the LM returns: `last_hidden_state`, and what objectives ask for."""
        learner = self.learner
        arguments: dict[str, Any] = {}
        for objective in learner.terms:
            arguments |= objective.decoder_arguments
        return packed_output(
            learner.model,
            self.batch,
            learner.layout,
            learner.windows,
            self.embeddings_BSH,
            **arguments,
        )

    def count(self, objective: Objective) -> Tensor:
        """What its sums are divided by: the count of the update it is part of, if known."""
        whole = self.batch.get(f"count_{objective.name}")
        return objective.count(self.batch).clamp(min=1) if whole is None else whole

    def row_means(self, objective: RowObjective) -> Tensor:
        """The parts of one objective, means over target rows: [P], nats per token."""
        return self._row_sums[objective] / self.count(objective)

    @cached_property
    def _row_sums(self) -> dict[RowObjective, Tensor]:
        """The sums of all objectives over rows, which are shown the same distributions."""
        every = [o for o in self.learner.terms if isinstance(o, RowObjective)]
        views = view_rows(self.decoded.last_hidden_state, self.batch)
        chunk = self.learner.rows_per_chunk(len(views[0]))
        sums = row_sums(every, self._project, views, self.learner.needs_full, chunk)
        sizes = [len(objective.part_names) for objective in every]
        return dict(zip(every, sums.split(sizes), strict=True))

    def view_scores(self) -> Tensor:
        """Sums of [negative log-likelihood, hits, rows] of each view: [W, 3]."""
        views = view_rows(self.decoded.last_hidden_state, self.batch)
        return view_scores(self._project, *views, self.learner.rows_per_chunk(num_views=1))

    @property
    def _project(self) -> Callable[[Tensor], Tensor]:
        # Not bound to this object, which keeps all activations: what recomputes rows keeps this.
        return Parts(self.learner.model).project
