"""Outputs of the models on a batch, for all objectives; each is computed when first asked for.

So CTC alone runs no language model. Legend: B = batch, S = tokens of the packed sequence, H = LM
width, A = samples with features, P = encoder outputs, D = encoder width, E = embeddings.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from proactivellm.core.masks import SHARED
from proactivellm.core.packing import MEDIA_ID
from proactivellm.forward.seen import looking
from proactivellm.train.head import projection
from proactivellm.train.objectives.objective import Objective, RowObjective
from proactivellm.train.rows import Control, row_sums, view_scores
from proactivellm.train.views import packed_output, view_actions, view_rows

if TYPE_CHECKING:
    from proactivellm.train.learner import Learner


WRITTEN = "written_"  # begins the names of tensors of another batch, see `prefixes.as_batch`


class Outputs:
    """Outputs of a learner's models on a batch of `views.collate`; used inside its forward only."""

    def __init__(self, learner: "Learner", batch: dict[str, Tensor]) -> None:
        self.learner = learner
        self.batch = batch

    @cached_property
    def written(self) -> "Outputs":
        """Those on the samples that were written for a teacher to judge."""
        named = {k: v for k, v in self.batch.items() if k.startswith(WRITTEN)}
        return Outputs(self.learner, {k.removeprefix(WRITTEN): v for k, v in named.items()})

    @cached_property
    def encoded_APD(self) -> Tensor | None:
        """Outputs of the front end's encoder; None in a batch of texts alone."""
        if "features" not in self.batch:
            return None
        return self.learner.front_end.encode(self.batch["features"], self.batch["num_frames"])

    @cached_property
    def embeddings_BSH(self) -> Tensor:
        """Input embeddings, with those of the front end in place of the ids MEDIA_ID.

        Where these are wider (`decoder.Parts.width`), so are those of texts, by zeros.
        """
        ids_BS = self.batch["input_ids"]
        media_BS = ids_BS == MEDIA_ID
        text_BSH = self.learner.model.get_input_embeddings()(ids_BS.masked_fill(media_BS, 0))
        if self.encoded_APD is None:
            return text_BSH
        front_end = self.learner.front_end
        embedded_AEH = front_end.embed_outputs(self.encoded_APD, self.batch["num_frames"])
        views = self.batch["view"]
        # One copy for each view, where views share no source.
        copies = 1 if bool((media_BS & (views == SHARED)).any()) else int(views.max()) + 1
        count_A = media_BS.sum(1)[self.batch["feature_rows"]] // copies
        each = [e[:n].repeat(copies, 1) for e, n in zip(embedded_AEH, count_A, strict=True)]
        embedded = torch.cat(each).to(text_BSH.dtype)
        text_BSH = F.pad(text_BSH, (0, embedded.shape[-1] - text_BSH.shape[-1]))
        return text_BSH.masked_scatter(media_BS[..., None], embedded)

    @cached_property
    def decoded(self) -> Any:
        """What the decoder of the LM returns: `last_hidden_state`, and what objectives ask for."""
        learner = self.learner
        arguments: dict[str, Any] = {}
        for objective in learner.terms:
            arguments |= objective.decoder_arguments
        given = (learner.model, self.batch, learner.layout, learner.windows, self.embeddings_BSH)
        if learner.control is None:
            return packed_output(*given, **arguments)
        media_BS = self.batch["input_ids"] == MEDIA_ID
        with looking(learner.control, learner.model, media_BS) as control:
            return packed_output(*given, control=control, **arguments)

    def count(self, objective: Objective) -> Tensor:
        """What its sums are divided by: the count of the update it is part of, if known."""
        whole = self.batch.get(f"count_{objective.name}")
        return objective.count(self.batch).clamp(min=1) if whole is None else whole

    def row_means(self, objective: RowObjective) -> Tensor:
        """The parts of one objective, means over target rows: [P], nats per token."""
        return self._row_sums[objective] / self.count(objective)

    def row_parts(self) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor, int]:
        """What makes logits of hidden states; these of all views, [W, R, D], and labels [W, R]; how
        many rows have logits at once.
        """
        hidden_WRD, label_WR = view_rows(self.decoded.last_hidden_state, self.batch)
        chunk = self.learner.rows_per_chunk(len(hidden_WRD))
        # Nothing of this object, which keeps all activations: what recomputes rows keeps this.
        project = projection(self.learner.model, label_WR.shape[1] > chunk)
        return project, hidden_WRD, label_WR, chunk

    @cached_property
    def _row_sums(self) -> dict[RowObjective, Tensor]:
        every = [o for o in self.learner.terms if isinstance(o, RowObjective)]
        read_id, has_full = self.learner.read_id, self.learner.needs_full
        if self.learner.softmax is None:
            project, hidden_WRD, label_WR, chunk = self.row_parts()
        else:
            hidden_WRD, label_WR = view_rows(self.decoded.last_hidden_state, self.batch)
            candidates = self.learner.softmax.draw(label_WR)
            project, label_WR = (
                candidates.projection(self.learner.model),
                candidates.column(label_WR),
            )
            chunk = self.learner.rows_per_chunk(len(hidden_WRD), sampled=True)
            if read_id is not None:
                read_id = int(candidates.column(torch.tensor(read_id, device=label_WR.device)))
        control = None if read_id is None else Control(read_id, view_actions(self.batch))
        sums = row_sums(every, project, (hidden_WRD, label_WR), has_full, chunk, control)
        sizes = [len(objective.part_names) for objective in every]
        return dict(zip(every, sums.split(sizes), strict=True))

    def view_scores(self) -> Tensor:
        """Sums of [negative log-likelihood, hits, rows] of each view: [W, 3]."""
        views = view_rows(self.decoded.last_hidden_state, self.batch)
        chunk = self.learner.rows_per_chunk(num_views=1)
        project = projection(self.learner.model, in_chunks=False)
        return view_scores(project, *views, chunk, self.learner.read_id)
