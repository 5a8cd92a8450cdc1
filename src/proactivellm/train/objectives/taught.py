"""Distillation at prefixes that the student or a teacher has written, or those of the data.

SPSD compares two views at *reference* prefixes; a stream goes on from its own. Legend: B =
prefixes, R = target rows, C = rows of a chunk, D = model width, K = tokens of a teacher.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from proactivellm.train.objectives.divergence import (
    entropy,
    jensen_shannon,
    mixed_kl,
    with_rest,
)
from proactivellm.train.objectives.objective import Objective
from proactivellm.train.objectives.sampled import (
    dial_score,
    log_ratio,
    num_kept,
    policy_loss,
    power_difference,
    top_tokens,
)
from proactivellm.train.objectives.teaching import DISTILLATION, Teaching
from proactivellm.train.rows import log_probabilities, over_chunks, without_label
from proactivellm.train.views import of_targets, predicting

if TYPE_CHECKING:
    from proactivellm.train.outputs import Outputs


class _Rows(NamedTuple):
    """Quantities of rows, [R]; a gradient flows into the first two."""

    log_q_R: Tensor  # log-probability of the token that was written, for the student
    divergence_R: Tensor  # of the student from the teacher, over their tokens; 0 if not asked for
    log_p_R: Tensor  # as `log_q_R`, for the teacher; 0 without one
    entropy_R: Tensor  # of the student


class Taught(Objective):
    """The loss of `[distillation]`, a mean over all tokens of the update that are learnt from."""

    name = "taught"
    Settings = Teaching
    section = DISTILLATION
    weight_keys = ("weight",)
    part_names = ("taught", "entropy")
    teaches = True

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        """Tokens that are learnt from."""
        num_B = batch["written_counted"].sum(1)
        return num_kept(num_B, self.settings.keep_share).sum()

    def forward(self, outputs: "Outputs") -> dict[str, Tensor]:
        """`taught` is the loss, `entropy` that of the student, nats per token learnt from."""
        rows, counted_R, response_R = self._rows(outputs.written)
        settings = self.settings
        if settings.keep_share < 1:
            score_R = dial_score(rows.log_p_R, rows.log_q_R, settings.keep_beta)
            response_R = response_R.masked_fill(~counted_R, -1)
            counted_R = top_tokens(score_R, response_R, settings.keep_share)
        # Divided by the tokens of the whole update: micro-batches may be of any size.
        number = outputs.count(self)
        taught = (self._loss(rows) * counted_R).sum() / number
        entropy_ = (rows.entropy_R * counted_R).sum() / number
        parts = torch.stack([taught.detach(), entropy_.detach()])
        return {"loss": self.weights[0] * taught, "parts": parts}

    def _loss(self, rows: _Rows) -> Tensor:
        """By row, [R]."""
        settings = self.settings
        if settings.loss == "likelihood":
            return -rows.log_q_R
        if settings.loss in ("kl", "jsd"):
            return rows.divergence_R
        if settings.loss == "power":
            reward_R = power_difference(rows.log_p_R, rows.log_q_R, settings.alpha)
        else:
            reward_R = log_ratio(rows.log_p_R, rows.log_q_R)
        return policy_loss(rows.log_q_R, reward_R)

    def _rows(self, written: "Outputs") -> tuple[_Rows, Tensor, Tensor]:
        """Quantities of all rows, whether each counts, and the prefix it is of."""
        batch = written.batch
        predicts_BS = predicting(batch)[-1]
        prefix_B1 = torch.arange(len(predicts_BS), device=predicts_BS.device)[:, None]
        project, views_WRD, label_WR, chunk = written.row_parts()
        label_R = label_WR[-1]
        none = [None] * len(label_R.split(chunk))
        hidden = views_WRD[-1].split(chunk)
        full = views_WRD[0].detach().split(chunk) if len(views_WRD) > 1 else none
        teacher: list[Any] = [none, none, none]
        if "teacher_id" in batch:
            names = ("teacher_id", "teacher_log_p", "teacher_token")
            teacher = [of_targets(batch[name], predicts_BS).split(chunk) for name in names]
        one = partial(self._chunk, project, written.learner.read_id)
        chunks = list(zip(hidden, label_R.split(chunk), full, *teacher, strict=True))
        rows = _Rows(*torch.cat(over_chunks(one, chunks), dim=1).unbind())
        counted_R = of_targets(batch["counted"], predicts_BS).bool()
        return rows, counted_R, prefix_B1.expand_as(predicts_BS)[predicts_BS]

    def _chunk(
        self,
        project: Callable[[Tensor], Tensor],
        read_id: int | None,
        hidden_CD: Tensor,
        label_C: Tensor,
        full_CD: Tensor | None,
        *gathered: Tensor | None,
    ) -> Tensor:
        """The fields of `_Rows`, [4, C]; distributions of the chunk are all that is alive."""
        settings = self.settings
        log_q_CV, _ = log_probabilities(project(hidden_CD), read_id)
        label_C1 = without_label(label_C, read_id)[:, None]
        log_q_C = log_q_CV.gather(-1, label_C1)[:, 0]
        log_p_C = divergence_C = torch.zeros_like(log_q_C)
        if settings.loss != "likelihood":
            id_CK, log_p_CK, token_C = gathered
            if full_CD is not None:
                with torch.no_grad():
                    log_p_CV, _ = log_probabilities(project(full_CD), read_id)
                    token_C = log_p_CV.gather(-1, label_C1)[:, 0]
                    log_p_CK, id_CK = log_p_CV.topk(min(settings.top_k, log_p_CV.shape[-1]))
            else:
                assert id_CK is not None
                id_CK = without_label(id_CK, read_id)
            assert log_p_CK is not None and id_CK is not None and token_C is not None
            log_p_C = token_C
            if settings.loss in ("kl", "jsd"):
                log_q_CK = log_q_CV.gather(-1, id_CK)
                if log_q_CK.shape[-1] < log_q_CV.shape[-1]:
                    log_p_CK, log_q_CK = with_rest(log_p_CK), with_rest(log_q_CK)
                divergence = mixed_kl if settings.loss == "kl" else jensen_shannon
                divergence_C = divergence(log_p_CK, log_q_CK, settings.mix)
        with torch.no_grad():
            entropy_C = entropy(log_q_CV)
        return torch.stack([log_q_C, divergence_C, log_p_C, entropy_C])
